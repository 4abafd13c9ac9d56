"""Seals: a flipped bit anywhere is noticed, and what has no seal is read."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.seals import (
    Damaged,
    check_sidecar,
    read_text,
    sealed,
    sidecar,
    unsealed,
    write_sidecar,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != "sha256"), VALUES, min_size=1)


def flips(data: bytes) -> Iterator[bytes]:
    """``data`` with each of its bits flipped."""
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        yield bytes(changed)


@given(OBJECTS, st.sampled_from([None, 1, 2]), st.booleans(), st.sampled_from(["", "\n"]))
def test_a_seal_comes_off_as_it_came_on(
    data: dict[str, object], indent: int | None, ascii_only: bool, end: str
) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only) + end
    assert list(json.loads(sealed(text))) == [*data, "sha256"]
    assert unsealed(sealed(text)) == data
    assert unsealed(sealed(text), required=True) == data
    assert unsealed(text) == data


@pytest.mark.parametrize("indent", [None, 2])
def test_a_flipped_bit_is_noticed(indent: int | None) -> None:
    text = sealed(json.dumps({"epoch": 1, "loss": 2.5, "rows": [["ü", 3]]}, indent=indent) + "\n")
    for changed in flips(text.encode()):
        with pytest.raises((ValueError, TypeError)):
            unsealed(changed.decode())


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_cut_text_is_noticed(cut: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        unsealed(sealed('{"a": 1}')[:-cut])


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(Damaged, match="nested too deeply"):
        unsealed('{"a":' + "[" * 100_000)
    with pytest.raises(Damaged, match="is not what was written"):
        unsealed('{"a": 1}', required=True)
    with pytest.raises(TypeError, match="not a JSON object"):
        unsealed("[]")
    future = sealed('{"format_version": 2}').replace("2", "3", 1)
    assert unsealed(future, version=2)["format_version"] == 3  # its seal may be another one


def test_a_file_of_a_size_that_none_has_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "score.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(Damaged, match="has 1099511627776 bytes"):
        read_text(tmp_path / "score.json")


def test_a_file_beside_holds_the_digest(tmp_path: Path) -> None:
    ctm = tmp_path / "hyp.ctm"
    ctm.write_text("a 1 0.00 0.25 aa 0.9\n")
    check_sidecar(ctm, "decode again")  # there is none
    write_sidecar(ctm)
    check_sidecar(ctm, "decode again")
    for changed in flips(ctm.read_bytes()):
        ctm.write_bytes(changed)
        with pytest.raises(DataError, match=r"hyp\.ctm: damaged, .*\.hyp\.ctm\.sha256; decode ag"):
            check_sidecar(ctm, "decode again")
    ctm.write_text("a 1 0.00 0.25 aa 0.9\na 1 0.25 0.25 b 0.8\n")  # another program's
    check_sidecar(ctm, "decode again")


def test_a_damaged_digest_is_noticed_too(tmp_path: Path) -> None:
    ctm = tmp_path / "hyp.ctm"
    ctm.write_text("a 1 0.00 0.25 aa 0.9\n")
    write_sidecar(ctm)
    for changed in flips(sidecar(ctm).read_bytes().rstrip()):
        sidecar(ctm).write_bytes(changed)
        with pytest.raises(DataError, match=r"hyp\.ctm: damaged"):
            check_sidecar(ctm, "decode again")
