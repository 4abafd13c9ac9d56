"""The demo corpus: behaviour of its programs, its files, and agreement of labels and sound."""

import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import soundfile

from pipeline.text.phones import load_phone_map

ROOT = Path(__file__).resolve().parents[3]
LOCAL = ROOT / "egs" / "timit" / "local"
sys.path.insert(0, str(LOCAL))

import demo_phones  # noqa: E402
import demo_sentences  # noqa: E402
import demo_voices  # noqa: E402

from pipeline.synth import acoustics  # noqa: E402
from pipeline.synth.espeak import RATE, Event  # noqa: E402

Run = Callable[..., CompletedProcess[bytes]]
PROGRAM = "egs/timit/local/make_demo_corpus.py"
TINY = ("--num-train=2", "--num-dev=1", "--num-test=1")
SIXTY_ONE = set(load_phone_map(ROOT / "egs/timit/conf/phones.60-48-39.map").phones(61))


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[tuple[int, int, str]]:
    lines = (line.split(" ", 2) for line in path.read_text().splitlines())
    return [(int(start), int(end), name) for start, end, name in lines]


@pytest.fixture(scope="module")
def tiny(run_bin: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("demo") / "corpus"
    run_bin(PROGRAM, *TINY, "--jobs=1", corpus, check=True)
    return corpus


@pytest.fixture(scope="module")
def small(run_bin: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("demo") / "small"
    run_bin(PROGRAM, "--num-train=8", "--num-dev=2", "--num-test=2", corpus, check=True)
    return corpus


# ---- the program -------------------------------------------------------------------------------


def test_the_same_files_with_two_jobs_and_another_seed_gives_others(
    run_bin: Run, tiny: Path, tmp_path: Path
) -> None:
    run_bin(PROGRAM, *TINY, "--jobs=2", tmp_path / "again", check=True)
    assert digests(tmp_path / "again") == digests(tiny)
    run_bin(PROGRAM, *TINY, "--seed=1", tmp_path / "other", check=True)
    ours, others = digests(tiny), digests(tmp_path / "other")
    same = {name for name in ours if others.get(name) == ours[name]}
    assert not any(name.endswith(".WAV") for name in same)


def test_layout_and_last_line(run_bin: Run, tiny: Path) -> None:
    top = sorted(path.name for path in tiny.iterdir())
    assert top == [".demo_corpus.json", "DOC", "TEST", "TRAIN"]
    for directory in ("TRAIN/DR1/MXAA0", "TRAIN/DR1/FXAB0", "TEST/DR2/MXAC0", "TEST/DR2/FXAD0"):
        files = Counter(path.suffix for path in (tiny / directory).iterdir())
        assert files == {".WAV": 10, ".PHN": 10, ".WRD": 10, ".TXT": 10}
        kinds = Counter(path.name[:2] for path in (tiny / directory).glob("*.WAV"))
        assert kinds == {"SA": 2, "SX": 5, "SI": 3}
    assert (tiny / "DOC" / "dev_spk.list").read_text() == "mxac0\n"
    assert (tiny / "DOC" / "test_spk.list").read_text() == "fxad0\n"
    assert (tiny / "DOC" / "SPKRINFO.TXT").read_text().count("\n") == 6
    before = digests(tiny)
    again = run_bin(PROGRAM, *TINY, tiny, check=True).stderr.decode()
    assert "already exists" in again
    assert "Done 40 utterances, 0 failed, 4 speakers, 0.0" in again.splitlines()[-1]
    assert again.splitlines()[-1].endswith("phones, synthetic")
    assert digests(tiny) == before


def test_other_options_or_a_foreign_directory(run_bin: Run, tiny: Path, tmp_path: Path) -> None:
    before = digests(tiny)
    done = run_bin(PROGRAM, *TINY, "--seed=5", tiny)
    assert done.returncode == 2
    assert b"made with other options" in done.stderr
    assert digests(tiny) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run_bin(PROGRAM, *TINY, tmp_path / "mine")
    assert done.returncode == 2
    assert b"is not a demo corpus" in done.stderr
    (tmp_path / "mine").rename(tmp_path / "new.tmp")
    done = run_bin(PROGRAM, *TINY, tmp_path / "new")
    assert done.returncode == 2
    assert (tmp_path / "new.tmp" / "thesis.txt").exists()


def test_goes_on_after_an_interruption(run_bin: Run, tiny: Path, tmp_path: Path) -> None:
    """A directory under construction: one speaker complete, one incomplete, two missing."""
    building = tmp_path / "corpus.tmp"
    done = building / "TRAIN" / "DR1" / "MXAA0"
    done.mkdir(parents=True)
    (building / ".demo_corpus.json").write_bytes((tiny / ".demo_corpus.json").read_bytes())
    for path in (tiny / "TRAIN" / "DR1" / "MXAA0").iterdir():
        os.link(path, done / path.name)
    half = building / "TRAIN" / "DR1" / "FXAB0.part"
    half.mkdir()
    (half / "SX99.WAV").write_bytes(b"half a file")
    run_bin(PROGRAM, *TINY, tmp_path / "corpus", check=True)
    assert digests(tmp_path / "corpus") == digests(tiny)
    kept = (tmp_path / "corpus/TRAIN/DR1/MXAA0/SA1.WAV").stat().st_ino
    assert kept == (tiny / "TRAIN/DR1/MXAA0/SA1.WAV").stat().st_ino
    assert sorted(os.listdir(tmp_path)) == ["corpus"]


@pytest.mark.parametrize("option", ["--size=huge", "--num-train=0", "--seed=-1", "--jobs=x"])
def test_usage(run_bin: Run, tmp_path: Path, option: str) -> None:
    done = run_bin(PROGRAM, option, tmp_path / "corpus")
    assert done.returncode == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "module",
    [
        "raise ImportError('not here')",
        "def get_library_path(): return '/nowhere.so'\ndef get_data_path(): return '/nowhere'",
    ],
)
def test_without_espeak_it_says_what_to_install(tmp_path: Path, module: str) -> None:
    import subprocess

    (tmp_path / "espeakng_loader.py").write_text(module)
    done = subprocess.run(
        [sys.executable, str(ROOT / PROGRAM), *TINY, str(tmp_path / "corpus")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    message = done.stderr.decode()
    assert "pip install 'espeakng-loader" in message
    assert "speaks the demo corpus" in message
    assert "Traceback" not in message
    assert not (tmp_path / "corpus").exists()


# ---- the files ---------------------------------------------------------------------------------


def test_times_are_contiguous_and_end_with_the_sound(small: Path) -> None:
    for path in small.rglob("*.PHN"):
        phones = rows(path)
        wav = soundfile.info(str(path.with_suffix(".WAV")))
        assert (wav.samplerate, wav.channels, wav.format) == (16000, 1, "NIST")
        assert phones[0][0] == 0
        assert phones[-1][1] == wav.frames
        assert phones[0][2] == phones[-1][2] == "h#"
        assert all(start < end for start, end, _ in phones)
        assert all(a[1] == b[0] for a, b in pairwise(phones))
        assert {name for _, _, name in phones} <= SIXTY_ONE


def test_words_lie_on_phones_in_order(small: Path) -> None:
    for path in small.rglob("*.WRD"):
        words = rows(path)
        edges = {start for start, _, _ in rows(path.with_suffix(".PHN"))}
        [(first, _, text)] = rows(path.with_suffix(".TXT"))
        assert first == 0
        said = [word.strip(",.").lower() for word in text.split()]
        assert [word for _, _, word in words] == said
        assert all(start < end and {start, end} <= edges for start, end, _ in words)
        assert all(a[0] < b[0] for a, b in pairwise(words)), path


def test_all_61_in_train_and_test_without_sa(small: Path) -> None:
    for top in ("TRAIN", "TEST"):
        found = {name for path in (small / top).glob("*/*/S[IX]*.PHN") for _, _, name in rows(path)}
        assert found == SIXTY_ONE


def test_sounds_are_what_the_labels_say(small: Path) -> None:
    """Level against the utterance's, and how much of it is high: medians where it is quiet."""
    level, high = defaultdict(list), defaultdict(list)
    lines = (small / "DOC" / "SPKRINFO.TXT").read_text().splitlines()
    table = [line.split() for line in lines if not line.startswith(";")]
    quiet = {sex + name for name, sex, *_, snr_db, _ in table if int(snr_db) >= 22}
    assert len(quiet) >= 4
    for path in (path for path in small.rglob("*.PHN") if path.parent.name in quiet):
        samples, _ = soundfile.read(str(path.with_suffix(".WAV")))
        power = np.mean(samples**2)
        for start, end, name in rows(path):
            quarter = (end - start) // 4
            part = samples[start + quarter : end - quarter]
            if len(part) >= 32:
                level[name].append(10 * np.log10(np.mean(part**2) / power + 1e-9))
                high[name].append(10 * np.log10(np.mean(np.diff(part) ** 2) / np.mean(part**2)))
    db = {name: float(np.median(values)) for name, values in level.items()}
    hiss = {name: float(np.median(values)) for name, values in high.items()}
    vowels = ("iy", "ih", "eh", "ae", "aa", "ao", "ah", "er", "ey", "ay", "ow")
    for silence in ("h#", "pau", "pcl", "tcl", "kcl", "q"):
        assert db[silence] < min(db[vowel] for vowel in vowels) - 12, silence
    for closure in ("bcl", "dcl", "gcl"):
        assert db[closure] < min(db[vowel] for vowel in vowels) - 8, closure
    for fricative in ("s", "sh", "t", "ch"):
        assert hiss[fricative] > max(hiss[vowel] for vowel in vowels) + 4, fricative
    for stop, closure in (("t", "tcl"), ("k", "kcl"), ("p", "pcl"), ("b", "bcl")):
        assert db[stop] > db[closure] + 2, stop


# ---- its modules -------------------------------------------------------------------------------


def test_a_seventh_of_the_words_occurs_only_in_test() -> None:
    held_out = demo_sentences.vocabulary(True) - demo_sentences.vocabulary(False)
    assert len(demo_sentences.vocabulary()) > 300
    assert len(held_out) > 30
    train, test = demo_sentences.make_prompts(0, 40, 16)
    words = [
        {
            word.strip(",.").lower()
            for speaker in group
            for s in speaker
            if s.name[:2] in ("SX", "SI")
            for word in s.words
        }
        for group in (train, test)
    ]
    hidden = {word.lower() for word in held_out} - {"an"}
    assert not words[0] & hidden
    assert len(words[1] & hidden) > 25


def test_sentences_are_ten_a_speaker_and_not_shared_between_train_and_test() -> None:
    train, test = demo_sentences.make_prompts(3, 6, 4)
    texts = [
        {" ".join(s.words) for speaker in group for s in speaker if not s.name.startswith("SA")}
        for group in (train, test)
    ]
    assert not texts[0] & texts[1]
    for speaker in train + test:
        assert len(speaker) == len({s.name for s in speaker}) == 10
    everyone = train + test
    own = [s.name for speaker in everyone for s in speaker if s.name.startswith("SI")]
    assert len(own) == len(set(own)) == 30
    by_name = {s.name: s.words for speaker in everyone for s in speaker}
    assert all(by_name[s.name] == s.words for speaker in everyone for s in speaker)


def test_a_pronunciation_goes_to_espeak_and_not_into_the_text() -> None:
    said = demo_sentences.sentence("SX1", "our rhythm=r'IDm-, is bad")
    assert said.words == ("Our", "rhythm,", "is", "bad.")
    assert said.spoken == "[[?]]our [[r'IDm-]], is bad."
    assert [said.spoken[start] for start in said.starts] == ["[", "[", "i", "b"]


def test_speakers_have_names_of_their_own() -> None:
    plans = demo_voices.plan_speakers(0, 40, 8, 8)
    voices = [plan.voice for plan in plans]
    assert len({voice.speaker for voice in voices}) == 56
    assert len({voice.voice_file for voice in voices}) == 56
    assert Counter(voice.sex for voice in voices) == {"M": 28, "F": 28}
    assert {plan.dialect for plan in plans} == set(range(1, 9))
    assert "breath" not in "".join(plan.voice.voice_file for plan in plans)
    assert "echo" not in "".join(plan.voice.voice_file for plan in plans)


def test_resampling_keeps_a_tone_and_drops_what_does_not_fit() -> None:
    times = np.arange(RATE) / RATE
    ratio = 16000 / RATE
    tone = acoustics.resample(np.sin(2 * np.pi * 1000 * times), ratio)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(tone)) / 16000)
    assert len(tone) == 16000
    assert np.abs(tone - expected)[50:-50].max() < 2e-3
    above = acoustics.resample(np.sin(2 * np.pi * 9500 * times), ratio)
    assert np.abs(above)[50:-50].max() < 1e-2


@pytest.mark.parametrize("noise", ["white", "pink", "hum", "babble"])
def test_the_noise_is_as_loud_as_the_channel_says(noise: str) -> None:
    rng = np.random.default_rng(0)
    speech = np.pad(np.sin(np.arange(16000) / 3.0), 4000)
    channel = acoustics.Channel(0.1, 18.0, 0.0, (), noise, 20.0, 1)
    babble = acoustics.mix_babble([rng.standard_normal(9000), rng.standard_normal(5000)])
    wav = acoustics.record(speech, channel, babble, rng).astype(float)
    assert len(wav) == len(speech)
    assert 32767 * 10 ** (-20 / 20) - 1 <= np.abs(wav).max() <= 32767 * 10 ** (-2 / 20) + 1
    snr_db = 10 * np.log10(np.mean(wav[4500:20000] ** 2) / np.mean(wav[:3800] ** 2))
    assert 15 < snr_db < 25


def test_a_voiceless_stop_has_the_silence_before_it_as_closure() -> None:
    samples = np.random.default_rng(0).standard_normal(9000) * 0.1
    samples[3000:4000] = 0.0
    events = [Event("s", 0, 0), Event("a", 2, 1500), Event("t", 0, 4000), Event("_:", 0, 5500)]
    found = [(s.label, s.start, s.end) for s in demo_phones.phone_segments(samples, events)]
    assert found == [("s", 0, 1500), ("ae", 1500, 3000), ("tcl", 3000, 4000), ("t", 4000, 5500)]


def test_a_voiced_stop_bursts_where_the_high_energy_is() -> None:
    times = np.arange(2000)
    samples = 0.05 * np.sin(2 * np.pi * 120 * times / RATE)
    samples[1200:] += 0.1 * np.random.default_rng(0).standard_normal(800)
    burst = demo_phones.find_burst(samples)
    assert burst is not None
    assert abs(burst - 1200) <= 44
    assert demo_phones.find_burst(samples[1200:]) == 0
    assert demo_phones.find_burst(samples[:100]) is None


@pytest.mark.parametrize(
    ("before", "name", "after", "expected"),
    [
        ("d", "u:", "z", "ux"),
        ("k", "u:", "l", "uw"),
        ("@", "h", "E", "hv"),
        ("s", "h", "E", "hh"),
        ("s", "@", "p", "ax-h"),
        ("s", "@", "m", "ax"),
        ("I", "n", "3", "nx"),
        ("I", "n", "s", "n"),
    ],
)
def test_variants_follow_from_context(before: str, name: str, after: str, expected: str) -> None:
    samples = np.full(9000, 0.1)
    events = [Event(before, 0, 0), Event(name, 0, 3000), Event(after, 0, 6000)]
    labels = [s.label for s in demo_phones.phone_segments(samples, events)]
    assert expected in labels


def test_an_l_inside_its_vowel_gets_a_share() -> None:
    events = [Event("a", 2, 0), Event("l", 0, 1000), Event("v", 0, 1000), Event("_:", 0, 2000)]
    found = demo_phones.phone_segments(np.full(2100, 0.1), events)
    assert [(s.label, s.start, s.end) for s in found] == [
        ("ae", 0, 600),
        ("l", 600, 1000),
        ("v", 1000, 2000),
    ]


def test_an_unknown_phoneme_is_an_error() -> None:
    with pytest.raises(demo_phones.DataError, match="'x9'"):
        demo_phones.phone_segments(np.full(100, 0.1), [Event("x9", 0, 0)])
