"""Language models for shallow fusion: ARPA files, and networks of train_predictor.py."""

from pathlib import Path

import numpy as np
import torch

from pipeline.decoding.decode_options import SearchOptions
from pipeline.errors import ModelError, UsageError
from pipeline.kernels.search.fusion import NO_FUSION, Automaton, Fusion
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.kernels.search.words import WordAutomaton, Words
from pipeline.models.model_dir import ModelDir
from pipeline.nn.models import PredictorModel
from pipeline.text.ngram import read_arpa
from pipeline.text.tokens import Tokens
from pipeline.text.word_ngram import read_word_ngram


def load_fusion(options: SearchOptions, tokens: Tokens, device: torch.device) -> Fusion:
    """Load the language model of ``--lm`` or ``--word-lm``.

    Args:
        options: which model, its weight, and the bonuses.
        tokens: the tokens of the recogniser.
        device: the device on which a network computes.

    Raises:
        UsageError: the weight is negative, or the tokens spell no words.
        DataError, ModelError: the model cannot be read or has other tokens or units.
    """
    path, weight, bonus = options.lm, options.lm_weight, options.insertion_bonus
    if weight < 0:
        raise UsageError(f"--lm-weight must be 0 or more, not {weight:g}")
    if options.word_lm:
        return word_fusion(
            options.word_lm,
            tokens,
            weight=weight,
            bonus=bonus,
            word_bonus=options.word_bonus,
            only_known=options.only_known_words,
        )
    if not path:
        return Fusion(bonus=bonus) if bonus else NO_FUSION
    if not Path(path).is_dir():
        return Fusion(Automaton(*read_arpa(path, tokens)), weight, bonus)
    directory = ModelDir.open(path, kind="predictor")
    if directory.tokens != tokens:
        raise ModelError(f"{path}: has other tokens than the recogniser")
    model = directory.load_model(device)
    assert isinstance(model, PredictorModel)
    return Fusion(None, weight, bonus, model.search_weights())


def word_fusion(
    path: str,
    tokens: Tokens,
    *,
    weight: float,
    word_bonus: float,
    bonus: float,
    only_known: bool,
) -> Fusion:
    """Load the language model of ``--word-lm``.

    Args:
        path: an ARPA file over words.
        tokens: the tokens of the recogniser, which spell the words.
        weight: the weight α of log P(y) in the score, ``--lm-weight``.
        word_bonus: the bonus β for each word in nats, ``--word-bonus``.
        bonus: the bonus for each token in nats, ``--insertion-bonus``.
        only_known: whether words outside the model are impossible, ``--only-known-words``.

    Raises:
        UsageError: the tokens spell no words.
        DataError: the model cannot be read, or is of other units.
    """
    model = read_word_ngram(path, tokens, only_known=only_known)
    trie, lexicon = model.trie, model.lexicon
    words = Words(
        lexicon.opens, lexicon.starts, lexicon.chars,
        lexicon.first, lexicon.labels, lexicon.word,
        trie.first, trie.words, trie.log_probs, trie.backoffs, trie.shorter,
        np.array([model.start, model.end, model.unk, trie.vocab, trie.top], np.int64),
        np.array([weight, word_bonus]),
    )  # fmt: skip
    return Fusion(bonus=bonus, words=words)


def by_words(
    hypotheses: list[Hypothesis], words: Words, *, length_normalise: bool
) -> list[Hypothesis]:
    """Hypotheses of a search without words, ranked with what their words add.

    Those that it makes impossible are left out.
    """
    automaton = WordAutomaton(words, np.zeros(len(words.opens)))
    scored = [h._replace(fused=h.fused + automaton.added_by(h.tokens)) for h in hypotheses]
    possible = [h for h in scored if h.score > -np.inf]
    return sorted(possible, key=lambda h: -(h.normalised if length_normalise else h.score))
