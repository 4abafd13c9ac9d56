"""The transducer's log-loss as it is printed: NumPy float64, loops in the paper's order.

t runs from 0 here, from 1 in the paper; u runs from 0 in both.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def lattice(logits: Array, targets: list[int], blank: int) -> tuple[Array, Array, Array, Array]:
    """Forward and backward variables of one utterance, [G12] eq. 13-18, in the log domain.

    Args:
        logits: (T, U+1, V).
        targets: U token ids.
        blank: id of ∅.

    Returns:
        log α, log β, log ∅(t, u) and log y(t, u) (minus infinity at u = U), each (T, U+1).
    """
    t_max, u_max, _ = logits.shape
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)  # eq. 13
    null = log_probs[:, :, blank]  # eq. 15
    label = np.full((t_max, u_max), -np.inf)
    for u, k in enumerate(targets):
        label[:, u] = log_probs[:, u, k]  # eq. 14
    alpha = np.full((t_max, u_max), -np.inf)
    alpha[0, 0] = 0.0
    for t in range(t_max):
        for u in range(u_max):  # eq. 16
            if t > 0:
                alpha[t, u] = np.logaddexp(alpha[t, u], alpha[t - 1, u] + null[t - 1, u])
            if u > 0:
                alpha[t, u] = np.logaddexp(alpha[t, u], alpha[t, u - 1] + label[t, u - 1])
    beta = np.full((t_max, u_max), -np.inf)
    beta[-1, -1] = null[-1, -1]
    for t in reversed(range(t_max)):
        for u in reversed(range(u_max)):  # eq. 18
            if t + 1 < t_max:
                beta[t, u] = np.logaddexp(beta[t, u], beta[t + 1, u] + null[t, u])
            if u + 1 < u_max:
                beta[t, u] = np.logaddexp(beta[t, u], beta[t, u + 1] + label[t, u])
    return alpha, beta, null, label


def transducer_loss(logits: Array, targets: list[int], blank: int) -> tuple[float, Array]:
    """-ln Pr(y|x) of one utterance, [G12] eq. 17, and its gradient in the logits, eq. 20.

    Args:
        logits: (T, U+1, V).
        targets: U token ids.
        blank: id of ∅.

    Returns:
        The loss in nats and its gradient (T, U+1, V).
    """
    alpha, beta, _, _ = lattice(logits, targets, blank)
    t_max, u_max, _ = logits.shape
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    log_z = beta[0, 0]
    d_prob = np.zeros_like(logits)  # ∂L/∂Pr(k|t,u), eq. 20
    for t in range(t_max):
        for u in range(u_max):
            arrived = np.exp(alpha[t, u] - log_z)
            if u < len(targets):
                d_prob[t, u, targets[u]] -= arrived * np.exp(beta[t, u + 1])
            if t + 1 < t_max:
                d_prob[t, u, blank] -= arrived * np.exp(beta[t + 1, u])
            elif u + 1 == u_max:
                d_prob[t, u, blank] -= arrived
    probs = np.exp(log_probs)
    inner = (d_prob * probs).sum(axis=-1, keepdims=True)
    return -float(log_z), probs * (d_prob - inner)  # softmax's Jacobian, below eq. 22
