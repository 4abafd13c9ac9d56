"""fix_data_dir.py: what it corrects, what it refuses, and that it keeps the old files."""

import gzip
import random
from pathlib import Path

import pytest

from pipeline.data.data_dir import read_map, validate


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def shuffle_lines(path: Path, seed: int = 1) -> None:
    lines = path.read_text().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    path.write_text("".join(lines))


def test_a_good_directory_is_left_alone(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    before = contents(path)
    done = run_bin("fix_data_dir.py", path, check=True)
    assert done.stdout == b"fix_data_dir.py: kept all 12 utterances out of 12\n"
    assert contents(path) == before
    assert not (path / ".backup").exists()


def test_everything_mendable_at_once(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    for name in contents(path):
        shuffle_lines(path / name)
    with (path / "text").open("ab") as stream:
        stream.write(b"s01-u1 a second one\r\n\n zz-u9 x")
    text = (path / "text").read_bytes()
    (path / "feats.scp").write_text("".join(f"s0{s}-u{u} f:1\n" for s in (1, 2) for u in (1, 2)))
    (path / "utt2num_frames").write_text("s01-u1 0\ns01-u2 5\ns02-u1 7\ns02-u2 7\n")
    done = run_bin("fix_data_dir.py", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"fix_data_dir.py: kept 3 utterances out of 12\n"
    assert b"feats.scp lacks 8 utterances, e.g. s01-u3" in done.stderr
    assert validate(path) == []
    assert read_map(path / "utt2spk") == {"s01-u2": "s01", "s02-u1": "s02", "s02-u2": "s02"}
    assert read_map(path / "spk2utt") == {"s01": "s01-u2", "s02": "s02-u1 s02-u2"}
    assert (path / ".backup" / "text").read_bytes() == text


def test_first_of_duplicates_counts(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=1, utts=1)
    (path / "text").write_text("s01-u1 first\ns01-u1 second\n")
    run_bin("fix_data_dir.py", path, check=True)
    assert (path / "text").read_text() == "s01-u1 first\n"


def test_segments_recordings_and_warps(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=2, utts=1)
    (path / "segments").write_text("s02-u1 r2 0 1\ns01-u1 r1 0 1\n")
    (path / "wav.scp").write_text("r2 r2.wav\nr3 r3.wav\n")
    (path / "reco2dur").write_text("r2 3\nr1 3\n")
    (path / "utt2warp").write_text("s02-u1 1\ns01-u1 1\n")
    (path / "stm").write_text(";; c\nr1 1 a 0 1 x\nr2 1 a 0 1 x\n")
    run_bin("fix_data_dir.py", path, check=True)
    assert validate(path) == []
    assert (path / "segments").read_text() == "s02-u1 r2 0 1\n"
    assert (path / "wav.scp").read_text() == "r2 r2.wav\n"
    assert (path / "reco2dur").read_text() == "r2 3\n"
    assert (path / "utt2warp").read_text() == "s02-u1 1\n"
    assert (path / "stm").read_text() == ";; c\nr2 1 a 0 1 x\n"


@pytest.mark.parametrize("seed", range(6))
def test_what_comes_out_is_valid(run_bin, make_data_dir, seed: int) -> None:
    path, rng = make_data_dir(speakers=5), random.Random(seed)
    for name in contents(path):
        lines = (path / name).read_text().splitlines()
        lines = rng.choices(lines, k=2 * len(lines))
        (path / name).write_text("\n".join(lines) + rng.choice(["", "\n"]))
    run_bin("fix_data_dir.py", path, check=True)
    assert validate(path) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("utt2spk", "s01-u1 s01\ns01-u2\n", 'utt2spk:2: "s01-u2" is not of the form UTT SPK'),
        ("utt2spk", "", "utt2spk: missing or empty; write it"),
        ("utt2spk", "s01-u1 s02\ns01-u2 s01\n", "sorting cannot correct that"),
        ("text", "other x\n", "text: has no utterance in common with the other files"),
        ("spk2gender", "", "spk2gender: has no utterance in common with the other files"),
    ],
)
def test_refusals_change_nothing(run_bin, make_data_dir, name, text, message) -> None:
    path = make_data_dir(speakers=2, utts=2)
    (path / "spk2gender").write_text("s01 m\ns02 m\n")
    (path / name).write_text(text)
    before = contents(path)
    done = run_bin("fix_data_dir.py", path)
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert contents(path) == before


def test_speaker_order_can_be_waived(run_bin, make_data_dir) -> None:
    path = make_data_dir(speakers=2, utts=1)
    (path / "utt2spk").write_text("s02-u1 s01\ns01-u1 s02\n")
    run_bin("fix_data_dir.py", "--no-spk-sort", path, check=True)
    assert (path / "utt2spk").read_text() == "s01-u1 s02\ns02-u1 s01\n"


def test_no_backup_no_change(run_bin, make_data_dir) -> None:
    path = make_data_dir()
    shuffle_lines(path / "text")
    (path / ".backup").write_text("a file in its place")
    before = contents(path)
    done = run_bin("fix_data_dir.py", path)
    assert done.returncode == 1
    assert b".backup: cannot copy the files: " in done.stderr
    assert contents(path) == before


def test_missing_directory_and_missing_utt2spk(run_bin, tmp_path) -> None:
    done = run_bin("fix_data_dir.py", tmp_path / "none")
    assert (done.returncode, b"not a directory" in done.stderr) == (1, True)
    done = run_bin("fix_data_dir.py", tmp_path)
    assert (done.returncode, b"utt2spk: no such file" in done.stderr) == (1, True)


@pytest.mark.parametrize("how", ["mark", "crlf", "mark crlf", "cr"])
def test_what_editors_add_is_told_and_taken_off(run_bin, make_data_dir, how: str) -> None:
    path = make_data_dir()
    (path / "segments").write_text(
        "".join(f"{utt} {utt} 0 {1 - 2 * n % 4}\n" for n, utt in enumerate(read_map(path / "text")))
    )
    (path / "stm").write_text(";; c\ns01-u1 1 s01 0 1 x\n")
    (path / "phones.ctm").write_text(";; c\ns01-u1 1 0 1 x\n")
    before = contents(path)
    for name, data in before.items():
        data = data.replace(b"\n", {"crlf": b"\r\n", "cr": b"\r"}.get(how.split()[-1], b"\n"))
        (path / name).write_bytes(b"\xef\xbb\xbf" * ("mark" in how) + data)
    problems = run_bin("validate_data_dir.py", path)
    assert problems.returncode == 1
    for name in before:
        assert f"{path / name}:" in problems.stderr.decode()
    done = run_bin("fix_data_dir.py", path, check=True)
    assert done.stdout == b"fix_data_dir.py: kept all 12 utterances out of 12\n"
    assert contents(path) == before
    run_bin("validate_data_dir.py", path, check=True)


@pytest.mark.parametrize("name", ["text", "utt2spk", "wav.scp", "spk2gender"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data.decode().encode("utf-16"), "is UTF-16"),
        (gzip.compress, "is compressed by gzip"),
        (lambda data: b"\x89PNG\r\n\x1a\n" + data, "is a PNG picture"),
        (lambda data: data.replace(b"s01", "s\u200b01".encode(), 1), "U+200B ZERO WIDTH SPACE"),
        (lambda data: data.replace(b"s01", "s\u00a001".encode(), 1), "U+00A0 NO-BREAK SPACE"),
        (lambda data: data.replace(b" ", b"\r", 1), "carriage return"),
    ],
)
def test_no_utterance_is_lost_to_what_cannot_be_seen(
    execute, make_data_dir, name: str, change, what: str
) -> None:
    path = make_data_dir()
    (path / name).write_bytes(change((path / name).read_bytes()))
    before = contents(path)
    for program in ("fix_data_dir.py", "validate_data_dir.py"):
        done = execute(program, path)
        assert done.status == 1
        assert what in done.err
        assert str(path / name) in done.err
        assert contents(path) == before


def test_no_utterance_is_lost_to_a_second_spelling(run_bin, make_data_dir) -> None:
    path = make_data_dir(prefix="\u00e9")
    text = (path / "text").read_text()
    (path / "text").write_text(text.replace("\u00e901-u1", "e\u030101-u1"))
    before = contents(path)
    done = run_bin("fix_data_dir.py", path)
    assert done.returncode == 1
    assert "is spelt in two ways" in done.stderr.decode()
    assert contents(path) == before
    assert "is spelt in two ways" in run_bin("validate_data_dir.py", path).stderr.decode()


def test_kaldis_blank_at_the_end_of_a_line_is_no_fault(run_bin, make_data_dir) -> None:
    data = make_data_dir()
    utts = [line.split()[0] for line in (data / "utt2spk").read_text().splitlines()]
    (data / "utt2num_frames").write_text("".join(f"{utt} 98 \n" for utt in utts))
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    run_bin("fix_data_dir.py", data, check=True)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
