"""prepare_data.py of speechocean762, on a made-up corpus of its layout."""

from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = "egs/speechocean762/local/prepare_data.py"
SENTENCE = "A CAT'S BOY IS HERE AND MAY GO TO THE ZOO"
PHONES = """
AH0_S | K_B AE1_I T_I S_E | B_B OY2_E | IH0_B Z_E | HH_B IY0_I R_E | AH0_B N_I D_E | M_B EY0_E |
G_B OW0_E | T_B UW0_E | DH_B AH0_E | Z_B UW1_E
"""
WORDS = [word.strip() for word in PHONES.split("|")]
LINE = "ah k ae t s b oy ih z hh iy r ah n d m ey g ow t uw dh ah z uw"


def make_part(corpus: Path, part: str, speakers: range, per_speaker: int) -> None:
    folder = corpus / part
    folder.mkdir(parents=True)
    (corpus / "resource").mkdir(exist_ok=True)
    tables: dict[str, list[str]] = {n: [] for n in ("wav.scp", "text", "utt2spk", "spk2gender")}
    rows = []
    for speaker in (f"{number:04}" for number in speakers):
        tables["spk2gender"].append(f"{speaker}\tf")
        (corpus / "WAVE" / f"SPEAKER{speaker}").mkdir(parents=True)
        for utt in (f"{int(speaker):05}{number:04}" for number in range(per_speaker)):
            path = f"WAVE/SPEAKER{speaker}/{utt}.WAV"
            (corpus / path).touch()
            tables["wav.scp"].append(f"{utt}\t{path}")
            tables["text"].append(f"{utt}\t{SENTENCE}")
            tables["utt2spk"].append(f"{utt} {speaker}")
            rows += sorted(f"{utt}.{number}\t{word}" for number, word in enumerate(WORDS))
    for name, lines in tables.items():
        (folder / name).write_text("".join(line + "\n" for line in lines))
    with (corpus / "resource" / "text-phone").open("a") as stream:
        stream.writelines(row + "\n" for row in rows)


@pytest.fixture
def prepare(run_bin, tmp_path: Path) -> Callable:
    def run(*options: str):
        return run_bin(PROGRAM, *options, tmp_path / "corpus", tmp_path / "data")

    return run


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_whole_corpus_is_split_by_its_speakers(run_bin, prepare, tmp_path: Path) -> None:
    make_part(tmp_path / "corpus", "train", range(1, 251, 2), 20)
    done = prepare()
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["dev", "train"]
    train, dev = tmp_path / "data" / "train", tmp_path / "data" / "dev"
    assert (len(lines(train / "text")), len(lines(train / "spk2utt"))) == (2240, 112)
    assert (len(lines(dev / "text")), len(lines(dev / "spk2utt"))) == (260, 13)
    assert [line[:4] for line in lines(dev / "spk2utt")][:2] == ["0009", "0029"]
    assert b"Done 2500 utterances, 0 failed, in train, dev" in done.stderr
    for part in (train, dev):
        run_bin("validate_data_dir.py", "--no-feats", part, check=True)


def test_the_tables_of_a_partial_corpus_with_a_test_part(run_bin, prepare, tmp_path: Path) -> None:
    make_part(tmp_path / "corpus", "train", range(1, 6), 2)
    make_part(tmp_path / "corpus", "test", range(7, 8), 1)
    refused = prepare()
    assert refused.returncode == 1
    assert b"train: 4 speakers and 8 utterances, not the 112 and 2240" in refused.stderr
    assert not (tmp_path / "data").exists()
    done = prepare("--allow-partial")
    assert done.returncode == 0, done.stderr.decode()
    test = tmp_path / "data" / "test"
    wav = (tmp_path / "corpus" / "WAVE" / "SPEAKER0007" / "000070000.WAV").resolve()
    utt = "0007-000070000"
    assert lines(test / "wav.scp") == [f"{utt} {wav}"]
    assert lines(test / "text") == [f"{utt} {LINE}"]  # word 10 comes after word 9
    assert lines(test / "text_words") == [f"{utt} {SENTENCE}"]
    assert lines(test / "utt2spk") == [f"{utt} 0007"]
    assert lines(test / "spk2utt") == [f"0007 {utt}"]
    assert lines(test / "spk2gender") == ["0007 f"]
    dev = tmp_path / "data" / "dev"
    assert lines(dev / "spk2utt") == ["0005 0005-000050000 0005-000050001"]
    run_bin("validate_data_dir.py", "--no-feats", test, check=True)


def replace(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("resource/text-phone", "000010000.3\tIH0_B Z_E\n", "", "each word of 000010000"),
        ("resource/text-phone", "000010000.3\tIH0_B", "000010000.3\tIX0_B", "phone 'IX0_B'"),
        ("resource/text-phone", "000010000.3\t", "000010000.4\t", "000010000.4 occurs twice"),
        ("resource/text-phone", "000010000.3\t", "000010000\t", "000010000 is not of the form"),
        ("train/wav.scp", "000010000.WAV", "1.WAV", "SPEAKER0001/1.WAV; unpack the corpus again"),
        ("train/wav.scp", "000010000\t", "x\t", "not in both text and wav.scp: 000010000, x"),
        ("train/utt2spk", "000010000 ", "y ", "not in both text and utt2spk: 000010000, y"),
        ("train/spk2gender", "0001\tf\n", "", "lacks 0001"),
        ("train/text", "000010000\t" + SENTENCE, "000010000", "train/text:1: expected a key"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    prepare, tmp_path: Path, file: str, old: str, new: str, words: str
) -> None:
    make_part(tmp_path / "corpus", "train", range(1, 6), 1)
    replace(tmp_path / "corpus" / file, old, new)
    done = prepare("--allow-partial")
    assert done.returncode == 1
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_no_corpus_there(prepare) -> None:
    done = prepare()
    assert done.returncode == 1
    assert b"text-phone: No such file" in done.stderr
