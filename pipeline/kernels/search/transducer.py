"""Search with a transducer: Algorithm 1 of [G12], and the greedy path.

The reference is `transducer_reference.py`. Engines: compiled for a peephole LSTM with either
joiner on a CPU (`transducer_cpu.py`), and one that calls any network on any device
(`transducer_plain.py`).
"""

import logging
from types import ModuleType

import torch
from torch import Tensor

from pipeline.kernels.engines import engine
from pipeline.kernels.search import transducer_plain
from pipeline.kernels.search.fusion import NO_FUSION, Fusion
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.kernels.search.model import Found, SearchModel, SearchWeights, Settings, State

__all__ = [
    "Hypothesis",
    "SearchModel",
    "SearchWeights",
    "State",
    "transducer_beam_search",
    "transducer_greedy",
]

log = logging.getLogger("pipeline")


def transducer_beam_search(
    frames: Tensor,
    lengths: Tensor,
    model: SearchModel,
    *,
    beam: int,
    blank: int = 0,
    length_normalise: bool = False,
    max_tokens_per_frame: int = 10,
    max_expansions: int | None = None,
    fusion: Fusion = NO_FUSION,
) -> list[list[Hypothesis]]:
    """Algorithm 1 of [G12], prefix sum included, for each utterance of a batch.

    As printed, a prefix is multiplied by Pr(∅|y, t) before its extensions are made from it; they
    are made from Pr(y) without that factor here, or no sum of paths would be Pr(y|x). An extension
    that is in A from the start is left as it is: the prefix sum has its paths already.

    What B holds at the end of a frame, the W most probable, does not depend on the order in which
    prefixes are taken from A, since none is more probable than the prefix it extends. So they are
    taken in batches, by the number of labels they add in this frame, and one that is less probable
    than the W-th of B so far is dropped with all its extensions. This changes no result.

    The algorithm as printed need not come to an end: labels whose probability stays at 1 are added
    for ever. So at most ``max_tokens_per_frame`` labels follow one another within a frame, and of
    the extensions by a 1st, 2nd, … label in a frame only the ``max_expansions`` most probable are
    followed. A warning is logged where that leaves something out.

    Of equally probable hypotheses the shorter is the better, of equally long ones that whose token
    ids are smaller at the first difference. Hypotheses of probability 0 are none: where everything
    is impossible, the list is empty.

    With a bonus above 0 an extension can be better than its prefix, and what falls below the W-th
    of B is lost all the same: then the search is an approximation.

    Args:
        frames: the joiner's encoder projections, (N, T, J).
        lengths: (N,) frames of each.
        model: predictor and joiner.
        beam: W, hypotheses kept after each frame.
        blank: id of ∅.
        length_normalise: sort by score / |y| ([G12]) and not by score ([G13]).
        max_tokens_per_frame: labels that one frame may add to a hypothesis.
        max_expansions: see above; None: 10 W + 1000.
        fusion: a language model and a bonus, by which hypotheses are also ranked.

    Returns:
        For each utterance at most W hypotheses, best first.

    Raises:
        ValueError: a bound below 1, lengths that do not fit, frames that are NaN.
    """
    counts = check_frames(frames, lengths)
    settings = search_settings(
        model, frames, beam, blank, max_tokens_per_frame, max_expansions, fusion
    )
    found = search_engine(frames, model).beam_search(frames, counts, model, settings)
    warn_of_bounds(sum(one.limit_hits for one in found), settings)
    return [ranked(one, settings, length_normalise) for one in found]


def transducer_greedy(
    frames: Tensor,
    lengths: Tensor,
    model: SearchModel,
    *,
    blank: int = 0,
    max_tokens_per_frame: int = 10,
) -> list[list[int]]:
    """The most probable token at each step, for a batch; an approximation of any search.

    Label by label: each utterance goes on to its next label alone, then the predictor reads the
    labels of all at once.

    Args:
        frames: the joiner's encoder projections, (N, T, J).
        lengths: (N,) frames.
        model: predictor and joiner.
        blank: id of ∅.
        max_tokens_per_frame: then the next frame is taken, so that it always ends.

    Returns:
        Token ids of each utterance.

    Raises:
        ValueError: as `transducer_beam_search`.
    """
    if max_tokens_per_frame < 1:
        raise ValueError("max_tokens_per_frame must be 1 or more")
    counts = check_frames(frames, lengths)
    greedy = search_engine(frames, model).greedy
    result: list[list[int]] = greedy(frames, counts, model, blank, max_tokens_per_frame)
    return result


def search_settings(
    model: SearchModel,
    like: Tensor,
    beam: int,
    blank: int,
    max_tokens_per_frame: int,
    max_expansions: int | None,
    fusion: Fusion,
) -> Settings:
    """What bounds a search; arguments as of `transducer_beam_search`, ``like`` (…, J) a frame."""
    if max_expansions is None:
        max_expansions = 10 * beam + 1000
    if min(beam, max_tokens_per_frame, max_expansions) < 1:
        raise ValueError("beam, max_tokens_per_frame and max_expansions must be 1 or more")
    vocab = model.log_probs(like.new_zeros(1, like.shape[-1]), model.start(1)[1]).shape[1]
    return Settings(
        beam,
        blank,
        max_tokens_per_frame,
        max_expansions,
        fusion.tables(vocab),
        fusion.network,
        fusion.weight,
    )


def warn_of_bounds(hits: int, settings: Settings) -> None:
    """Log a warning if bounds of a search were hit."""
    if hits:
        log.warning(
            "search: bounded in %d frames (at most %d labels a frame, %d extensions a step)",
            hits,
            settings.max_tokens_per_frame,
            settings.max_expansions,
        )


def search_engine(frames: Tensor, model: SearchModel) -> ModuleType:
    """The compiled search knows a peephole LSTM; any other network is called by the plain one."""
    if model.search_weights() is None:
        return transducer_plain
    return engine("transducer_search", frames)


def check_frames(frames: Tensor, lengths: Tensor) -> list[int]:
    """The lengths as numbers; raises ValueError as `transducer_beam_search`."""
    counts: list[int] = lengths.tolist()
    if frames.ndim != 3 or len(counts) != len(frames):
        raise ValueError(f"frames (N, T, J) and N lengths expected, not {tuple(frames.shape)}")
    if counts and not 0 <= min(counts) <= max(counts) <= frames.shape[1]:
        raise ValueError(f"lengths must be 0 … {frames.shape[1]}, not {counts}")
    places = torch.arange(frames.shape[1], device=frames.device)
    inside = places < lengths.to(frames.device)[:, None]
    bad = (frames.isnan().any(dim=2) & inside).nonzero()
    if len(bad):
        n, t = bad[0].tolist()
        raise ValueError(f"frame {t} of utterance {n} is NaN")
    return counts


def ranked(found: Found, settings: Settings, length_normalise: bool) -> list[Hypothesis]:
    """The hypotheses of a beam, best first."""
    final = settings.tables.final
    hyps = [
        Hypothesis(tokens, score - fused, fused + float(final[history]))
        for tokens, score, fused, history in found.beam
    ]
    hyps = [hyp for hyp in hyps if hyp.score > -float("inf")]
    return sorted(
        hyps,
        key=lambda h: (-(h.normalised if length_normalise else h.score), len(h.tokens), h.tokens),
    )
