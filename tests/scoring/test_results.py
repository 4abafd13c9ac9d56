"""The reader of score.json, wer, speed.jsonl and metrics.jsonl."""

import json
from pathlib import Path

import pytest

from pipeline.errors import DataError, ModelError
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.results import (
    best_epoch,
    read_metrics,
    read_score,
    read_speed,
    read_wer,
)
from pipeline.scoring.score_directory import score_directory
from pipeline.scoring.score_options import ScoringOptions
from pipeline.seals import unsealed


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    """A decode directory of three utterances by two speakers, as score.py has scored it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text").write_text("s1-a x y z\ns1-b x\ns2-a y y\n")
    (tmp_path / "data" / "utt2spk").write_text("s1-a s1\ns1-b s1\ns2-a s2\n")
    decode = tmp_path / "decode"
    decode.mkdir()
    (decode / "hyp.txt").write_text("s1-a x z\ns1-b x q\ns2-a y x\n")
    options = ScoringOptions(alignment="nist")
    score_directory(tmp_path / "data", decode, options, name="CER", replications=50, sclite=False)
    return decode


def edit(decoded: Path, **changes: object) -> None:
    file = decoded / "scoring" / "score.json"
    file.write_text(json.dumps({**unsealed(file.read_text()), **changes}))


# ---- scores --------------------------------------------------------------------------------------


def test_a_score_is_read_as_it_is_written(decoded: Path) -> None:
    score = read_score(decoded)
    assert (score.name, score.variants, score.mode) == ("CER", ("alignment=nist",), "strict")
    assert score.rule.startswith("tokens as they stand; repeats kept; nist alignment")
    assert score.total == ErrorCounts(6, ins=1, del_=1, sub=1, sentences=3, wrong_sentences=3)
    assert score.total.rate == 50.0
    assert score.interval is not None
    assert score.interval.low < 50.0 < score.interval.high
    assert (score.interval.level, score.interval.replications) == (0.95, 50)
    assert sum(score.groups["speaker"].values(), ErrorCounts()) == score.total
    assert score.confusions.substitutions == [("y", "x", 1)]
    assert score.confusions.deletions == [("y", 1)]
    assert score.decode_dir == str(decoded)
    line = "%CER 50.00 [ 3 / 6, 1 ins, 1 del, 1 sub ] [alignment=nist]"
    assert score.line(read_wer(decoded)) == line
    edit(decoded, absent=2, variants=[])
    assert read_score(decoded).line(read_wer(decoded)) == line[:-16] + "[PARTIAL]"


def test_a_score_is_that_of_the_hypotheses_beside_it(decoded: Path) -> None:
    (decoded / "hyp.txt").write_text("s1-a x y z\n")
    with pytest.raises(
        DataError, match=rf"has changed since .*run score\.py DATA_DIR {decoded} ag"
    ):
        read_score(decoded)
    (decoded / "hyp.txt").unlink()  # then the score cannot be found outdated
    assert read_score(decoded).name == "CER"


def test_what_an_older_score_lacks(decoded: Path) -> None:
    file = decoded / "scoring" / "score.json"
    data = unsealed(file.read_text())
    for name in (
        "files",
        "variants",
        "mode",
        "absent",
        "interval",
        "groups",
        "hyp_digest",
        "ref_digest",
    ):
        del data[name]
    file.write_text(json.dumps(data))
    score = read_score(decoded)
    assert (score.variants, score.mode, score.absent, score.interval) == ((), "", 0, None)
    assert (score.groups, score.digests) == ({}, (None, None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2}, "format 2, but this program reads 1"),
        ({"total": 3}, "cannot be used, a value is of the wrong type"),
        ({"total": {}}, 'cannot be used, it lacks "ref_tokens"'),
        ({"confusions": [["a", "b"]]}, "a value is of the wrong type"),
        ({"interval": 3}, "a value is of the wrong type"),
    ],
)
def test_a_damaged_score_is_named(decoded: Path, changes: dict[str, object], said: str) -> None:
    edit(decoded, **changes)
    with pytest.raises(DataError, match=rf"score\.json: .*{said}.*run score\.py DATA_DIR"):
        read_score(decoded)


def test_no_score(decoded: Path) -> None:
    file = decoded / "scoring" / "score.json"
    for content, said in (
        (b"[", "it is not JSON"),
        (b"\xff", "it is not a UTF-8 text"),
        (b"[]", "wrong type"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=said):
            read_score(decoded)
    file.unlink()
    with pytest.raises(DataError, match=r"score\.json: no such file; run score\.py DATA_DIR"):
        read_score(decoded)


def test_the_counts_of_compute_wer(decoded: Path) -> None:
    file = decoded / "scoring" / "wer"
    assert read_wer(decoded) == read_score(decoded).total  # by sclite's costs both are the same
    edit(decoded, files={})
    file.write_text("%WER 100.00 [ 3 / 3, 1 ins, 0 del, 2 sub ] [PARTIAL]\n%SER 50.00 [ 1 / 2 ]\n")
    assert read_wer(decoded) == ErrorCounts(3, ins=1, del_=0, sub=2, sentences=2, wrong_sentences=1)
    for text in ("", "%WER\n", "%WER 1.0 [ 1 / 2, 1 ins, 0 del, 0 sub ]\n"):
        file.write_text(text)
        with pytest.raises(DataError, match=r"wer: has no error rate; run score\.py DATA_DIR"):
            read_wer(decoded)


# ---- speed ---------------------------------------------------------------------------------------


def test_the_speed_of_all_jobs(tmp_path: Path) -> None:
    file = tmp_path / "speed.jsonl"
    file.write_text('{"frames": 100, "seconds": 0.5}\n{"frames": 20, "seconds": 0.25}\n')
    speed = read_speed(tmp_path)
    assert (speed.frames, speed.seconds) == (120, 0.75)
    for text, said in (("{", "it is not JSON"), ("{}", 'it lacks "frames"'), ("3", "wrong type")):
        file.write_text(text)
        with pytest.raises(DataError, match=rf"speed\.jsonl: .*{said}; decode again"):
            read_speed(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"speed\.jsonl: .*No such file"):
        read_speed(tmp_path)


# ---- trainings -----------------------------------------------------------------------------------


def write(folder: Path, *lines: dict[str, object]) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def line(epoch: int, rate: float, *, best: bool = False, **more: object) -> dict[str, object]:
    losses = {"train_loss": 2.0, "dev_loss": 1.0}
    return {"epoch": epoch, **losses, "dev_error_rate": rate, "metric": "CER", "best": best, **more}


def test_epochs_with_the_name_of_their_error_rate(tmp_path: Path) -> None:
    old = {"epoch": 1, "train_loss": 3.0, "dev_loss": 2.0, "dev_per": 40.0, "best": True}
    epochs = read_metrics(write(tmp_path, old, line(2, 30.0, best=True), line(3, 35.0)))
    assert [(e.number, e.error_rate, e.metric) for e in epochs] == [
        (1, 40.0, "error rate"),
        (2, 30.0, "CER"),
        (3, 35.0, "CER"),
    ]
    assert best_epoch(epochs).number == 2
    assert epochs[1].dev_bits == pytest.approx(1.442695)


def test_an_epoch_done_twice_counts_once(tmp_path: Path) -> None:
    epochs = read_metrics(write(tmp_path, line(1, 50.0), line(2, 40.0), line(2, 41.0)))
    assert [e.error_rate for e in epochs] == [50.0, 41.0]
    assert best_epoch(epochs).number == 2  # none is called the best


def test_damaged_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"metrics\.jsonl: no such file; wait for the first epoch"):
        read_metrics(tmp_path)
    with pytest.raises(ModelError, match=r"metrics\.jsonl: is empty; wait for the first epoch"):
        read_metrics(write(tmp_path))
    unnamed = {name: value for name, value in line(2, 1.0).items() if name != "metric"}
    with pytest.raises(DataError, match=r'jsonl:2: not a line of train_\*\.py, it lacks "metric"'):
        read_metrics(write(tmp_path, line(1, 1.0), unnamed))
    for text, said in (("[]", "of the wrong type"), ("{", "it is not JSON"), ("3", "wrong type")):
        (tmp_path / "metrics.jsonl").write_text(text)
        with pytest.raises(DataError, match=rf"jsonl:1: not a line of train_\*\.py, .*{said}"):
            read_metrics(tmp_path)
