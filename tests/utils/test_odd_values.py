"""Odd numbers and odd identifiers in the files of a data directory are read, or named."""

from pathlib import Path

import pytest

NUMBERS = ["²", "٣", "１２", "9" * 30, "9" * 5000, "1_0", "-5", "1e999", "nan", "0x10", "٣.5", ""]
IDS = ["--help", "--x", "-", "a/b", "/abs", "../../up", ".", "..", "a:b", "a[0:1]", "a|", "$(x)"]
IDS += ["'", '"', "*", "a;b", "`x`", "é"]
FILES = {
    "utt2num_frames": "s1-a {}\ns1-b 5\n",
    "utt2dur": "s1-a {}\ns1-b 5\n",
    "reco2dur": "s1-a {}\ns1-b 5\n",
    "segments": "s1-a s1-a 0 {}\ns1-b s1-b 0 5\n",
    "utt2warp": "s1-a {}\ns1-b 1\n",
    "frame_shift": "{}\n",
    "stm": "s1-a 1 s1 0 {} <O> x\n",
}


def write(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    (path / "wav.scp").write_text("".join(f"{u.split()[0]} x.wav\n" for u in lines(files)))
    return path


def lines(files: dict[str, str]) -> list[str]:
    return files["text"].splitlines()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
def test_an_odd_number_is_named(execute, tmp_path: Path, name: str, number: str) -> None:
    good = {
        "text": "s1-a x\ns1-b y\n",
        "utt2spk": "s1-a s1\ns1-b s1\n",
        "spk2utt": "s1 s1-a s1-b\n",
    }
    path = write(tmp_path / "d", **good, **{name: FILES[name].format(number)})
    done = execute("validate_data_dir.py", "--no-feats", path)
    if done.status == 0:
        assert (number, name != "utt2num_frames") == ("9" * 30, True)  # many seconds
        return
    assert f"{path / name}:1: " in done.err
    for program, options, rest in (
        ("split_data.py", ["--per-utt"], [2]),
        ("subset_data_dir.py", ["--first"], [1, tmp_path / "some"]),
        ("fix_data_dir.py", [], []),
    ):
        done = execute(program, *options, path, *rest)
        assert done.status in (0, 1)
        assert "unexpected" not in done.err
        assert done.status == 0 or str(path / name) in done.err


@pytest.mark.parametrize("name", IDS)
def test_an_odd_identifier_is_an_identifier(execute, tmp_path: Path, name: str) -> None:
    files = {"text": f"{name} x y\n", "utt2spk": f"{name} {name}\n", "spk2utt": f"{name} {name}\n"}
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / "d", **files)
    decoded = tmp_path / "in" / "decode"
    decoded.mkdir()
    (decoded / "hyp.txt").write_text(f"{name} x z\n")
    for command in (
        ["validate_data_dir.py", "--no-feats", path],
        ["fix_data_dir.py", path],
        ["split_data.py", "--per-utt", path, 1],
        ["subset_data_dir.py", "--first", path, 1, tmp_path / "in" / "some"],
        ["combine_data.py", tmp_path / "in" / "all", path],
        ["score.py", "--replications=10", path, decoded],
        ["utt2spk_to_spk2utt.py", path / "utt2spk"],
    ):
        done = execute(*command)
        assert done.status == 0, (command, done.err)
    assert (path / "split1utt" / "1" / "text").read_text() == f"{name} x y\n"
    assert (tmp_path / "in" / "some" / "text").read_text() == f"{name} x y\n"
    assert "%WER 50.00" in (decoded / "scoring" / "wer").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert {p.name for p in (tmp_path / "in").iterdir()} == {"d", "decode", "some", "all"}
