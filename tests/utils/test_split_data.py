"""split_data.py: parts that join to the whole, balance, and when it splits again."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.data_dir import validate

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("split_data", ROOT / "utils" / "split_data.py")
split_data = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(split_data)


def joined(split: Path, parts: int, name: str) -> bytes:
    return b"".join((split / str(n) / name).read_bytes() for n in range(1, parts + 1))


def test_parts_join_to_the_whole(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=5)
    run_bin("split_data.py", path, 3, check=True)
    for name in ("wav.scp", "text", "utt2spk", "spk2utt", "feats.scp", "spk2gender"):
        assert joined(path / "split3", 3, name) == (path / name).read_bytes()
    for part in (1, 2, 3):
        assert validate(path / "split3" / str(part)) == []


def test_per_utt_splits_speakers(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=2, utts=5)
    run_bin("split_data.py", "--per-utt", path, 4, check=True)
    assert joined(path / "split4utt", 4, "feats.scp") == (path / "feats.scp").read_bytes()
    assert validate(path / "split4utt" / "2") == []
    assert not (path / "split4").exists()


def test_as_many_parts_as_utterances_and_one(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=2, utts=2)
    run_bin("split_data.py", "--per-utt", path, 4, check=True)
    assert (path / "split4utt" / "4" / "text").read_text() == "s02-u2 sil a b sil\n"
    run_bin("split_data.py", path, 1, check=True)
    assert (path / "split1" / "1" / "text").read_bytes() == (path / "text").read_bytes()


def test_balance_is_by_frames_then_seconds_then_count(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=1, utts=6)
    utts = [f"s01-u{n}" for n in range(1, 7)]
    (path / "utt2num_frames").write_text(
        "".join(f"{u} {900 if u == utts[0] else 9}\n" for u in utts)
    )
    run_bin("split_data.py", "--per-utt", path, 2, check=True)
    assert len((path / "split2utt" / "1" / "text").read_text().splitlines()) == 1
    (path / "utt2num_frames").unlink()
    (path / "utt2dur").write_text("".join(f"{u} {9.5 if u == utts[5] else 1.5}\n" for u in utts))
    run_bin("split_data.py", "--per-utt", path, 2, check=True)
    assert len((path / "split2utt" / "1" / "text").read_text().splitlines()) == 5
    (path / "utt2dur").unlink()
    run_bin("split_data.py", "--per-utt", path, 2, check=True)
    assert len((path / "split2utt" / "1" / "text").read_text().splitlines()) == 3


def test_without_frames_the_recordings_tell(run_bin, make_data_dir, tmp_path) -> None:
    path = make_data_dir(speakers=1, utts=6)
    for name in ("utt2num_frames", "utt2dur", "feats.scp", "segments"):
        (path / name).unlink(missing_ok=True)
    utts = [f"s01-u{n}" for n in range(1, 7)]
    for utt in utts:
        (tmp_path / f"{utt}.wav").write_bytes(b"x" * (900 if utt == utts[0] else 9))
    lines = [f"{utt} {tmp_path}/{utt}.wav\n" for utt in utts]
    (path / "wav.scp").write_text("".join(lines))
    run_bin("split_data.py", "--per-utt", path, 2, check=True)
    assert len((path / "split2utt" / "1" / "text").read_text().splitlines()) == 1
    (path / "wav.scp").write_text("".join(lines[:5]) + f"{utts[5]} cat x |\n")
    done = run_bin("split_data.py", "--per-utt", path, 2, check=True)
    assert b"no utt2num_frames or utt2dur; parts are balanced by count" in done.stderr
    assert len((path / "split2utt" / "1" / "text").read_text().splitlines()) == 3
    (path / "segments").write_text(
        "".join(f"{utt} {utt} 0 {90 if utt == utts[5] else 1}\n" for utt in utts)
    )
    run_bin("split_data.py", "--per-utt", path, 2, check=True)
    assert len((path / "split2utt" / "1" / "text").read_text().splitlines()) == 5


def test_splits_again_only_when_files_change(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    run_bin("split_data.py", path, 2, check=True)
    marker = path / "split2" / "1" / "marker"
    marker.touch()
    (path / "text").touch()
    assert b"up to date" in run_bin("split_data.py", path, 2, check=True).stderr
    assert marker.exists()
    (path / "text").write_text((path / "text").read_text().replace("b", "c"))
    run_bin("split_data.py", path, 2, check=True)
    assert not marker.exists()
    assert b"c" in (path / "split2" / "1" / "text").read_bytes()
    (path / "split2" / "2" / "utt2spk").unlink()
    run_bin("split_data.py", path, 2, check=True)
    assert (path / "split2" / "2" / "utt2spk").exists()
    assert not [p for p in path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["4"], 1, "3 speakers cannot be split into 4 parts; use --per-utt, or fewer parts"),
        (["--per-utt", "13"], 1, "12 utterances cannot be split into 13 parts; use fewer parts"),
        (["0"], 2, "Invalid value for 'N'"),
        (["many"], 2, "Invalid value for 'N'"),
        ([], 2, "N"),
    ],
)
def test_wrong_numbers_of_parts(run_bin, make_data_dir, words, status, message) -> None:
    path = make_data_dir()
    done = run_bin("split_data.py", path, *words)
    assert done.returncode == status
    assert message in done.stderr.decode()
    assert not list(path.glob("*split*"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("text", "s01-u1 x\ry\n", "text:1: the line holds a carriage return"),
        ("text", "", "text: the file is empty"),
        ("utt2spk", "s02-u1 s02\ns01-u1 s01\n", "utt2spk:2: "),
        ("utt2spk", "u1 s02\nu2 s01\nu3 s02\n", "not sorted by speaker"),
    ],
)
def test_bad_files_leave_nothing(run_bin, make_data_dir, name, text, message) -> None:
    path = make_data_dir()
    (path / name).write_bytes(text.encode())
    done = run_bin("split_data.py", path, 2)
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert not [p for p in path.iterdir() if "split" in p.name]


def test_missing_directory(run_bin, tmp_path) -> None:
    done = run_bin("split_data.py", tmp_path / "none", 2)
    assert (done.returncode, b"not a directory" in done.stderr) == (1, True)


def test_a_file_in_the_place_of_the_parts(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    (path / "split2").write_text("notes")
    done = run_bin("split_data.py", path, 2)
    assert done.returncode == 1
    assert b"split2: a file has the name of the folder to write; move it away" in done.stderr
    assert (path / "split2").read_text() == "notes"


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.data())
def test_cut_is_contiguous_whole_and_balanced(weights: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(weights)))
    ranges = split_data.cut(weights, parts)
    assert len(ranges) == parts
    assert [a for a, _ in ranges] == [0, *[b for _, b in ranges[:-1]]]
    assert ranges[-1][1] == len(weights)
    assert all(a < b for a, b in ranges)
    heaviest = max(sum(weights[a:b]) for a, b in ranges)
    assert heaviest <= sum(weights) / parts + 2 * max(weights)
