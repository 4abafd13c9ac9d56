"""CTC's log-loss as its equations are printed, in loops: the reference of `loss.py`.

A. Graves, S. Fernández, F. Gomez, J. Schmidhuber, "Connectionist Temporal Classification", ICML
2006 (section 4.1), which [G13] section 3.1 uses.
"""

from collections.abc import Sequence

import numpy as np

NEVER = -np.inf  # the logarithm of 0


def with_blanks(targets: Sequence[int], blank: int) -> list[int]:
    """l': a blank before, between and after the tokens; 2U + 1 states."""
    states = [blank]
    for token in targets:
        states += [token, blank]
    return states


def log_alpha(log_probs: np.ndarray, states: Sequence[int], blank: int) -> np.ndarray:
    """ln α_t(s), (T, S): all ways to be in state s at frame t having begun at the start."""
    frames, count = len(log_probs), len(states)
    alpha = np.full((frames, count), NEVER)
    for t in range(frames):
        for s in range(count):
            if t == 0:
                ways = [0.0] if s < 2 else []
            else:
                ways = [alpha[t - 1, p] for p in (s, s - 1) if p >= 0]
                if s >= 2 and states[s] != blank and states[s] != states[s - 2]:
                    ways.append(alpha[t - 1, s - 2])
            alpha[t, s] = _log_sum(ways) + log_probs[t, states[s]]
    return alpha


def ctc_loss(
    log_probs: np.ndarray, targets: Sequence[int], blank: int = 0
) -> tuple[float, np.ndarray]:
    """-ln Pr(y|x) of one utterance and its gradient.

    Args:
        log_probs: log-softmax outputs, (T, V).
        targets: token ids y.
        blank: id of the blank.

    Returns:
        The loss in nats and -Pr(k at t | y, x), (T, V), its gradient in ``log_probs``; zero where
        no alignment exists.
    """
    states = with_blanks(targets, blank)
    frames, count = len(log_probs), len(states)
    gradient = np.zeros_like(log_probs)
    if frames == 0:
        return (0.0 if count == 1 else np.inf), gradient
    alpha = log_alpha(log_probs, states, blank)
    # β is α of the utterance read backwards. Both count the output at their own frame.
    beta = log_alpha(log_probs[::-1], states[::-1], blank)[::-1, ::-1]
    log_prob = _log_sum(alpha[-1, -2:])
    if log_prob == NEVER:
        return np.inf, gradient
    for t in range(frames):
        for s in range(count):
            output = log_probs[t, states[s]]
            if output > NEVER:
                gradient[t, states[s]] -= np.exp(alpha[t, s] + beta[t, s] - output - log_prob)
    return -log_prob, gradient


def _log_sum(terms: Sequence[float] | np.ndarray) -> float:
    return float(np.logaddexp.reduce(terms)) if len(terms) else NEVER
