"""egs/timit/local/prepare_data.py on corpora that are like TIMIT in all but the speech."""

import io
import itertools
import os
import struct
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pipeline.data.data_dir import DataDir, validate

Run = Callable[..., CompletedProcess[bytes]]
CONF = Path(__file__).resolve().parents[3] / "egs" / "timit" / "conf"
SENTENCES = ("sa1", "sa2", "sx1", "sx2", "sx3", "sx4", "sx5", "si1", "si2", "si3")
SAMPLES = 160  # of each recording
DEV, TEST = ((CONF / f"{part}_spk.list").read_text().split() for part in ("dev", "test"))

HEADER = b"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i %d\nsample_rate -i 16000\n"
HEADER += b"sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_sig_bits -i 16\nend_head\n"
SPHERE = (HEADER % SAMPLES).ljust(1024) + struct.pack("<h", 7) * SAMPLES
SHORTENED = SPHERE.replace(
    b"end_head", b"sample_coding -s26 pcm,embedded-shorten-v2.00\nend_head"
).replace(b" " * 50, b"", 1)


def riff() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as wav:
        wav.setparams((1, 2, 16000, SAMPLES, "NONE", ""))
        wav.writeframes(struct.pack("<h", 7) * SAMPLES)
    return stream.getvalue()


def phn(phones: str = "h# q ao bcl b h#") -> str:
    return "".join(f"{10 * i} {10 * i + 10} {p}\n" for i, p in enumerate(phones.split()))


def add_speaker(
    root: Path,
    top: str,
    dialect: int,
    speaker: str,
    *,
    case: Callable[[str], str] = str.upper,
    wavs: tuple[tuple[str, bytes], ...] = ((".wav", SPHERE),),
    sentences: tuple[str, ...] = SENTENCES,
    phones: Iterator[str] | None = None,
) -> Path:
    directory = root / case(top) / case(f"dr{dialect}") / case(speaker)
    directory.mkdir(parents=True)
    for sentence in sentences:
        stem = str(directory / case(sentence))
        for ending, data in wavs:
            name = ending if ending.count(".") == 2 else case(ending)
            Path(stem + name).write_bytes(data)
        if not (phones and sentence.startswith("sa")):
            Path(stem + case(".phn")).write_text(phn(next(phones)) if phones else phn())
    return directory


def small_corpus(root: Path, **kwargs: object) -> Path:
    """Two speakers for training, one of the dev and one of the test speakers, one of neither."""
    add_speaker(root, "train", 1, "fcjf0", **kwargs)
    add_speaker(root, "train", 2, "mabc0", **kwargs)
    add_speaker(root, "test", 1, "faks0", **kwargs)
    add_speaker(root, "test", 3, "mdab0", **kwargs)
    add_speaker(root, "test", 3, "mxyz0", **kwargs)
    return root


def listing(root: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*"))


@pytest.fixture
def prepare(run_bin: Run) -> Run:
    return lambda *args: run_bin("egs/timit/local/prepare_data.py", *args)


def capitals(name: str) -> str:
    return name.capitalize()


@pytest.mark.parametrize("case", [str.upper, str.lower, capitals])
@pytest.mark.parametrize("level", [".", "data", "TIMIT", "timit/data"])
def test_layouts(prepare: Run, tmp_path: Path, case: Callable[[str], str], level: str) -> None:
    corpus = tmp_path / "corpus"
    small_corpus(corpus / level, case=case)
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 0, done.stderr.decode()
    for part, speakers in (("train", ["fcjf0", "mabc0"]), ("dev", ["faks0"]), ("test", ["mdab0"])):
        data = DataDir(tmp_path / "out" / part)
        assert validate(data.path, feats=False) == []
        assert data.spk_ids == speakers
        expected = [f"{spk}_{s}" for spk in speakers for s in sorted(SENTENCES[2:])]
        assert data.utt_ids == expected
        assert set(data.text.values()) == {"h# q ao bcl b h#"}
        assert set(data.utt2dur.values()) == {SAMPLES / 16000}
        assert data.spk2gender == {spk: spk[0] for spk in speakers}
        assert all(os.path.isabs(path) and os.path.exists(path) for path in data.wav_scp.values())
    assert (tmp_path / "out" / "dev" / "spk2dialect").read_text() == "faks0 dr1\n"


def test_ctm_holds_the_times(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    assert prepare("--allow-partial", corpus, tmp_path / "out").returncode == 0
    lines = (tmp_path / "out" / "dev" / "phones.ctm").read_text().splitlines()
    assert len(lines) == 8 * 6
    assert lines[:2] == ["faks0_si1 1 0.000000 0.000625 h#", "faks0_si1 1 0.000625 0.000625 q"]


def test_sa_on_request(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    assert prepare("--allow-partial", "--include-sa", corpus, tmp_path / "out").returncode == 0
    assert len(DataDir(tmp_path / "out" / "dev").utt_ids) == 10


@pytest.mark.parametrize("name", ["train", "TEST/DR1/FAKS0", "sa1 faks0 test", "a b"])
def test_names_above_the_corpus_do_not_matter(prepare: Run, tmp_path: Path, name: str) -> None:
    corpus = small_corpus(tmp_path / name / "TIMIT")
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 0, done.stderr.decode()
    assert [len(DataDir(tmp_path / "out" / p).utt_ids) for p in ("train", "dev", "test")] == [
        16,
        8,
        8,
    ]
    assert all(Path(path).exists() for path in DataDir(tmp_path / "out/dev").wav_scp.values())


@pytest.mark.parametrize(
    ("wavs", "chosen"),
    [
        (((".wav", riff()),), ".WAV"),
        (((".wav", SPHERE), (".WAV.wav", riff())), ".WAV"),
        (((".wav", SHORTENED), (".WAV.wav", riff())), ".WAV.wav"),
        (((".wav", b""), (".WAV.wav", riff())), ".WAV.wav"),
        (((".WAV.wav", riff()),), ".WAV.wav"),
    ],
)
def test_one_recording_of_those_that_are_there(
    prepare: Run, tmp_path: Path, wavs: tuple[tuple[str, bytes], ...], chosen: str
) -> None:
    corpus = small_corpus(tmp_path / "corpus", wavs=wavs)
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 0, done.stderr.decode()
    paths = DataDir(tmp_path / "out" / "train").wav_scp.values()
    assert len(paths) == 16
    assert all(path.endswith(chosen) and path.count(".") == chosen.count(".") for path in paths)


def test_the_corpus_stays_as_it_was(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    before = listing(corpus)
    for path in corpus.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for _ in range(2):
        done = prepare("--allow-partial", corpus, tmp_path / "out")
        assert done.returncode == 0, done.stderr.decode()
    assert listing(corpus) == before


@pytest.mark.parametrize("where", [".", "data", "TRAIN/out", "../link/data"])
def test_refuses_to_write_into_the_corpus(prepare: Run, tmp_path: Path, where: str) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    (tmp_path / "link").symlink_to(corpus)
    before = listing(corpus)
    done = prepare("--allow-partial", corpus, corpus / where)
    assert done.returncode == 2
    assert b"would change the corpus" in done.stderr
    assert listing(corpus) == before


def test_refuses_to_replace_the_corpus_or_what_is_no_data_directory(
    prepare: Run, tmp_path: Path
) -> None:
    corpus = small_corpus(tmp_path / "out" / "train" / "TIMIT")
    assert prepare("--allow-partial", corpus, tmp_path / "out").returncode == 2
    assert len(list(corpus.rglob("*.PHN"))) == 50
    other = tmp_path / "other"
    (other / "test").mkdir(parents=True)
    (other / "test" / "thesis.txt").write_text("years of work")
    assert prepare("--allow-partial", corpus, other).returncode == 2
    assert os.listdir(other) == ["test"]


def test_replaces_its_own_output_whole(prepare: Run, tmp_path: Path) -> None:
    corpus, out = small_corpus(tmp_path / "corpus"), tmp_path / "out"
    assert prepare("--allow-partial", corpus, out).returncode == 0
    (out / "train" / "feats.scp").write_text("fcjf0_sx1 old.ark:10\n")
    add_speaker(corpus, "train", 1, "fnew0")
    assert prepare("--allow-partial", corpus, out).returncode == 0
    assert not (out / "train" / "feats.scp").exists()
    assert len(DataDir(out / "train").utt_ids) == 24
    assert sorted(os.listdir(out)) == ["dev", "test", "train"]


def test_lists_of_the_corpus_need_allow_partial(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    (corpus / "DOC").mkdir()
    (corpus / "DOC" / "dev_spk.list").write_text("MXYZ0\n")
    (corpus / "DOC" / "test_spk.list").write_text("faks0\n")
    assert prepare("--allow-partial", corpus, tmp_path / "out").returncode == 0
    assert DataDir(tmp_path / "out" / "dev").spk_ids == ["mxyz0"]
    assert DataDir(tmp_path / "out" / "test").spk_ids == ["faks0"]


def test_a_partial_corpus_stops(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    (corpus / "TRAIN" / "DR1" / "FCJF0" / "SX1.WAV").unlink()
    (corpus / "TRAIN" / "DR1" / "FCJF0" / "SX1.PHN").unlink()
    done = prepare(corpus, tmp_path / "out")
    message = done.stderr.decode()
    assert done.returncode == 1
    assert "train has 15 utterances, not 3696" in message
    assert "speakers of train without 8 utterances: fcjf0 7" in message
    assert "dev has 40 scored phones, not 15057" in message
    assert "--allow-partial" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 10 h#\n10 20\n", ":2: expected START END PHONE"),
        ("0 10 h# x\n", ":1: expected START END PHONE"),
        ("0 10 h#\n\n", ":2: expected START END PHONE"),
        ("0 10.5 h#\n", ":1: expected START END PHONE"),
        ("0 10 h#\n20 15 aa\n", ":2: the times do not ascend"),
        ("10 20 h#\n0 10 aa\n", ":2: the times do not ascend"),
        ("0 10 h#\n10 20 sil\n", ':2: unknown phone "sil"'),
        ("0 10 h#\n10 20 AA\n", ':2: unknown phone "AA"'),
        ("", ":1: has no phones"),
    ],
)
def test_faults_of_phn_files(prepare: Run, tmp_path: Path, content: str, message: str) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    bad = corpus / "TRAIN" / "DR1" / "FCJF0" / "SX1.PHN"
    bad.write_text(content)
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 1
    assert f"{bad}{message}" in done.stderr.decode()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("gone", "kept"), [(".PHN", ".WAV"), (".WAV", ".PHN")])
def test_a_missing_file_is_named(prepare: Run, tmp_path: Path, gone: str, kept: str) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    stem = corpus / "TEST" / "DR1" / "FAKS0" / "SX3"
    stem.with_suffix(gone).unlink()
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 1
    assert f"{stem.with_suffix(kept)}: the {gone} file is missing" in done.stderr.decode()


def test_a_damaged_recording_is_named(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    bad = corpus / "TEST" / "DR1" / "FAKS0" / "SX3.WAV"
    bad.write_bytes(SPHERE[:1100])
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 1
    assert str(bad) in done.stderr.decode()
    assert not (tmp_path / "out").exists()


def test_two_copies_are_an_error(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    add_speaker(corpus / "copy", "train", 1, "fcjf0")
    done = prepare("--allow-partial", corpus, tmp_path / "out")
    assert done.returncode == 1
    assert b"keep one of the copies" in done.stderr


def test_other_files_are_left_alone(prepare: Run, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    speaker = corpus / "TRAIN" / "DR1" / "FCJF0"
    for name in ("SX1.TXT", "SX1.WRD", "._SX1.WAV", "SX1.WAV.flac", "SX1.PHN~", "notes.phn"):
        (speaker / name).write_bytes(b"?")
    assert prepare("--allow-partial", corpus, tmp_path / "out").returncode == 0
    assert len(DataDir(tmp_path / "out" / "train").utt_ids) == 16


@pytest.mark.parametrize("place", ["empty", "none"])
def test_no_corpus(prepare: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    done = prepare(tmp_path / place, tmp_path / "out")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


# ---- the whole of TIMIT, as far as counts go ---------------------------------------------------


def counted(utterances: int, scored: int) -> Iterator[str]:
    """Transcriptions of so many utterances that hold exactly so many scored phones, and some q."""
    for index in range(utterances):
        length = scored // utterances + (index < scored % utterances)
        yield " ".join(["q"] * (index % 3) + ["h#"] + ["axr"] * (length - 2) + ["h#"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "TIMIT"
    letters = ("".join(three) for three in itertools.product("abcdefgh", repeat=3))
    train = [f"{'mf'[i % 2]}{name}5" for i, name in zip(range(462), letters, strict=False)]
    for index, speaker in enumerate(train):
        add_speaker(root, "train", index % 8 + 1, speaker, phones=itertools.repeat("h# ax q h#"))
    for speakers, scored in ((DEV, 15057), (TEST, 7215)):
        phones = counted(8 * len(speakers), scored)
        for index, speaker in enumerate(speakers):
            add_speaker(root, "test", index % 8 + 1, speaker, phones=phones)
    return root


def test_the_published_counts_pass(prepare: Run, whole: Path, tmp_path: Path) -> None:
    done = prepare(whole, tmp_path / "out")
    assert done.returncode == 0, done.stderr.decode()
    last = done.stderr.decode().splitlines()[-1]
    assert last.endswith("Done 4288 utterances, 0 failed, train 3696, dev 400, test 192")
    for part in ("train", "dev", "test"):
        assert validate(tmp_path / "out" / part, feats=False) == []


def test_one_phone_too_many_stops(prepare: Run, whole: Path, tmp_path: Path) -> None:
    path = next(whole.glob("TEST/*/MDAB0/SX1.PHN"))
    text = path.read_text()
    path.write_text(text + "9000 9010 aa\n")
    done = prepare(whole, tmp_path / "out")
    path.write_text(text)
    assert done.returncode == 1
    assert b"test has 7216 scored phones, not 7215" in done.stderr
