"""Search with a CTC network: the best path, a beam search over prefixes, prefix search, alignment.

The reference is `ctc_reference.py`. Engines: compiled for a CPU (`ctc_cpu.py`), and
NumPy (`ctc_plain.py`).

- [G13] A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
  2013, section 3.3: the beam search.
- [G12] A. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012, section 3.2: prefix
  search with a threshold of 0.995.
- [G06] A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist Temporal Classification",
  ICML 2006, section 3.2: the best path, and prefix search.

Everywhere: of equally probable hypotheses the shorter comes first, of equally long ones that whose
token ids are smaller where they first differ. Probabilities are equal if their float64 sums are.
Searches compute in float64 on the CPU, whatever the dtype and the device of the log-probabilities.
"""

import logging
import math
from collections.abc import Sequence
from types import ModuleType
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.engines import engine
from pipeline.kernels.search import ctc_plain
from pipeline.kernels.search.fusion import NO_FUSION, Automaton, Fusion, NetworkAutomaton
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.kernels.search.pruning import pruned

__all__ = ["ctc_align", "ctc_beam_search", "ctc_greedy", "ctc_prefix_search"]

log = logging.getLogger("pipeline")

Array = NDArray[np.float64]

MAX_BITS = 900.0  # log2 of the greatest sum of probabilities in prefix search
SMALLEST = 1e-250  # a smaller sum may have lost some of its terms


def ctc_greedy(log_probs: Tensor, lengths: Tensor, *, blank: int = 0) -> list[list[int]]:
    """The tokens of the best path, [G06]: each frame's best output, repeats merged, ∅ removed.

    Args:
        log_probs: log Pr(k|t), (N, T, V); anything in the padding.
        lengths: (N,) frames.
        blank: id of ∅.

    Returns:
        Token ids of each utterance; of equally probable outputs the first is taken.

    Raises:
        ValueError: shapes or lengths that do not fit; NaN, with its utterance and frame.
    """
    if log_probs.dim() != 3 or lengths.shape != log_probs.shape[:1]:
        raise ValueError(
            f"log_probs are (N, T, V) and lengths (N,), not {tuple(log_probs.shape)} and "
            f"{tuple(lengths.shape)}"
        )
    n, frames, vocab = log_probs.shape
    check_blank(blank, vocab)
    lengths = lengths.to(log_probs.device)
    if n and not 0 <= int(lengths.min()) <= int(lengths.max()) <= frames:
        raise ValueError(f"lengths must lie in 0 … {frames}")
    greatest, path = log_probs.max(dim=-1)
    inside = torch.arange(frames, device=path.device) < lengths[:, None]
    if bool((inside & greatest.isnan()).any()):
        utterance, frame = (inside & greatest.isnan()).nonzero()[0].tolist()
        raise ValueError(f"log_probs of utterance {utterance}, frame {frame} are NaN")
    kept = inside & (path != blank)
    kept[:, 1:] &= path[:, 1:] != path[:, :-1]
    counts = kept.sum(dim=1).tolist()
    return [part.tolist() for part in path[kept].cpu().split(counts)]


def ctc_beam_search(
    log_probs: ArrayLike | Tensor,
    *,
    beam: int,
    blank: int = 0,
    fusion: Fusion = NO_FUSION,
    length_normalise: bool = False,
    token_mass: float = 1.0,
    max_tokens: int = 0,
) -> list[Hypothesis]:
    """Beam search of [G13] with Pr(k|t, u) = Pr(k|t), over prefixes as CTC spells them.

    Paths that spell the same prefix are summed. After each frame the ``beam`` prefixes with the
    best scores are kept, a score being the logarithm of that sum and what is fused; so a
    hypothesis has at most its exact probability, and all of it if nothing was cut. Ties (see
    above) are settled in the same way where the beam is cut.

    Args:
        log_probs: log Pr(k|t), (T, V), normalised or not. Minus infinity is an impossible label;
            so is whatever lies 5e11 or more below the greatest of its frame.
        beam: number of prefixes kept after each frame.
        blank: id of ∅.
        fusion: a language model and a bonus. Each token adds its share to the score by which
            prefixes are kept; the end of the sequence adds its own after the last frame.
        length_normalise: sort by score / |y| ([G12]), not by score ([G13]).
        token_mass: probability of a frame's most probable outputs, beyond which its other tokens
            are left out; see `pruning.py`.
        max_tokens: number of tokens that a frame keeps at most; 0: any number.

    Returns:
        At most ``beam`` hypotheses, best first, none of probability 0: an empty list if every
        string is impossible.

    Raises:
        ValueError: a beam below 1; a mass or a number of tokens out of range; a blank or shapes
            that do not fit; NaN or plus infinity, with its frame.
    """
    if beam < 1:
        raise ValueError(f"beam must be 1 or more, not {beam}")
    matrix, tops = checked(log_probs, blank)
    matrix = pruned(matrix, blank=blank, mass=token_mass, most=max_tokens)
    model, kernels = fusion.tables(matrix.shape[1]), search_engine(matrix)
    if fusion.network is not None:
        model, kernels = cast(Automaton, NetworkAutomaton(fusion, blank)), ctc_plain
    if -np.inf in tops:
        return []
    shift = math.fsum(tops)
    found = kernels.beam_search(matrix, tops, beam, blank, model)
    return ranked(found, shift, model, length_normalise=length_normalise)


def ctc_prefix_search(
    log_probs: ArrayLike | Tensor,
    *,
    blank: int = 0,
    threshold: float = 0.995,
    max_expansions: int = 10_000,
) -> list[Hypothesis]:
    """Prefix search of [G06], the utterance cut into sections as in [G12].

    At a frame with Pr(∅|t) above the threshold the utterance is cut: only paths that have ∅ there
    are counted. The frames between two cuts are a section, whose most probable string is found
    exactly, by a best-first search: prefixes are expanded in the order of the probability that the
    string begins with them and does not end there, until that of none exceeds the probability of
    the best string.

    The time this takes can grow exponentially with the length of a section. So in each at most
    ``max_expansions`` prefixes are expanded. A section that needs more is logged, and the most
    probable string met so far, or that of the best path if it is more probable, taken in its place.

    Args:
        log_probs: log Pr(k|t), (T, V), see `ctc_beam_search`; normalised, if the threshold is to
            mean anything.
        blank: id of ∅.
        threshold: 0 … 1; at 1 nothing is cut.
        max_expansions: 1 or more; each takes time and memory in proportion to the section's frames.

    Returns:
        One hypothesis: the strings of all sections after each other, and the sum of their exact
        log-probabilities and of those of ∅ at the cuts; at most log Pr(y|x) of the whole string.
        An empty list if every string is impossible.

    Raises:
        ValueError: a threshold or a limit out of range, and as `ctc_beam_search`.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must lie in 0 … 1, not {threshold}")
    if max_expansions < 1:
        raise ValueError(f"max_expansions must be 1 or more, not {max_expansions}")
    matrix, tops = checked(log_probs, blank)
    if -np.inf in tops:
        return []
    null = matrix[:, blank]
    is_cut = null > (math.log(threshold) if threshold > 0.0 else -math.inf)
    is_cut &= threshold < 1.0
    sections = np.flatnonzero(np.diff(is_cut, prepend=True, append=True)).reshape(-1, 2)
    rows, scale = _scaled(matrix, tops, sections)
    found = search_engine(matrix).prefix_search(rows, sections, blank, max_expansions)
    tokens: list[int] = []
    parts = np.where(is_cut, null, scale).tolist()
    for (first, last), (string, probability, is_complete) in zip(
        sections.tolist(), found, strict=True
    ):
        if is_complete and probability > SMALLEST:
            parts.append(math.log(probability))
        else:
            string, log_prob = _make_do(matrix[first:last], string, blank, max_expansions)
            parts[first:last] = [log_prob] + [0.0] * (last - first - 1)
        tokens += string
    return [Hypothesis(tuple(tokens), math.fsum(parts))]


def ctc_align(
    log_probs: ArrayLike | Tensor, tokens: Sequence[int], *, blank: int = 0
) -> list[tuple[int, int]]:
    """When each token is spoken on the most probable path that spells them (Viterbi).

    Args:
        log_probs: log Pr(k|t), (T, V); see `ctc_beam_search`.
        tokens: token ids y.
        blank: id of ∅.

    Returns:
        The first frame of each token and the one past its last. Of equally probable paths that is
        taken which, read from the end, stays in each state the longest.

    Raises:
        ValueError: no path spells the tokens; ids that do not fit; and as `ctc_beam_search`.
    """
    matrix, _ = checked(log_probs, blank)
    wrong = [k for k in tokens if not 0 <= k < matrix.shape[1] or k == blank]
    if wrong:
        raise ValueError(f"{wrong[0]} is no token of {matrix.shape[1]} outputs with blank {blank}")
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    path = _viterbi(matrix[:, states], states)
    if path is None:
        raise ValueError(f"no path of {len(matrix)} frames spells these {len(tokens)} tokens")
    numbers = np.arange(1, len(states), 2)
    starts, ends = np.searchsorted(path, numbers), np.searchsorted(path, numbers, "right")
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def ranked(
    found: list[ctc_plain.Entry], shift: float, model: Automaton, *, length_normalise: bool
) -> list[Hypothesis]:
    """The hypotheses of the last beam, best first.

    Args:
        found: the beam.
        shift: the logarithm of what its probabilities were divided by.
        model: what was fused; the end of the sequence adds its share here.
        length_normalise: see `ctc_beam_search`.
    """
    final = model.final
    hypotheses = [Hypothesis(y, own + shift, fused + float(final[s])) for y, own, fused, s in found]
    possible = [h for h in hypotheses if h.score > -math.inf]

    def rank(h: Hypothesis) -> tuple[float, int, tuple[int, ...]]:
        return -(h.normalised if length_normalise else h.score), len(h.tokens), h.tokens

    return sorted(possible, key=rank)


# ---- parts ---------------------------------------------------------------------------------------


def search_engine(matrix: Array) -> ModuleType:
    """The module that searches through such a matrix."""
    return engine("ctc_search", torch.from_numpy(matrix))


def checked(log_probs: ArrayLike | Tensor, blank: int) -> tuple[Array, Array]:
    """The log-probabilities as a matrix of float64, and the greatest of each frame."""
    if isinstance(log_probs, Tensor):
        log_probs = log_probs.detach().double().cpu().numpy()
    matrix = np.array(log_probs, dtype=np.float64, order="C")
    if matrix.ndim != 2:
        raise ValueError(f"log_probs are (T, V), not {matrix.shape}")
    check_blank(blank, matrix.shape[1])
    tops = matrix.max(axis=1)
    wrong = np.flatnonzero(~(tops < np.inf))
    if len(wrong):
        raise ValueError(f"log_probs of frame {wrong[0]} are NaN or plus infinity")
    return matrix, tops


def check_blank(blank: int, vocab: int) -> None:
    """Raise ValueError if the blank is no output."""
    if not 0 <= blank < vocab:
        raise ValueError(f"blank {blank} is no id of {vocab} outputs")


def _scaled(log_probs: Array, tops: Array, sections: NDArray[np.int64]) -> tuple[Array, Array]:
    """Pr(k|t) in a scale of each frame that keeps sums over paths in the range of float64.

    Over the greatest of the frame, so that the best path is 1; where the sum over all paths of a
    section would be too large, powers of two bring it down.

    Returns:
        The scaled Pr(k|t), and the logarithm of what each frame was divided by.
    """
    rows = np.exp(log_probs - tops[:, None])
    bits = np.log2(rows.sum(axis=1))
    before = np.append(0.0, bits.cumsum())
    scale = tops.copy()
    for first, last in sections[before[sections[:, 1]] - before[sections[:, 0]] > MAX_BITS]:
        so_far = bits[first:last].cumsum()
        halvings = np.diff(np.floor(so_far * (1.0 - MAX_BITS / so_far[-1])), prepend=0.0)
        rows[first:last] *= np.exp2(-halvings)[:, None]
        scale[first:last] += halvings * math.log(2.0)
    return rows, scale


def _make_do(
    log_probs: Array, found: tuple[int, ...], blank: int, limit: int
) -> tuple[tuple[int, ...], float]:
    """For a section whose search was cut short: the best string met, or that of the best path."""
    log.warning(
        "prefix search: a section of %d frames needs more than %d expansions", len(log_probs), limit
    )
    count = torch.tensor([len(log_probs)])
    path = ctc_greedy(torch.from_numpy(log_probs)[None], count, blank=blank)[0]
    log_prob, of_path = (_log_prob(log_probs, y, blank) for y in (found, path))
    return (tuple(path), of_path) if of_path > log_prob else (found, log_prob)


def _log_prob(log_probs: Array, tokens: Sequence[int], blank: int) -> float:
    targets = torch.tensor(tokens, dtype=torch.int64)
    counts = [len(log_probs)], [len(tokens)]
    loss = ctc_loss(torch.from_numpy(log_probs), targets, *counts, blank=blank, reduction="sum")
    return -float(loss)


def _viterbi(emitted: Array, states: NDArray[np.int64]) -> list[int] | None:
    """The state of each frame from the log-probabilities of all, (T, S); None: there is no path."""
    frames, count = emitted.shape
    barred = np.ones(count, bool)  # from being reached from two states before
    barred[3::2] = states[3::2] == states[1:-2:2]
    score = np.full(count + 2, -np.inf)  # two states in front are never reached
    score[2:4] = emitted[0, :2] if frames else (0.0, -np.inf)[:count]
    came = np.zeros((frames, count), np.int8)
    ways = np.empty((3, count))
    for t in range(1, frames):
        ways[0], ways[1], ways[2] = score[2:], score[1:-1], score[:-2]
        ways[2, barred] = -np.inf
        came[t] = ways.argmax(axis=0)
        score[2:] = ways.max(axis=0) + emitted[t]
    state = count - 1 if count == 1 or score[-1] >= score[-2] else count - 2
    if score[state + 2] == -np.inf:
        return None
    path = [0] * frames
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state -= int(came[t, state])
    return path
