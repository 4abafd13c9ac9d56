"""count_unseen.py: errors on what training has and on what it lacks."""

from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = "egs/mandarin/local/count_unseen.py"
Score = Callable[..., list[str]]


@pytest.fixture
def score(run_bin, tmp_path: Path) -> Score:
    """Score one utterance, and return the fields of its line in the table."""

    def run(units: str, train: str, ref: str, hyp: str) -> list[str]:
        data, decode = tmp_path / "data", tmp_path / "ctc" / "decode_test"
        data.mkdir()
        decode.mkdir(parents=True)
        (tmp_path / "train").write_text(train, encoding="utf-8")
        (data / "text").write_text(f"a {ref}\n", encoding="utf-8")
        (decode / "hyp.txt").write_text(f"a {hyp}\n", encoding="utf-8")
        rule = "--cer" if units == "char" else "--name=TSER"
        run_bin("score.py", rule, "--sclite=false", data, decode, check=True)
        done = run_bin(PROGRAM, f"--units={units}", tmp_path / "train", decode, check=True)
        heading, line = done.stdout.decode().splitlines()
        assert heading.split()[:3] == [
            *(("%CER", "of", "characters") if units == "char" else ("%TSER", "of", "syllables"))
        ]
        return line.split()

    return run


def test_characters(score: Score) -> None:
    line = score("char", "u1 我们是\nu2 中国人\n", "我们爱爱中国", "我是中国人")
    # 们 and the two 爱 are wrong, of which training lacks 爱; 人 is inserted.
    assert line[0] == "ctc/decode_test"
    assert line[1:4] == ["66.67", "of", "6"]
    assert line[4:] == ["25.00", "1,", "2,", "100.00"]


def test_nothing_unseen(score: Score) -> None:
    assert score("char", "u1 我们\n", "我们", "我")[4:] == ["50.00", "0,", "0,", "-"]


def test_tones_of_syllables(score: Score) -> None:
    line = score("pinyin", "u1 ma1 shi4 hao3\n", "ma1 shi4 hao3 ni3", "ma5 shi4 hao3 hao3")
    assert line[1:] == ["50.00", "of", "4", "33.33", "1,", "1,", "100.00", "25.00"]


def test_a_directory_without_a_score(run_bin, tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a 我\n", encoding="utf-8")
    done = run_bin(PROGRAM, tmp_path / "train", tmp_path)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
