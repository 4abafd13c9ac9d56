"""make_ngram_lm.py: compared with numbers by hand and KenLM; probabilities add up to 1."""

import random
from pathlib import Path

import numpy as np
import pytest

from pipeline.text.ngram import read_arpa
from pipeline.text.subwords import train_sentencepiece
from pipeline.text.tokens import Tokens

# Once </s> comes after <s>, a and b: it counts 3 of 7; a and b count 2 each. The discounts are
# those without counts to speak of, 0.5, 1 and 1.5, and what they leave is half in every history.
SMALL = "u1 a b a\nu2 b\nu3\n"
BY_HAND = {
    "</s>": 1.5 / 7 + 1 / 6,
    "a": 1 / 7 + 1 / 6,
    "b": 1 / 7 + 1 / 6,
    "<s> a": 0.5 / 3 + 0.5 * (1 / 7 + 1 / 6),
    "a </s>": 0.5 / 2 + 0.5 * (1.5 / 7 + 1 / 6),
    "<s> b </s>": 0.5 + 0.5 * (0.5 / 2 + 0.5 * (1.5 / 7 + 1 / 6)),
}

# KenLM 0.3.0 on letters(6, 60): lmplz -o 3 --discount_fallback; no order falls back.
KENLM_COUNTS = [28, 145, 185]
KENLM = """\
-1.8734004 <unk>
-0.8240937 </s>
-0.91239625 a -0.32981545
-1.2725854 b -0.16772707
-1.7372991 q -0.15778765
-0.8602356 <s> </s>
-0.5523804 a </s>
-0.46299285 <s> a -0.123381406
-0.7024107 c a -0.17463106
-1.2073212 a b -0.30692035
-1.5586216 <s> d -0.21441202
-0.621365 <s> a </s>
-0.70555574 b a </s>
-0.8459871 <s> a a
-0.44971588 c a a
-1.21796 a a b
-0.40652722 q a </s>
-0.66352004 b v q
"""


def letters(seed: int, sentences: int) -> str:
    draw = random.Random(seed).random
    text = [
        [chr(ord("a") + int(26 * draw() ** 3)) for _ in range(int(9 * draw()))]
        for _ in range(sentences)
    ]
    return "".join(f"u{i:03} {' '.join(words)}".strip() + "\n" for i, words in enumerate(text))


def listed(arpa: str) -> dict[str, list[float]]:
    """n-gram -> log10 P, and log10 of its back-off weight if there is one."""
    rows = [line.split("\t") for line in arpa.splitlines() if "\t" in line]
    return {row[1]: [float(row[0]), *map(float, row[2:])] for row in rows}


@pytest.fixture
def make(run_bin, tmp_path: Path):
    """The output of the command for a text."""

    def run(text: str, *options: object) -> str:
        (tmp_path / "text").write_text(text)
        run_bin("make_ngram_lm.py", *options, tmp_path / "text", tmp_path / "lm.arpa", check=True)
        return (tmp_path / "lm.arpa").read_text()

    return run


# ---- numbers -------------------------------------------------------------------------------------


def test_a_small_text_by_hand(make) -> None:
    arpa = make(SMALL)
    assert arpa.startswith("\\data\\\nngram 1=4\nngram 2=7\nngram 3=4\n\n\\1-grams:\n-0.4191293\t")
    assert arpa.endswith("\n\\end\\\n")
    rows = listed(arpa)
    assert rows["<s>"][0] == -99
    for gram, prob in BY_HAND.items():
        assert rows[gram][0] == pytest.approx(np.log10(prob), abs=1e-7)
    assert {row[1] for row in rows.values() if len(row) > 1} == {-0.30103}


def test_the_same_as_kenlm(make) -> None:
    arpa = make(letters(6, 60), "--unk")
    assert [int(line.split("=")[1]) for line in arpa.splitlines()[1:4]] == KENLM_COUNTS
    rows = listed(arpa)
    for line in KENLM.splitlines():
        log_prob, *gram = line.split()
        backoff = [float(gram.pop())] if gram[-1].startswith("-") else []
        assert rows[" ".join(gram)] == pytest.approx([float(log_prob), *backoff], abs=3e-7)


TEXTS = {
    "small": SMALL,
    "one sentence": "u1 a b c\n",
    "one token": "u1 a\n",
    "the same again": "u1 a b\nu2 a b\nu3 a b\nu4 a b\n",
    "one token repeated": f"u1 {'a ' * 50}\n",
    "some are empty": "u1\nu2 a b\nu3\nu4 b\n",
    "letters": letters(6, 60),
    "few letters": letters(2, 60),
}


@pytest.mark.parametrize("order", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "options", [[], ["--unk"], ["--vocab=TOKENS"], ["--vocab=TOKENS", "--unk"]]
)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_all_histories_add_up_to_1(
    execute, tmp_path: Path, text: str, options: list[str], order: int
) -> None:
    names = ["<blk>", *"abcdefghijklmnopqrstuvwxyz", "unseen"]
    if "--vocab=TOKENS" not in options:
        names = ["<blk>", *sorted({w for line in text.splitlines() for w in line.split()[1:]})]
    Tokens(names).save(tmp_path / "tokens.txt")
    (tmp_path / "text").write_text(text)
    options = [option.replace("TOKENS", str(tmp_path / "tokens.txt")) for option in options]
    arpa = tmp_path / "lm.arpa"
    done = execute("make_ngram_lm.py", f"--order={order}", *options, tmp_path / "text", arpa)
    assert done.status == 0, done.err
    if "--unk" in options:
        names.append("<unk>")
    model = read_arpa(arpa, Tokens(names))
    sums = np.exp(model.log_probs).sum(axis=1) + np.exp(model.final)
    np.testing.assert_allclose(sums, 1.0, atol=1e-6)
    assert np.all(model.log_probs[:, 1:] > -np.inf)


def test_unseen_tokens_of_the_vocabulary_share_what_discounts_leave(make, tmp_path: Path) -> None:
    Tokens(["<blk>", "a", "b", "x", "y"]).save(tmp_path / "tokens.txt")
    rows = listed(make(SMALL, f"--vocab={tmp_path}/tokens.txt"))
    assert rows["x"] == rows["y"] == [pytest.approx(np.log10(0.5 / 5), abs=1e-7)]
    assert "<blk>" not in rows
    assert "<unk>" not in rows


# ---- tokens and files ----------------------------------------------------------------------------


def test_a_text_of_words_becomes_characters_or_subwords(make, tmp_path: Path) -> None:
    text = "".join(f"u{n:02} the cat sat on the mat {n} times\n" for n in range(40))
    words = [line.split()[1:] for line in text.splitlines()]
    subwords = train_sentencepiece(words, kind="bpe", vocab_size=26)
    for tokens in (Tokens.from_characters(words), subwords):
        tokens.save(tmp_path / f"{tokens.kind}.txt")
        rows = listed(make(text, f"--vocab={tmp_path}/{tokens.kind}.txt"))
        assert {gram for gram in rows if " " not in gram} == {"<s>", "</s>", *tokens.symbols[1:]}
        first = [tokens.symbols[i] for i in tokens.encode(words[0])]
        assert " ".join(["<s>", *first[:2]]) in rows
        read_arpa(tmp_path / "lm.arpa", tokens)


def test_phones_that_the_vocabulary_lacks_count_as_unk(make, tmp_path: Path) -> None:
    Tokens(["<blk>", "a"]).save(tmp_path / "tokens.txt")
    as_unk = make(SMALL, f"--vocab={tmp_path}/tokens.txt", "--unk")
    assert as_unk == make(SMALL.replace("b", "<unk>"), "--unk")


def test_an_rspecifier_stdin_stdout_and_pipes(run_bin, tmp_path: Path) -> None:
    text, path = tmp_path / "text", tmp_path / "lm.arpa.gz"
    text.write_text(SMALL)
    out = run_bin("make_ngram_lm.py", "-", "-", stdin=SMALL.encode(), check=True).stdout
    assert out == run_bin("make_ngram_lm.py", f"ark:{text}", "-", check=True).stdout
    run_bin("make_ngram_lm.py", f"cat {text} |", f"| gzip -c > {path}", check=True)
    tokens = Tokens(["<blk>", "a", "b"])
    zipped = read_arpa(path, tokens)
    (tmp_path / "lm.arpa").write_bytes(out)
    for one, other in zip(zipped, read_arpa(tmp_path / "lm.arpa", tokens), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_text_gives_the_same_bytes(make) -> None:
    assert len({make(letters(3, 100), "--order=4") for _ in range(3)}) == 1


def test_what_is_said(run_bin) -> None:
    done = run_bin("make_ngram_lm.py", "--order=5", "-", "-", stdin=b"u1 a b\n", check=True)
    lines = done.stderr.decode().splitlines()
    assert "no sentence has 5-grams; the order of the model is 4" in lines[0]
    assert lines[1].endswith("1-grams: 3, discounts 0.5000 1.0000 1.5000")
    assert lines[-1].endswith("Done 1 utterances, 0 failed, 9 n-grams of 2 tokens: -")


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text", "code", "words"),
    [
        ([], "", 1, "nothing was done"),
        ([], "u1\nu2\n", 1, "there are no tokens to learn from; give another text"),
        ([], "u1 a\n\nu2 b\n", 1, "text:2: the line is empty"),
        ([], "u1 a\nu1 b\n", 1, "u1 occurs twice"),
        ([], "u1 a\nu2 a <s>\n", 1, 'text: u2: "<s>" has a special meaning in models; remove it'),
        ([], "u1 <unk>\n", 1, '"<unk>" has a special meaning in models; give --unk'),
        (["--vocab=tokens.txt"], "u1 a\nu2 b c\n", 1, 'text: u2: unknown phone "c"'),
        (["--vocab=none.txt"], "u1 a\n", 1, "none.txt: cannot read these tokens"),
        (["--order=0"], "u1 a\n", 2, "Invalid value for '--order'"),
        (["--order=three"], "u1 a\n", 2, "Invalid value for '--order'"),
    ],
)
def test_errors_leave_nothing(
    run_bin, tmp_path: Path, options: list[str], text: str, code: int, words: str
) -> None:
    Tokens(["<blk>", "a", "b"]).save(tmp_path / "tokens.txt")
    (tmp_path / "text").write_text(text)
    done = run_bin("make_ngram_lm.py", *options, "text", "lm.arpa", cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text", "tokens.txt"]


def test_files_that_are_absent(run_bin, tmp_path: Path) -> None:
    done = run_bin("make_ngram_lm.py", "none", "lm.arpa", cwd=tmp_path)
    assert (done.returncode, b"none: " in done.stderr) == (1, True)
    done = run_bin("make_ngram_lm.py", "-", "none/lm.arpa", cwd=tmp_path, stdin=b"u1 a\n")
    assert (done.returncode, b"none/lm.arpa: " in done.stderr) == (1, True)
    assert not list(tmp_path.iterdir())
