"""N-gram models: ARPA files compared with numbers by hand and with the back-off rule."""

import gzip
import logging
import math
import random
from pathlib import Path

import numpy as np
import pytest

import pipeline.text.ngram
from pipeline.errors import DataError
from pipeline.text.ngram import NGram, read_arpa
from pipeline.text.tokens import Tokens

AB = Tokens(["<blk>", "a", "b"], where="tokens.txt")

# P(a) = 1/4, P(b) = 1/2, P(</s>) = 1/4; after a: P(b) = 1/10, P(</s>) = 1/5; first: P(a) = 9/10.
GOLDEN = """\
\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-0.6020600\t</s>
-99\t<s>\t-0.3010300
-0.6020600\ta\t-0.1
-0.3010300\tb

\\2-grams:
-0.0457575\t<s> a
-1.0000000\ta b
-0.6989700\ta </s>

\\end\\
"""


def write(tmp_path: Path, text: str | bytes, name: str = "lm.arpa") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def path_sum(model: NGram, ids: list[int], *, ends: bool = True) -> float:
    """log P of a sequence along its states."""
    state, total = model.start, 0.0
    for k in ids:
        total += float(model.log_probs[state, k])
        state = int(model.following[state, k])
    return total + (float(model.final[state]) if ends else 0.0)


# ---- numbers by hand -----------------------------------------------------------------------------


def test_a_bigram_by_hand(tmp_path: Path) -> None:
    model = read_arpa(write(tmp_path, GOLDEN), AB)
    bow_a = 10**-0.1
    # The states: nothing known (also after b, which continues in no 2-gram), <s>, a.
    probs = [[0, 1 / 4, 1 / 2], [0, 9 / 10, 1 / 4], [0, bow_a / 4, 1 / 10]]
    np.testing.assert_allclose(np.exp(model.log_probs), probs, rtol=1e-6)
    np.testing.assert_allclose(np.exp(model.final), [1 / 4, 1 / 8, 1 / 5], rtol=1e-6)
    assert model.following.tolist() == [[0, 2, 0], [1, 2, 0], [2, 2, 0]]
    assert model.start == 1
    assert path_sum(model, [1, 1, 2]) == pytest.approx(math.log(0.9 * bow_a / 4 / 10 / 4))
    assert model.log_probs.dtype == model.final.dtype == np.float64
    assert model.following.dtype == np.int32


def test_the_fields_are_those_of_the_search() -> None:
    from pipeline.kernels.search.fusion import Automaton

    assert NGram._fields == Automaton._fields


def test_gzip_carriage_returns_and_text_around_it_change_nothing(tmp_path: Path) -> None:
    model = read_arpa(write(tmp_path, GOLDEN), AB)
    around = b"made by \xe9 hand\nngram 1=7\n\n" + GOLDEN.encode() + b"what follows\n"
    for content in (gzip.compress(GOLDEN.encode()), GOLDEN.replace("\n", "\r\n"), around):
        for one, other in zip(model, read_arpa(write(tmp_path, content), AB), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_model_that_knows_no_start_and_no_end(tmp_path: Path) -> None:
    text = "\\data\\\nngram 1 = 2\n\\1-grams:\n-0.30103 a\n-0.30103 b\n\\end\\\n"
    model = read_arpa(write(tmp_path, text), AB)
    np.testing.assert_allclose(np.exp(model.log_probs), [[0, 0.5, 0.5]], rtol=1e-6)
    assert model.final.tolist() == [0.0]
    assert model.start == 0


def test_probability_0_stays_so(tmp_path: Path) -> None:
    text = GOLDEN.replace("-0.3010300\tb", "-inf\tb")
    model = read_arpa(write(tmp_path, text), AB)
    assert model.log_probs[:, 2].tolist() == [-np.inf, -np.inf, pytest.approx(math.log(0.1))]


# ---- the rule of the back-off --------------------------------------------------------------------

WORDS = ["a", "b", "c", "d"]


def random_arpa(rng: random.Random, order: int, words: list[str]) -> str:
    """Any log10 P and back-off weights: the rule holds whether or not they add up to 1."""
    grams = [[("<s>",), ("</s>",), *((w,) for w in words)]]
    for n in range(2, order + 1):
        histories = [h for h in grams[-1] if h[-1] != "</s>"]
        longer = [(*h, w) for h in histories for w in [*words, "</s>"]]
        if rng.random() < 0.3:  # a file of a pruned model: histories that it does not list
            longer += [(*rng.choices(words, k=n - 1), w) for w in words]
        grams.append(sorted(set(rng.sample(longer, rng.randint(1, min(len(longer), 30))))))
    lines = ["\\data\\", *(f"ngram {n}={len(of)}" for n, of in enumerate(grams, start=1))]
    for n, of in enumerate(grams, start=1):
        lines += ["", f"\\{n}-grams:"]
        for gram in of:
            line = f"{-4 * rng.random():.6f} {' '.join(gram)}"
            has_backoff = n < order and rng.random() < 0.7
            lines.append(line + (f" {0.5 - rng.random():.6f}" if has_backoff else ""))
    return "\n".join([*lines, "", "\\end\\", ""])


def listed(text: str) -> dict[tuple[str, ...], tuple[float, float]]:
    """The n-grams of an ARPA file, read without checks."""
    table, n = {}, 0
    for line in text.splitlines():
        if line.endswith("-grams:"):
            n = int(line[1:].split("-")[0])
        elif n and line and not line.startswith("\\"):
            fields = line.split()
            backoff = float(fields[n + 1]) if len(fields) > n + 1 else 0.0
            table[tuple(fields[1 : n + 1])] = float(fields[0]), backoff
    return table


def by_the_rule(table: dict[tuple[str, ...], tuple[float, float]], gram: tuple[str, ...]) -> float:
    """log10 P of the last word after the others."""
    if gram in table:
        return table[gram][0]
    return table.get(gram[:-1], (0.0, 0.0))[1] + by_the_rule(table, gram[1:])


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(8))
def test_paths_add_up_as_the_rule_says(tmp_path: Path, seed: int, order: int) -> None:
    rng = random.Random(100 * order + seed)
    text = random_arpa(rng, order, WORDS)
    table = listed(text)
    tokens = Tokens(["<blk>", *reversed(WORDS)])
    model = read_arpa(write(tmp_path, text), tokens)
    for _ in range(100):
        words = tuple(rng.choices(WORDS, k=rng.randint(0, 12)))
        marked = ("<s>", *words, "</s>")
        wanted = sum(
            by_the_rule(table, marked[max(0, i - order + 1) : i + 1]) for i in range(1, len(marked))
        )
        found = path_sum(model, tokens.encode(words))
        assert found == pytest.approx(wanted * math.log(10), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_unknown_tokens_count_as_unk_in_histories_too(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    text = random_arpa(rng, 3, ["a", "b", "<unk>"])
    tokens = Tokens(["<blk>", "a", "x", "b", "y"])
    as_unk = Tokens(["<blk>", "a", "<unk>", "b"])
    model = read_arpa(write(tmp_path, text), tokens)
    direct = read_arpa(tmp_path / "lm.arpa", as_unk)
    for _ in range(50):
        words = rng.choices(["a", "b", "x", "y"], k=8)
        known = [word if word in "ab" else "<unk>" for word in words]
        found = path_sum(model, tokens.encode(words))
        assert found == path_sum(direct, as_unk.encode(known))


# ---- words and tokens ----------------------------------------------------------------------------


def test_tokens_that_it_lacks_are_impossible_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = Tokens(["<blk>", *"abcdefgh"])
    with caplog.at_level(logging.WARNING, "pipeline"):
        model = read_arpa(write(tmp_path, GOLDEN), more)
    assert np.all(model.log_probs[:, 3:] == -np.inf)
    assert np.all(model.following[:, 3:] == 0)
    words = 'the model lacks these tokens, which are impossible: "c", "d", "e", "f", "g" and 1 more'
    assert words in caplog.text
    caplog.clear()
    text = GOLDEN.replace("ngram 1=4", "ngram 1=5").replace("-99\t", "-3\t<UNK>\n-99\t")
    with caplog.at_level(logging.WARNING, "pipeline"):
        model = read_arpa(write(tmp_path, text), more)
    np.testing.assert_allclose(np.exp(model.log_probs[0, 3:]), 1e-3)
    assert "which count as <UNK>" in caplog.text


def test_nothing_is_said_of_a_model_that_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "pipeline"):
        read_arpa(write(tmp_path, GOLDEN), AB)
    assert caplog.text == ""


def test_what_is_listed_with_marks_is_passed_over(tmp_path: Path) -> None:
    text = GOLDEN.replace("ngram 1=4", "ngram 1=7").replace("ngram 2=3", "ngram 2=6")
    text = text.replace("-99\t", "-1 <eps> -0.5\n-1 <blk> -0.5\n-1 <unk> -0.5\n-99\t")
    text = text.replace("\\2-grams:\n", "\\2-grams:\n-1 <eps> a\n-1 a <blk>\n-1 b <s>\n")
    marked = read_arpa(write(tmp_path, text), AB)
    model = read_arpa(write(tmp_path, GOLDEN), AB)
    for gram in ([1, 2], [2, 1, 1], [2, 2], []):
        assert path_sum(marked, gram) == path_sum(model, gram)


def test_words_that_are_no_tokens_are_an_error(tmp_path: Path) -> None:
    text = GOLDEN.replace("\tb", "\tx").replace(" b", " x")
    with pytest.raises(
        DataError,
        match=r'lm\.arpa: has words that are not tokens of tokens\.txt: "x"; make the mod',
    ):
        read_arpa(write(tmp_path, text), AB)


# ---- errors --------------------------------------------------------------------------------------

NO_BACKOFF = GOLDEN.replace("\t-0.3010300\n", "\n").replace("\t-0.1\n", "\n")
TWICE = GOLDEN.replace("-1.0000000\ta b", "-1.0000000\ta </s>")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r": there is no line \data\; is this an ARPA file?"),
        ("utt1 a b\nutt2 b\n", r": there is no line \data\; is this an ARPA file?"),
        (bytes(range(256)), r": there is no line \data\; is this an ARPA file?"),
        (GOLDEN.replace("\\data", "\\DATA"), r": there is no line \data\; is this an ARPA file?"),
        (GOLDEN.replace("\\end\\", ""), r": truncated: there is no line \end\; make it again"),
        (GOLDEN[: GOLDEN.index("-0.6989")], r": truncated: there is no line \end\; make it again"),
        (GOLDEN[: GOLDEN.index("\n\n")], r": truncated: there is no line \end\; make it again"),
        (
            GOLDEN[: GOLDEN.index("</s>")],
            r":6: a line of \1-grams: must hold log10 P, 1 word and opt",
        ),
        (GOLDEN.replace("ngram 1=4\nngram 2=3", ""), ":4: expected `ngram 1=` and a number, not"),
        (GOLDEN.replace("ngram 1=4", "ngram 3=4"), ":2: expected ngram 1=, not ngram 3="),
        (GOLDEN.replace("ngram 2=3", "n 2=3"), r":3: expected \1-grams:, not 'n 2=3'"),
        (
            NO_BACKOFF.replace("ngram 2=3\n", ""),
            r":10: expected \end\, not '\\2-grams:'; is ngram 2=",
        ),
        (GOLDEN.replace("2=3", "2=3\nngram 3=1"), r":17: expected \3-grams:, not '\\end\\'"),
        (GOLDEN.replace("\\2-g", "\\3-g"), r":11: expected \2-grams:, not '\\3-grams:'"),
        (GOLDEN.replace("2=3", "2=4"), ":16: found 3 2-grams, but the head states 4; make"),
        (GOLDEN.replace("1=4", "1=3"), ":11: found 4 1-grams, but the head states 3; make"),
        (
            GOLDEN.replace("\t<s> a", "\t<s>"),
            r":12: a line of \2-grams: must hold log10 P, 2 words, not",
        ),
        (
            GOLDEN.replace("\ta b", "\ta b\t0"),
            r":13: a line of \2-grams: must hold log10 P, 2 words, not",
        ),
        (
            GOLDEN.replace("-0.1\n", "-0.1 0\n"),
            ":8: a line of \\1-grams: must hold log10 P, 1 word and optionally log10 of a back-off",
        ),
        (GOLDEN.replace("-99", "minus"), ":7: 'minus' is not a logarithm; make"),
        (GOLDEN.replace("-99", "nan"), ":7: 'nan' is not a logarithm; make"),
        (GOLDEN.replace("-0.1\n", "inf\n"), ":8: 'inf' is not a logarithm; make"),
        (GOLDEN.replace("-0.1\n", "NaN\n"), ":8: 'NaN' is not a logarithm; make"),
        (GOLDEN.replace("-99", "0.25"), ":7: log10 P = 0.25 is a probability above 1; make"),
        (TWICE, ':14: "a </s>" occurs twice; keep one of the lines'),
        (GOLDEN.replace("\t<s> a", "\t<s> x"), ':12: "x" is not among the 1-grams; make'),
        (GOLDEN.encode().replace(b"\tb", b"\t\xff"), ":9: not UTF-8; convert the file with iconv"),
        (
            gzip.compress(GOLDEN.encode(), mtime=0)[:60],
            ": cannot read this language model: Compressed file",
        ),
        (b"\x1f\x8b" * 9, ": cannot read this language model: Unknown compression method"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_arpa(path, AB)
    assert str(error.value).startswith(f"{path}{words}")


def test_a_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.arpa: cannot read this language model: No such file"):
        read_arpa(tmp_path / "no.arpa", AB)
    with pytest.raises(DataError, match="cannot read this language model: Is a directory"):
        read_arpa(tmp_path, AB)


def test_a_model_that_is_too_big_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Tokens(["<blk>", "a", "b", *(f"x{i}" for i in range(10**5))])
    monkeypatch.setattr(pipeline.text.ngram, "MOST_BYTES", 3 * 12 * len(many))
    read_arpa(write(tmp_path, GOLDEN), many)
    monkeypatch.setattr(pipeline.text.ngram, "MOST_BYTES", 3 * 12 * len(many) - 1)
    words = r"3 histories of 100003 tokens would need 0\.0 GB, but at most 0\.00360011 GB are"
    with pytest.raises(DataError, match=words):
        read_arpa(write(tmp_path, GOLDEN), many)
