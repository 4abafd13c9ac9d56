"""prepare_data.py of the Mandarin recipe, on tiny folders of generated MP3s."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

PROGRAM = "egs/mandarin/local/prepare_data.py"
NUMBERS = "零一二三四五六七八九"
TEXTS = [f"第{NUMBERS[a]}{NUMBERS[b]}课。" for a in range(10) for b in range(10)]
PINYIN = ["ling2", "yi1", "er4", "san1", "si4", "wu3", "liu4", "qi1", "ba1", "jiu3"]
OTHERS = ["你们", "他们", "中国", "北京", "上海", "老师", "学生", "火车"]


@pytest.fixture(scope="module")
def tone() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(12000) * 0.1) * 0.3, 24000, format="MP3")
    return buffer.getvalue()


@pytest.fixture
def corpus(tmp_path: Path, tone: bytes) -> Path:
    """A hundred sentences with pinyin, and six words without."""
    root = tmp_path / "corpus"
    for part in ("sentences", "words"):
        (root / part).mkdir(parents=True)
    lines = []
    for number, text in enumerate(TEXTS):
        pinyin = f"di4 {PINYIN[number // 10]} {PINYIN[number % 10]} ke4"
        lines.append(f"s{number:03}\t{text}\t{pinyin}\n")
        (root / "sentences" / f"s{number:03}.mp3").write_bytes(tone)
    (root / "sentences.tsv").write_text("".join(lines), encoding="utf-8")
    words = ["银行", "行走", "长大", "长城", "花儿", "女儿", "我们", *OTHERS]
    table = "".join(f"w{number}\t{word}\n" for number, word in enumerate(words))
    (root / "words.tsv").write_text(table, encoding="utf-8")
    for number in range(len(words)):
        (root / "words" / f"w{number}.mp3").write_bytes(tone)
    return root


@pytest.fixture
def prepare(run_bin, corpus: Path, tmp_path: Path) -> Callable:
    def run(*options: str, check: bool = False):
        return run_bin(PROGRAM, *options, corpus, tmp_path / "data", check=check)

    return run


def table(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_every_item_is_in_one_set_and_parts_are_tested_apart(
    run_bin, prepare, corpus: Path, tmp_path: Path
) -> None:
    prepare(check=True)
    data = tmp_path / "data"
    assert sorted(p.name for p in data.iterdir()) == [
        "dev",
        "test_sentences",
        "test_words",
        "train",
    ]
    texts = {p.name: table(p / "text") for p in data.iterdir()}
    names = [name for found in texts.values() for name in found]
    assert len(names) == len(set(names)) == 115
    assert {name.partition("-")[0] for name in texts["test_words"]} == {"words"}
    assert 5 <= len(texts["test_sentences"]) <= 20
    assert texts["train"]["sentences-s000"] == "第零零课"
    assert table(data / "train" / "text_pinyin")["sentences-s000"] == "di4 ling2 ling2 ke4"
    wav = table(data / "train" / "wav.scp")["sentences-s000"]
    assert wav == str((corpus / "sentences" / "s000.mp3").resolve())
    for name in texts:
        run_bin("validate_data_dir.py", "--no-feats", data / name, check=True)


def test_an_items_set_does_not_depend_on_the_others(prepare, corpus: Path, tmp_path: Path) -> None:
    prepare(check=True)
    before = {p.name: table(p / "text") for p in (tmp_path / "data").iterdir()}
    for path in sorted((corpus / "sentences").iterdir())[::3]:
        path.unlink()
    refused = prepare()
    assert refused.returncode == 1
    assert "no such recording: " in refused.stderr.decode()
    assert "sentences/s000.mp3, " in refused.stderr.decode()
    assert "and 29 more" in refused.stderr.decode()
    assert "give --allow-partial to leave these items out" in refused.stderr.decode()
    done = prepare("--allow-partial", check=True)
    assert b"left out" in done.stderr
    after = {p.name: table(p / "text") for p in (tmp_path / "data").iterdir()}
    assert sum(map(len, after.values())) == 115 - 34
    for name, found in after.items():
        assert found.items() <= before[name].items()


def test_pinyin_of_the_table_and_of_the_dictionary(prepare, tmp_path: Path) -> None:
    prepare("--units=pinyin", "--only=eval", check=True)
    data = tmp_path / "data"
    assert sorted(p.name for p in data.iterdir()) == ["eval_sentences", "eval_words"]
    assert table(data / "eval_sentences" / "text")["sentences-s019"] == "di4 yi1 jiu3 ke4"
    words = table(data / "eval_words" / "text")
    assert [words[f"words-w{n}"] for n in range(7)] == [
        *(
            "yin2 hang2",
            "xing2 zou3",
            "zhang3 da4",
            "chang2 cheng2",
            "hua1 r5",
            "nv3 er2",
            "wo3 men5",
        )
    ]
    assert table(data / "eval_words" / "text_char")["words-w0"] == "银行"


def test_speakers_and_their_sets(prepare, corpus: Path, tmp_path: Path) -> None:
    (corpus / "words.tsv").unlink()
    sets = ["train"] * 80 + ["dev"] * 10 + ["test"] * 10
    lines = [f"s{n:03}\tMX{n // 10}\t{name}\n" for n, name in enumerate(sets)]
    (corpus / "speakers.tsv").write_text("".join(lines))
    prepare(check=True)
    test = tmp_path / "data" / "test_sentences"
    assert list(table(test / "spk2utt")) == ["MX9"]
    assert list(table(test / "text")) == [f"MX9-s{n:03}" for n in range(90, 100)]
    (corpus / "speakers.tsv").write_text("".join(lines[1:]))
    done = prepare()
    assert "speakers.tsv: lacks s000; add a line for it" in done.stderr.decode()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("words.tsv", "银行", "银行ATM", 'words.tsv:1: "银行ATM" has Latin letters (ATM)'),
        ("words.tsv", "银行", "3行", 'words.tsv:1: "3行" has the digit 3'),
        ("words.tsv", "银行", "银行☃", "words.tsv:1: .银行☃. holds U+2603 SNOWMAN, which is not"),
        ("words.tsv", "银行", "", 'words.tsv:1: "" has nothing to say'),
        ("words.tsv", "w0\t银行", "w0 银行", "words.tsv:1: expected an ID, characters and maybe"),
        ("words.tsv", "w1\t", "w0\t", "words.tsv:2: w0 occurs twice; keep one of the lines"),
        ("words.tsv", "w0\t", "a/b\t", "words.tsv:1: the ID 'a/b' has a blank or a /"),
        ("words.tsv", "银行", "\ufffd行", "U+FFFD REPLACEMENT CHARACTER"),
        (
            "sentences.tsv",
            "di4 ling2 ling2 ke4",
            "di4 ling2 ke4",
            ":1: 3 syllables of pinyin for 4",
        ),
        ("sentences.tsv", "di4 ling2 ling2", "dì ling2 ling2", '"dì" is not a syllable of pinyin'),
    ],
)
def test_what_is_wrong_in_a_table_is_named(
    prepare, corpus: Path, tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    content = (corpus / file).read_text(encoding="utf-8")
    assert old in content
    (corpus / file).write_text(content.replace(old, new, 1), encoding="utf-8")
    done = prepare()
    assert done.returncode == 1
    assert said.replace(".银行☃.", '"银行☃"') in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_what_is_missing_is_named(prepare, corpus: Path) -> None:
    (corpus / "words" / "w3.mp3").rename(corpus / "words" / "w3.txt")
    assert "words/w3.mp3" in prepare().stderr.decode()
    (corpus / "words.tsv").write_text("")
    assert "words.tsv: is empty; give lines with an ID" in prepare().stderr.decode()
    (corpus / "words.tsv").unlink()
    (corpus / "sentences").rename(corpus / "elsewhere")
    assert "sentences: no such folder, which should hold ID.mp3" in prepare().stderr.decode()
    (corpus / "sentences.tsv").unlink()
    done = prepare()
    assert "corpus: has neither sentences.tsv nor words.tsv" in (done.stderr.decode())
    assert done.returncode == 1


def test_too_few_items(prepare, corpus: Path, tmp_path: Path) -> None:
    (corpus / "words.tsv").unlink()
    lines = (corpus / "sentences.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (corpus / "sentences.tsv").write_text(lines[0], encoding="utf-8")
    done = prepare()
    assert done.returncode == 1
    assert "no items for dev, test; give more items, --only, or --allow-partial" in (
        done.stderr.decode()
    )
    (tmp_path / "data" / "test_sentences").mkdir(parents=True)  # of another corpus
    prepare("--allow-partial", check=True)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["train"]


@pytest.mark.parametrize("options", [("--units=words",), ("--only=train",), ("--only=a b",)])
def test_usage(prepare, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert prepare(*options).returncode == 2
    assert not (tmp_path / "data").exists()
