"""ARPA files over words: read as columns, and looked up in tries; their errors."""

import gzip
import importlib
import logging
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.text import arpa as arpa_files
from pipeline.text.arpa import Table, read_columns, read_tables
from pipeline.text.tokens import Tokens
from pipeline.text.word_ngram import Trie, WordNGram, make_trie, read_word_ngram

CHARS = Tokens.from_characters([["abcd"], ["a", "b"]])
WORDS = ["<s>", "</s>", "<unk>", "a", "ab", "cab", "dab", "bad", "b"]


def random_tables(seed: int, order: int) -> list[Table]:
    """N-grams drawn at random: some begin or end with n-grams that are not listed."""
    g = random.Random(seed)
    tables: list[Table] = [{(w,): (g.uniform(-3, -0.1), g.choice([0.0, -0.5])) for w in WORDS}]
    for n in range(2, order + 1):
        grams = {tuple(g.choice(WORDS) for _ in range(n)) for _ in range(25)}
        tables.append({gram: (g.uniform(-3, -0.1), g.uniform(-1, 0.2)) for gram in sorted(grams)})
    return tables


def write_arpa(path: Path, tables: list[Table]) -> Path:
    lines = ["\\data\\", *(f"ngram {n}={len(table)}" for n, table in enumerate(tables, 1))]
    for n, table in enumerate(tables, 1):
        lines += ["", f"\\{n}-grams:"]
        for gram, (log_prob, backoff) in table.items():
            ends = f"\t{backoff!r}" if n < len(tables) and backoff else ""
            lines.append(f"{log_prob!r}\t{' '.join(gram)}{ends}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))
    return path


def log10_prob(tables: list[Table], history: tuple[str, ...], word: str) -> float:
    gram = (*history, word)
    if gram in tables[len(gram) - 1]:
        return tables[len(gram) - 1][gram][0]
    if not history:
        return -math.inf
    backoff = tables[len(history) - 1].get(history, (0.0, 0.0))[1]
    return backoff + log10_prob(tables, history[1:], word)


def look_up(trie: Trie, node: int, word: int) -> tuple[float, int]:
    """ln P(w|h) and the history after w, as a search does it."""
    total = 0.0
    while node:
        low, high = trie.first[node : node + 2].tolist()
        place = low + int(np.searchsorted(trie.words[low:high], word))
        if place < high and trie.words[place] == word:
            child = 1 + trie.vocab + place
            break
        total += float(trie.backoffs[node])
        node = int(trie.shorter[node])
    else:
        child = 1 + word
    after = child if child < trie.top else int(trie.shorter[child])
    return total + float(trie.log_probs[child]), after


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_the_trie_has_the_probabilities_of_the_back_off_rule(
    tmp_path: Path, order: int, seed: int
) -> None:
    tables = random_tables(seed, order)
    columns = read_columns(write_arpa(tmp_path / "lm.arpa", tables))
    trie, g = make_trie(columns), random.Random(seed)
    assert trie.log_probs.shape == trie.backoffs.shape == trie.shorter.shape
    for _ in range(60):
        sentence = [g.choice(WORDS[2:]) for _ in range(7)]
        node, history = (1 + WORDS.index("<s>") if order > 1 else 0), ("<s>",)
        for word in [*sentence, "</s>"]:
            expected = log10_prob(tables, history[-(order - 1) :] if order > 1 else (), word)
            found, node = look_up(trie, node, WORDS.index(word))
            assert found / math.log(10.0) == pytest.approx(expected, abs=1e-9)
            history = (*history, word)


@pytest.mark.parametrize("seed", range(3))
def test_columns_are_the_tables(tmp_path: Path, seed: int, monkeypatch) -> None:
    path = write_arpa(tmp_path / "lm.arpa", random_tables(seed, 3))
    tables = read_tables(path)
    zipped = tmp_path / "lm.arpa.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    odd = tmp_path / "odd.arpa"  # leading blanks, which only the reader of lines takes
    odd.write_text(re.sub(r"(?m)^(\\\d)", r" \1", path.read_text()))
    for file, by_lines in ((path, False), (zipped, False), (odd, True)):
        with monkeypatch.context() as patch:
            if not by_lines:
                patch.setattr(arpa_files, "read_tables", None)  # is not needed
            found = read_columns(file)
        assert found.words == WORDS
        for order, table in zip(found.orders, tables, strict=True):
            grams = [tuple(WORDS[i] for i in row) for row in order.ids.tolist()]
            numbers = zip(order.log_probs.tolist(), order.backoffs.tolist(), strict=True)
            assert dict(zip(grams, numbers, strict=True)) == table


def spelt(model: WordNGram, word: str, tokens: Tokens) -> int:
    """The word where a spelling ends; -1: none, -2: outside the lexicon."""
    lexicon, node = model.lexicon, 0
    for k in tokens.encode([word]):
        for char in lexicon.chars[lexicon.starts[k] : lexicon.starts[k + 1]].tolist():
            low, high = lexicon.first[node : node + 2].tolist()
            places = [e for e in range(low, high) if lexicon.labels[e] == char]
            if not places:
                return -2
            node = 1 + places[0]
    return int(lexicon.word[node])


def test_the_lexicon_has_the_words_that_can_be_spelt(tmp_path: Path, caplog) -> None:
    tables = random_tables(0, 2)
    tables[0]["über",] = (-1.0, 0.0)
    tables[0]["d'abc",] = (-1.0, 0.0)
    path = write_arpa(tmp_path / "lm.arpa", tables)
    for tokens in (CHARS, Tokens.from_bigrams([["abcd", "b"]])):
        with caplog.at_level(logging.INFO):
            model = read_word_ngram(path, tokens)
        assert "left out: 2 words that" in caplog.text
        for word in ("a", "ab", "cab", "dab", "bad", "b"):
            assert spelt(model, word, tokens) == WORDS.index(word)
        assert spelt(model, "ca", tokens) == -1
        assert spelt(model, "aa", tokens) == spelt(model, "cabb", tokens) == -2
        assert model.unk == WORDS.index("<unk>")
        assert model.end == WORDS.index("</s>")
        assert model.start == 1 + WORDS.index("<s>")
        assert read_word_ngram(path, tokens, only_known=True).unk == -1


def test_a_model_without_the_words_of_its_kind(tmp_path: Path, caplog) -> None:
    tables = [{(w,): (-1.0, 0.0) for w in ("a", "ab", "cab")}]
    model = read_word_ngram(write_arpa(tmp_path / "lm.arpa", tables), CHARS)
    assert (model.start, model.end, model.unk) == (0, -1, -1)
    assert "has no <unk>: hypotheses hold only its words" in caplog.text


def test_models_of_other_units_are_errors(tmp_path: Path) -> None:
    path = write_arpa(tmp_path / "lm.arpa", random_tables(0, 2))
    capitals = Tokens.from_characters([["ABCD"], ["A", "B"]])
    with pytest.raises(DataError, match=r'6 of its 6 words cannot be spelt by .*"a", "ab"'):
        read_word_ngram(path, capitals)
    for tokens in (Tokens.from_text([["a", "b"]]), Tokens.from_characters([["我们"]])):
        with pytest.raises(UsageError, match="spell no words between blanks; give a model over"):
            read_word_ngram(path, tokens)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ngram 1=9", "ngram 1=10", "found 9 1-grams, but the head states 10"),
        ("\\end\\", "", "truncated: there is no line"),
        ("\\1-grams:\n-", "\\1-grams:\nx", "is not a logarithm"),
        ("\tab", "\tnew", '"ab" is not among the 1-grams'),
        ("\tab", "\ta", '"a" occurs twice'),
        ("\\data\\", "data", "is this an ARPA file"),
        ("\\1-grams:\n-", "\\1-grams:\n9", "a probability above 1"),
        ("\tcab", "\tcab bad", "must hold log10 P, 1 word"),
        ("\tcab", "\t\ufeffcab\r", "carriage return"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_line(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = write_arpa(tmp_path / "lm.arpa", random_tables(0, 2))
    path.write_text(path.read_text().replace(old, new, 1), newline="")
    with pytest.raises(DataError, match=re.escape(words)) as error:
        read_columns(path)
    assert str(error.value).startswith(str(path))


def test_an_n_gram_twice(tmp_path: Path) -> None:
    path = write_arpa(tmp_path / "lm.arpa", random_tables(0, 2))
    lines = path.read_text().splitlines()
    lines[-3] = lines[-4]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="occurs twice; keep one of the lines"):
        read_columns(path)


def test_kenlm_gives_the_same_probabilities(tmp_path: Path, make_arpa) -> None:
    kenlm = pytest.importorskip("kenlm")
    path, sentences = make_arpa(tmp_path)
    model, trie = kenlm.Model(str(path)), make_trie(read_columns(path))
    words = {word: n for n, word in enumerate(read_columns(path).words)}
    for sentence in sentences:
        node, total = 1 + words["<s>"], 0.0
        for word in [*sentence, "</s>"]:
            log_prob, node = look_up(trie, node, words.get(word, words["<unk>"]))
            total += log_prob / math.log(10.0)
        assert model.score(" ".join(sentence)) == pytest.approx(total, rel=1e-5)


@pytest.fixture
def make_arpa(monkeypatch):
    """A synthetic file, and sentences of its words and others."""

    def make(folder: Path) -> tuple[Path, list[list[str]]]:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
        path, g = folder / "synthetic.arpa", random.Random(0)
        importlib.import_module("synthetic_arpa").write(str(path), words=300, length=4000)
        known = [line.split()[1] for line in path.read_text().splitlines()[9:300]]
        return path, [[g.choice([*known, "qqq"]) for _ in range(8)] for _ in range(100)]

    return make


def test_the_synthetic_file_is_one(tmp_path: Path, make_arpa) -> None:
    path, _ = make_arpa(tmp_path)
    tables = read_tables(path)
    assert len(tables) == 3
    for longer, shorter in zip(tables[1:], tables, strict=False):
        assert all(gram[1:] in shorter and gram[:-1] in shorter for gram in longer)
