"""The search with a model over words: Q(y) by its definition, over all strings; the engines."""

import importlib.util
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline.decoding.language_model import word_fusion
from pipeline.kernels.search import ctc as ctc_search
from pipeline.kernels.search import ctc_plain, ctc_reference
from pipeline.kernels.search.ctc import ctc_beam_search
from pipeline.kernels.search.ctc_streams import CtcBeamStreams
from pipeline.kernels.search.fusion import Fusion
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.kernels.search.pruning import pruned
from pipeline.text.arpa import Table, read_tables
from pipeline.text.subwords import train_sentencepiece
from pipeline.text.tokens import Tokens

TEXTS = [["ab", "b"], ["b", "ab", "ba"], ["aab", "b"], ["a"], ["b", "b", "ab"]]
CHARS = Tokens.from_characters(TEXTS)
BIGRAMS = Tokens.from_bigrams(TEXTS)
SUBWORDS = train_sentencepiece(TEXTS, kind="bpe", vocab_size=6)
ALL = [CHARS, BIGRAMS, SUBWORDS]
KINDS = [tokens.kind for tokens in ALL]

ARPA = r"""\data\
ngram 1=7
ngram 2=6
ngram 3=3

\1-grams:
-99 <s> -0.3
-0.9 </s>
-1.2 <unk> -0.2
-0.7 ab -0.4
-0.6 b -0.1
-1.1 ba -0.25
-0.8 aab

\2-grams:
-0.5 <s> ab -0.15
-0.2 ab b -0.35
-0.6 b ab
-0.9 b </s>
-0.4 <unk> b -0.5
-0.3 b b -0.05

\3-grams:
-0.1 <s> ab b
-0.2 ab b b
-0.15 <unk> b </s>

\end\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "words.arpa"
    path.write_text(ARPA)
    return path


def modules() -> list[ModuleType]:
    if importlib.util.find_spec("numba") is None:
        return [ctc_plain]
    return [ctc_plain, importlib.import_module("pipeline.kernels.search.ctc_cpu")]


@pytest.fixture(params=modules(), ids=lambda m: m.__name__.rpartition("_")[2])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(ctc_search, "search_engine", lambda matrix: request.param)
    return request.param


# ---- the definition ------------------------------------------------------------------------------


def log10_prob(tables: list[Table], history: tuple[str, ...], word: str) -> float:
    """The back-off rule, word by word."""
    gram = (*history, word)
    if len(gram) <= len(tables) and gram in tables[len(gram) - 1]:
        return tables[len(gram) - 1][gram][0]
    if not history:
        return -math.inf
    of_history = tables[len(history) - 1] if len(history) <= len(tables) else {}
    return of_history.get(history, (0.0, 0.0))[1] + log10_prob(tables, history[1:], word)


def share(
    tables: list[Table], words: Sequence[str], alpha: float, beta: float, only_known: bool
) -> float:
    """α log P(y) + β wc(y), with the end of the sentence."""
    known = [word if (word,) in tables[0] else "<unk>" for word in words]
    if only_known and known != list(words):
        return -math.inf
    sentence = ("<s>", *known, "</s>")
    log10 = sum(
        log10_prob(tables, sentence[max(0, n - 2) : n], sentence[n])
        for n in range(1, len(sentence))
    )
    return alpha * log10 * math.log(10.0) + beta * len(words)


def by_definition(
    tokens: Tokens, tables: list[Table], log_probs: np.ndarray, *, alpha, beta, bonus, only_known
) -> list[Hypothesis]:
    found = []
    for y, log_prob in ctc_reference.all_strings(log_probs, len(log_probs)).items():
        fused = share(tables, tokens.decode(y), alpha, beta, only_known) + bonus * len(y)
        if fused > -math.inf:
            found.append(Hypothesis(y, log_prob, fused))
    return sorted(found, key=lambda h: (-h.score, len(h.tokens), h.tokens))


def random_log_probs(frames: int, vocab: int, seed: int) -> np.ndarray:
    logits = 1.5 * np.random.default_rng(seed).standard_normal((frames, vocab))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("tokens", ALL, ids=KINDS)
@pytest.mark.parametrize("only_known", [False, True])
@pytest.mark.parametrize(
    ("alpha", "beta", "bonus"), [(1.0, 0.0, 0.0), (0.7, 1.3, 0.0), (0.5, -0.8, 0.2), (0.0, 2.0, 0)]
)
def test_all_strings_have_the_score_of_the_definition(
    engine: ModuleType, arpa: Path, tokens: Tokens, only_known: bool, alpha, beta, bonus
) -> None:
    """A beam that keeps everything gives every string its exact Q(y), in order."""
    fusion = word_fusion(
        str(arpa), tokens, weight=alpha, word_bonus=beta, bonus=bonus, only_known=only_known
    )
    tables = read_tables(arpa)
    for seed in range(2):
        frames = 4 if len(tokens) > 5 else 5
        log_probs = random_log_probs(frames, len(tokens), seed)
        found = ctc_beam_search(log_probs, beam=10**4, fusion=fusion)
        scales = {"alpha": alpha, "beta": beta, "bonus": bonus}
        expected = by_definition(tokens, tables, log_probs, **scales, only_known=only_known)
        assert len(found) == len(expected) > 5
        assert [h.tokens for h in found[:50]] == [h.tokens for h in expected[:50]]
        for one in ("log_prob", "fused"):
            np.testing.assert_allclose(
                [getattr(h, one) for h in found], [getattr(h, one) for h in expected], rtol=1e-9
            )


@pytest.mark.parametrize("tokens", ALL, ids=KINDS)
@pytest.mark.parametrize("beam", [1, 3, 30])
def test_a_narrow_beam_is_that_of_the_reference(
    engine: ModuleType, arpa: Path, tokens: Tokens, beam: int
) -> None:
    for seed, only_known in itertools.product(range(3), [False, True]):
        fusion = word_fusion(
            str(arpa), tokens, weight=0.8, word_bonus=1.0, bonus=0.0, only_known=only_known
        )
        log_probs = random_log_probs(25, len(tokens), seed)
        found = ctc_beam_search(log_probs, beam=beam, fusion=fusion)
        expected = ctc_reference.beam_search(log_probs, beam, fusion=fusion)
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], rtol=1e-9)


def test_frames_in_chunks_are_those_of_the_whole(arpa: Path) -> None:
    fusion = word_fusion(str(arpa), CHARS, weight=0.8, word_bonus=1.0, bonus=0.0, only_known=False)
    random = np.random.default_rng(0)
    for pruning in ({}, {"token_mass": 0.9, "max_tokens": 2}):
        log_probs = random_log_probs(60, len(CHARS), 5)
        whole = ctc_beam_search(log_probs, beam=12, fusion=fusion, **pruning)
        search = CtcBeamStreams(len(CHARS), beam=12, fusion=fusion, **pruning)
        state = search.start()
        cuts = np.sort(random.integers(0, 61, 7)).tolist()
        for first, last in itertools.pairwise([0, *cuts, 60]):
            search.advance([state], [torch.from_numpy(log_probs[first:last])])
        assert search.result(state) == whole


def fewest(row: np.ndarray, mass: float, most: int) -> set[int]:
    """The fewest outputs of a frame that reach a share, as they are told."""
    share, kept = 0.0, set()
    for k in sorted(range(len(row)), key=lambda k: (-row[k], k)):
        if share >= mass * np.exp(row).sum() or (most and len(kept - {0}) == most and k):
            break
        share += np.exp(row[k])
        kept.add(k)
    return kept | {0}


@pytest.mark.parametrize(("mass", "most"), [(0.99, 40), (0.5, 0), (1.0, 3), (0.9, 2), (1e-9, 1)])
def test_the_fewest_tokens_that_reach_the_mass_are_kept(mass: float, most: int) -> None:
    log_probs = random_log_probs(50, 12, 3) + 2.5
    log_probs[7, 2:] = -np.inf
    kept = pruned(log_probs, blank=0, mass=mass, most=most)
    for row, before in zip(kept, log_probs, strict=True):
        stays = set(np.flatnonzero(row > -np.inf).tolist())
        assert stays == {k for k in fewest(before, mass, most) if before[k] > -np.inf}
        assert all(row[k] == before[k] for k in stays)


def test_nothing_is_pruned_without_being_asked() -> None:
    log_probs = random_log_probs(5, 4, 0)
    assert pruned(log_probs, blank=0) is log_probs
    for wrong in ({"mass": 0.0}, {"mass": 1.1}, {"most": -1}):
        with pytest.raises(ValueError, match="of tokens must"):
            pruned(log_probs, blank=0, **wrong)


def test_a_model_over_other_tokens(arpa: Path) -> None:
    fusion = word_fusion(str(arpa), CHARS, weight=1.0, word_bonus=0.0, bonus=0.0, only_known=False)
    with pytest.raises(ValueError, match="words spelt by 4 tokens, a network over 9"):
        ctc_beam_search(random_log_probs(3, 9, 0), beam=2, fusion=fusion)
    assert isinstance(fusion, Fusion)
