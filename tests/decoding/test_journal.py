"""The journal of a decoding: whatever happens to it, no wrong result is taken over."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.decoding.journal import Journal
from pipeline.errors import OutputError
from pipeline.seals import sealed

MADE_WITH = {"model": ["0" * 64], "beam": 4}
RESULT = {"input": 7, "frames": 3, "hyp": "ü b", "nbest": [], "tokens": ["1 0.0 0.1 b 0.9"]}
UTTS = ("u1", "u2", "u3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three utterances."""
    path = tmp_path / "hyp.partial"
    with Journal(path, MADE_WITH, resume=True) as journal:
        for utt in UTTS:
            journal.add(utt, {**RESULT, "hyp": utt})
    return path


def taken_over(path: Path) -> dict[str, Any]:
    with Journal(path, MADE_WITH, resume=True) as journal:
        return journal.finished


def test_all_is_taken_over_and_the_file_stays_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    assert {utt: line["hyp"] for utt, line in taken_over(path).items()} == {u: u for u in UTTS}
    assert path.read_bytes() == before


def test_a_flipped_bit_loses_one_line_or_all_but_is_never_taken_over(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = path.read_bytes()
    whole, header = taken_over(path), data.index(b"\n")
    for place in range(0, 8 * len(data), 23):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        path.write_bytes(changed)
        caplog.clear()
        found = taken_over(path)
        assert all(found[utt] == whole[utt] for utt in found)
        if place // 8 < header:
            assert not found
        elif changed[place // 8] != 10 and data[place // 8] != 10:
            assert len(found) == 2
        assert "hyp.partial" in caplog.text or place // 8 == len(data) - 1


@pytest.mark.parametrize("field", ["utterance", *RESULT])
@pytest.mark.parametrize("value", [None, 1.5, "x", [], {}, "missing"])
def test_a_line_without_a_field_or_with_one_of_another_type(
    path: Path, field: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    line = {"utterance": "u4", **RESULT, field: value}
    if value == "missing":
        del line[field]
    with path.open("a") as stream:
        stream.write(sealed(json.dumps(line, ensure_ascii=False)) + "\n")
    found = taken_over(path)
    if type(value) is not type({"utterance": "", **RESULT}[field]) or value == "missing":
        assert set(found) == set(UTTS)
        assert "hyp.partial:5: damaged; its utterance is decoded again" in caplog.text


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]\n", "3\n", '{"model": 3}\n', "\0" * 5000, '{"a":' + "[" * 50_000 + "\n", "\n\n"],
)
def test_another_file_of_that_name(path: Path, text: str) -> None:
    path.write_text(text)
    assert taken_over(path) == {}


def test_a_cut_file_keeps_what_is_whole(path: Path) -> None:
    data = path.read_bytes()
    for size in range(0, len(data), 11):
        path.write_bytes(data[:size])
        assert len(taken_over(path)) == max(0, data[:size].count(b"\n") - 1)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "hyp.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match=r"hyp\.partial: a symbolic link; remove it"):
        Journal(tmp_path / "hyp.partial", MADE_WITH, resume=True)
    assert (tmp_path / "victim").read_text() == "precious"
