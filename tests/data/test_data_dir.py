"""Data directories: reading, selecting, checking."""

import os
import time
from pathlib import Path

import pytest

from pipeline.data.data_dir import (
    DataDir,
    Segment,
    filter_nist,
    invert,
    validate,
    validation_warnings,
    write_subset,
)
from pipeline.errors import DataDirError

FILES = {
    "wav.scp": "a-1 a1.wav\na-2 a2.wav\nb-1 b1.wav\n",
    "text": "a-1 x y\na-2 x\nb-1\n",
    "utt2spk": "a-1 a\na-2 a\nb-1 b\n",
    "spk2utt": "a a-1 a-2\nb b-1\n",
    "spk2gender": "a f\nb m\n",
    "feats.scp": "a-1 f.ark:4\na-2 f.ark:8\nb-1 f.ark:9\n",
}
SEGMENTED = FILES | {
    "wav.scp": "r1 r1.wav\nr2 r2.wav\n",
    "segments": "a-1 r1 0 1.5\na-2 r2 0.5 2\nb-1 r1 1.5 3\n",
}


def make(path: Path, files: dict[str, str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_bytes(text.encode())
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make(tmp_path / "data", FILES)


# ---- DataDir -----------------------------------------------------------------------------------


def test_files_are_dictionaries(directory: Path) -> None:
    data = DataDir(directory)
    assert data.wav_scp == {"a-1": "a1.wav", "a-2": "a2.wav", "b-1": "b1.wav"}
    assert data.text == {"a-1": "x y", "a-2": "x", "b-1": ""}
    assert data.utt_ids == ["a-1", "a-2", "b-1"]
    assert data.spk_ids == ["a", "b"]
    assert data.spk2utt == {"a": ["a-1", "a-2"], "b": ["b-1"]}
    assert data.spk2gender == {"a": "f", "b": "m"}
    assert data.feats_scp["b-1"] == "f.ark:9"
    assert (data.has("text"), data.has("segments")) == (True, False)
    assert os.fspath(data) == str(directory)


def test_typed_tables(tmp_path: Path) -> None:
    extra = {"utt2dur": "a-1 1.5\n", "utt2num_frames": "a-1 148\n", "cmvn.scp": "a c.ark:2\n"}
    data = DataDir(make(tmp_path / "data", SEGMENTED | extra))
    assert data.segments["b-1"] == Segment("r1", 1.5, 3.0)
    assert data.utt2dur == {"a-1": 1.5}
    assert data.utt2num_frames == {"a-1": 148}
    assert data.cmvn_scp == {"a": "c.ark:2"}


def test_absent_and_malformed_files_are_named(directory: Path) -> None:
    (directory / "utt2dur").write_text("a-1 1\na-2 -1\n")
    data = DataDir(directory)
    with pytest.raises(DataDirError, match=r"segments: no such file"):
        _ = data.segments
    with pytest.raises(DataDirError, match=r'utt2dur:2: "a-2 -1" is not of the form UTT SECONDS'):
        _ = data.utt2dur
    with pytest.raises(DataDirError, match="none: not a directory"):
        DataDir(directory / "none")


def test_content_hash_is_of_content(directory: Path) -> None:
    before = DataDir(directory).content_hash()
    os.utime(directory / "text", (0, 0))
    make(directory / "split2", {"x": "y"})
    (directory / ".hidden").write_text("x")
    assert DataDir(directory).content_hash() == before
    make(directory / "conf", {"fbank.conf": "--dither=0\n"})
    with_conf = DataDir(directory).content_hash()
    (directory / "text").write_text("a-1 z\n")
    assert len({before, with_conf, DataDir(directory).content_hash()}) == 3


def test_invert_keeps_the_order_of_first_appearance() -> None:
    assert invert({"u2": "b", "u1": "a", "u0": "b"}) == {"b": ["u2", "u0"], "a": ["u1"]}


# ---- selecting ---------------------------------------------------------------------------------


def test_subset_filters_every_file(tmp_path: Path) -> None:
    extra = {
        "stm": ';; LABEL "O"\nr1 1 a 0 1 x\nr2 1 a 0 1 x\n',
        "frame_shift": "0.01\n",
        "reco2dur": "r1 3\nr2 2\n",
        "utt2warp": "a-1 0.9\na-2 1.1\nb-1 1\n",
    }
    source = make(tmp_path / "data", SEGMENTED | extra)
    make(source / "conf", {"fbank.conf": "--dither=0\n"})
    write_subset(DataDir(source), ["a-2"], tmp_path / "new" / "part")
    part = tmp_path / "new" / "part"
    assert (part / "wav.scp").read_text() == "r2 r2.wav\n"
    assert (part / "segments").read_text() == "a-2 r2 0.5 2\n"
    assert (part / "spk2utt").read_text() == "a a-2\n"
    assert (part / "spk2gender").read_text() == "a f\n"
    assert (part / "reco2dur").read_text() == "r2 2\n"
    assert (part / "utt2warp").read_text() == "a-2 1.1\n"
    assert (part / "stm").read_text() == ';; LABEL "O"\nr2 1 a 0 1 x\n'
    assert (part / "frame_shift").read_text() == "0.01\n"
    assert (part / "conf" / "fbank.conf").exists()
    assert validate(part) == []
    assert [p.name for p in part.parent.iterdir()] == ["part"]


def test_subset_onto_a_directory_replaces_and_removes_known_files(directory: Path) -> None:
    target = make(directory.parent / "old", {"cmvn.scp": "a x:1\n", "notes": "mine", "text": "x\n"})
    write_subset(DataDir(directory), ["b-1"], target)
    assert validate(target) == []
    assert not (target / "cmvn.scp").exists()
    assert (target / "notes").read_text() == "mine"


def test_subset_refuses_unknown_utterances_and_bad_places(directory: Path) -> None:
    with pytest.raises(DataDirError, match='1 utterances are not in utt2spk, first "zz"'):
        write_subset(DataDir(directory), ["a-1", "zz"], directory.parent / "part")
    with pytest.raises(DataDirError, match="cannot be written: Not a directory"):
        write_subset(DataDir(directory), ["a-1"], directory / "text" / "part")
    assert not (directory.parent / "part").exists()


def test_stm_with_an_empty_line() -> None:
    assert filter_nist("r1 x\n\n;;c\nr2 y\n", {"r2"}) == ";;c\nr2 y\n"


# ---- checking ----------------------------------------------------------------------------------


def test_a_good_directory_has_no_problems(directory: Path, tmp_path: Path) -> None:
    assert validate(directory) == []
    assert validate(make(tmp_path / "segmented", SEGMENTED)) == []
    assert validation_warnings(directory) == []


@pytest.mark.parametrize(
    ("name", "text", "where_and_what"),
    [
        ("utt2spk", "a-1 a x\na-2 a\nb-1 b\n", ':1: "a-1 a x" is not of the form UTT SPK'),
        ("wav.scp", "a-1 ~/a1.wav\na-2 x\nb-1 x\n", ":1: "),
        ("wav.scp", "a-1 x\na-2\nb-1 x\n", ':2: "a-2 " is not of the form RECO FILE'),
        ("wav.scp", "a-1 x\na-2 x\n", ': 1 of 3 in utt2spk are missing, first "b-1"'),
        ("text", "a-1 x\na-2 x\nb-1 x\nb-2 x\n", ':4: 1 of 4 are not in utt2spk, first "b-2"'),
        ("text", "a-1 <s> x\na-2 x\nb-1 x\n", ':1: a transcription holds "<s>"'),
        ("text", "a-1 x\na-2 x </s>\nb-1 x\n", ':2: a transcription holds "</s>"'),
        ("text", "a-1 x\na-2 #0\nb-1 x\n", ':2: a transcription holds "#0"'),
        ("text", "a-1 x\na-2 x\x07\nb-1 x\n", ":2: U+0007 cannot be printed"),
        ("text", "a-1 x\na-2 x\u3000y\nb-1 x\n", ":2: white space U+3000 IDEOGRAPHIC SPACE"),
        ("spk2utt", "a a-2 a-1\nb b-1\n", ':1: the utterances of "a" are not those of utt2spk'),
        ("spk2utt", "a a-1 a-2\n", ': 1 of 2 in utt2spk are missing, first "b"'),
        ("feats.scp", "a-1 f:1\na-2 f:2\n", ": 1 of 3 in utt2spk are missing"),
        ("cmvn.scp", "a f:1\n", ': 1 of 2 in utt2spk are missing, first "b"'),
        ("spk2gender", "a f\nb x\n", ':2: "b x" is not of the form SPK m, or SPK f'),
        ("utt2dur", "a-1 0\na-2 1\nb-1 1\n", ":1: "),
        ("utt2dur", "a-1 nan\na-2 1\nb-1 1\n", ":1: "),
        ("utt2dur", "a-1 1\na-2 inf\nb-1 1\n", ":2: "),
        ("utt2num_frames", "a-1 1\na-2 1.5\nb-1 1\n", ":2: "),
        ("utt2num_frames", "a-1 1\na-2 1\nb-1 0\n", ":3: "),
        ("reco2dur", "a-1 1\na-2 1\nb-1 x\n", ":3: "),
        ("reco2file_and_channel", "a-1 a1 A\na-2 a2 B\nb-1 b1 C\n", ":3: "),
        ("vad.scp", "a-1 v:1\na-2 v:2\n", ": 1 of 3 in utt2spk are missing"),
        ("utt2lang", "a-1 en\na-2 en de\nb-1 en\n", ":2: "),
        ("utt2uniq", "a-1 u\na-2\nb-1 u\n", ":2: "),
        ("utt2warp", "a-1 1\na-2 1.5\nb-1 1\n", ":2: "),
        ("spk2warp", "a 0.5\nb 1\n", ":1: "),
        ("frame_shift", "fast\n", ":1: not a frame shift"),
        ("stm", ";; c\na-1 1 a 2 1 x\n", ":2: not of the form FILE CHANNEL"),
        ("stm", "a-1 1 a 0 1 x", ": empty, or cut short"),
        ("glm", "", ": empty, or cut short"),
        ("segments", "a-1 a-1 0 1\na-2 a-2 2 1\nb-1 b-1 0 1\n", ":2: "),
        ("segments", "a-1 a-1 0 1\na-2 a-2 0 -2\nb-1 b-1 0 1\n", ":2: "),
    ],
)
def test_each_problem_alone(directory: Path, name: str, text: str, where_and_what: str) -> None:
    make(directory, {name: text})
    problems = validate(directory)
    assert any(p.startswith(f"{directory / name}{where_and_what}") for p in problems)
    assert all("; " in problem for problem in problems)


def test_segments_and_recordings_must_agree(tmp_path: Path) -> None:
    directory = make(tmp_path, SEGMENTED | {"wav.scp": "r1 r1.wav\nr3 r3.wav\n"})
    missing, extra = validate(directory)
    assert 'wav.scp: 1 of 2 in segments are missing, first "r2"' in missing
    assert 'wav.scp:2: 1 of 2 are not in segments, first "r3"' in extra
    (directory / "wav.scp").unlink()
    (problem,) = validate(directory, wav=False)
    assert "segments: there is no wav.scp" in problem


def test_all_problems_are_reported_at_once(directory: Path) -> None:
    make(
        directory,
        {
            "text": "b-1 x\r\na-1 <s>\na-1 y",
            "wav.scp": "",
            "spk2gender": "a q\nb m\n",
            "feats.scp": "a-1 f:1\nc-1 f:2\n",
        },
    )
    problems = "\n".join(validate(directory))
    for what in (
        "text:1: the line holds a carriage return",
        "text:2: ",
        'a transcription holds "<s>"',
        'text:3: "a-1" occurs twice',
        "text:3: the last line does not end",
        'text: 1 of 3 in utt2spk are missing, first "a-2"',
        "wav.scp: the file is empty",
        "spk2gender:1: ",
        "feats.scp:2: 1 of 2 are not in utt2spk",
        "feats.scp: 2 of 3 in utt2spk are missing",
    ):
        assert what in problems


def test_required_files_and_what_excuses_them(directory: Path) -> None:
    for name in ("text", "feats.scp", "wav.scp"):
        (directory / name).unlink()
    assert len(validate(directory)) == 3
    assert "make it, or give --no-feats" in "\n".join(validate(directory))
    assert validate(directory, feats=False, text=False, wav=False) == []
    (directory / "spk2utt").unlink()
    (problem,) = validate(directory, feats=False, text=False, wav=False)
    assert problem.endswith("spk2utt: no such file; make it with utils/utt2spk_to_spk2utt.py")
    assert "not a directory" in validate(directory / "none")[0]


def test_no_text_does_not_look_at_text(directory: Path) -> None:
    make(directory, {"text": "a-1 only this one\n"})
    assert validate(directory, text=False) == []
    assert len(validate(directory)) == 1


def test_non_print_allows_control_characters_but_not_foreign_blanks(directory: Path) -> None:
    make(directory, {"text": "a-1 x\x07\na-2 \u200c\u2019\nb-1 x\u00a0y\n"})
    assert len(validate(directory)) == 2
    (problem,) = validate(directory, non_print=True)
    assert "text:3: white space U+00A0 NO-BREAK SPACE" in problem


def test_speakers_out_of_order_are_explained(directory: Path) -> None:
    make(directory, {"utt2spk": "a-1 a\na-2 b\nb-1 a\n", "spk2utt": "a a-1 b-1\nb a-2\n"})
    problems = validate(directory)
    assert len(problems) == 1
    assert 'utt2spk:3: speaker "a" of "b-1" comes after "b" of "a-2"' in problems[0]
    assert "begin each utterance's name with its speaker's" in problems[0]
    assert validate(directory, spk_sort=False) == []


def test_unsorted_utt2spk_is_not_blamed_on_speakers(directory: Path) -> None:
    make(directory, {"utt2spk": "b-1 b\na-1 a\na-2 a\n"})
    assert len([p for p in validate(directory) if "utt2spk:" in p]) == 1


def test_warnings(directory: Path) -> None:
    make(directory, {"utt2spk": "a-1 x\na-2 x\nb-1 y\n", "spk2utt": "x a-1 a-2\ny b-1\n"})
    make(directory, {"reco2file_and_channel": "a-1 a A\na-2 a 1\nb-1 b A\n"})
    (directory / "spk2gender").unlink()
    assert validate(directory) == []
    speakers, channels = validation_warnings(directory)
    assert '3 utterances do not begin with their speaker\'s name, first "a-1"' in speakers
    assert 'channel "1"' in channels


def test_a_hundred_thousand_utterances_take_seconds(tmp_path: Path) -> None:
    ids = [(f"spk{n // 100:04d}-utt{n:06d}", f"spk{n // 100:04d}") for n in range(100_000)]
    spk2utt = invert(dict(ids))
    make(
        tmp_path / "big",
        {
            "utt2spk": "".join(f"{utt} {spk}\n" for utt, spk in ids),
            "spk2utt": "".join(f"{spk} {' '.join(utts)}\n" for spk, utts in spk2utt.items()),
            "wav.scp": "".join(f"{utt} /corpus/{utt}.flac\n" for utt, _ in ids),
            "feats.scp": "".join(f"{utt} /feats/raw.ark:{n}\n" for n, (utt, _) in enumerate(ids)),
            "text": "".join(f"{utt} sil dh ih s ih z ah t eh s t sil\n" for utt, _ in ids),
            "utt2num_frames": "".join(f"{utt} 300\n" for utt, _ in ids),
        },
    )
    start = time.process_time()
    assert validate(tmp_path / "big") == []
    assert time.process_time() - start < 5.0
