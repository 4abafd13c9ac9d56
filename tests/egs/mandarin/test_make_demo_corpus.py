"""The Mandarin demo corpus: the same files again, speakers apart, sentences that can be said."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import soundfile

from pipeline.text.mandarin import characters, syllables

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., CompletedProcess[bytes]]
PROGRAM = "egs/mandarin/local/make_demo_corpus.py"
TINY = ("--size=2,1,1", "--per-speaker=2")


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tiny(run_bin: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("demo") / "corpus"
    run_bin(PROGRAM, *TINY, "--jobs=1", corpus, check=True)
    return corpus


def test_the_same_files_with_two_jobs_and_after_an_interruption(
    run_bin: Run, tiny: Path, tmp_path: Path
) -> None:
    building = tmp_path / "again.tmp"
    (building / "by" / "FXAB0.part").mkdir(parents=True)
    (building / ".demo_corpus.json").write_bytes((tiny / ".demo_corpus.json").read_bytes())
    (building / "by" / "FXAB0.part" / "FXAB0-01.wav").write_bytes(b"half a file")
    run_bin(PROGRAM, *TINY, "--jobs=2", tmp_path / "again", check=True)
    assert digests(tmp_path / "again") == digests(tiny)
    again = run_bin(PROGRAM, *TINY, tiny, check=True).stderr.decode()
    assert "already exists" in again
    assert again.splitlines()[-1].endswith(
        "Done 8 utterances, 0 failed, 4 speakers, 0.01 h, synthetic"
    )


def test_tables_recordings_and_speakers_agree(tiny: Path) -> None:
    assert {path.name for path in tiny.iterdir()} == {
        *(".demo_corpus.json", "sentences", "sentences.tsv", "speakers.tsv")
    }
    sentences, speakers = rows(tiny / "sentences.tsv"), rows(tiny / "speakers.tsv")
    assert [row[0] for row in sentences] == [row[0] for row in speakers]
    assert len({row[1] for row in sentences}) == len(sentences) == 8
    for key, text, pinyin in sentences:
        said = characters(text, key)
        assert len(syllables(pinyin, len(said), key)) == len(said)
        wav = soundfile.info(str(tiny / "sentences" / f"{key}.wav"))
        assert (wav.samplerate, wav.channels, wav.subtype) == (16000, 1, "PCM_16")
        assert wav.duration > 0.12 * len(said)
    sets = {
        name: {row[1] for row in speakers if row[2] == name} for name in ("train", "dev", "test")
    }
    assert [len(found) for found in sets.values()] == [2, 1, 1]
    assert not sets["train"] & sets["test"] | sets["dev"] & (sets["train"] | sets["test"])


def test_another_seed_gives_other_recordings(run_bin: Run, tiny: Path, tmp_path: Path) -> None:
    run_bin(PROGRAM, *TINY, "--seed=1", tmp_path / "other", check=True)
    ours, others = digests(tiny), digests(tmp_path / "other")
    assert not [name for name in ours if name.endswith(".wav") and ours[name] == others.get(name)]
    done = run_bin(PROGRAM, *TINY, "--seed=1", tiny)
    assert done.returncode == 2
    assert b"made with other options" in done.stderr


def test_own_sentences(run_bin: Run, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("我爱北京。\n你好！\n谢谢\n再见\n", encoding="utf-8")
    options = ("--size=1,1,1", "--per-speaker=1", f"--text={text}")
    run_bin(PROGRAM, *options, tmp_path / "corpus", check=True)
    found = rows(tmp_path / "corpus" / "sentences.tsv")
    assert [row[1:] for row in found] == [
        ["我爱北京。", "wo3 ai4 bei3 jing1"],
        ["你好！", "ni3 hao3"],
        ["谢谢", "xie4 xie4"],
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "我爱北京。\n我看DVD。\n你好\n",
            'text:2: "我看DVD。" has Latin letters (DVD), but the text',
        ),
        ("三点\n3点\n四点\n", 'text:2: "3点" has the digit 3; write numbers as they are spoken'),
        ("你好\n。。\n再见\n", 'text:2: "。。" has nothing to say'),
        ("你好\n再见\n", "text: has 2 lines, but the speakers need 3; give more lines"),
        ("你好\nПривет\n再见\n", "holds U+041F CYRILLIC CAPITAL LETTER PE, which is not a Chinese"),
    ],
)
def test_a_line_that_the_voice_cannot_say(
    run_bin: Run, tmp_path: Path, content: str, said: str
) -> None:
    text = tmp_path / "text"
    text.write_text(content, encoding="utf-8")
    options = ("--size=1,1,1", "--per-speaker=1", f"--text={text}")
    done = run_bin(PROGRAM, *options, tmp_path / "corpus")
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


@pytest.mark.parametrize("option", ["--size=huge", "--size=1,2", "--size=0,1,1", "--per-speaker=0"])
def test_usage(run_bin: Run, tmp_path: Path, option: str) -> None:
    assert run_bin(PROGRAM, option, tmp_path / "corpus").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_the_vocabulary_is_small_and_all_of_it_is_said() -> None:
    sys.path.insert(0, str(ROOT / "egs" / "mandarin" / "local"))
    sys.modules.pop("demo_sentences", None)  # that of another recipe
    try:
        import demo_sentences
    finally:
        sys.path.pop(0)
        sys.modules.pop("demo_sentences", None)
    sentences = demo_sentences.draw_sentences(0, 480)
    assert len(set(sentences)) == 480
    assert sentences == demo_sentences.draw_sentences(0, 480)
    said = {char for line in sentences for char in characters(line, "")}
    assert said == demo_sentences.vocabulary()
    assert 60 <= len(said) <= 150
