"""The recurrent layers of the papers as they are printed: NumPy float64, one step at a time.

Gate order in every stacked weight: input i, forget f, cell c, output o. The cell-to-gate
("peephole") weights are diagonal, hence vectors; the output gate sees the *new* cell state.
[G12] eq. 6 prints ``W_hs h_n``; it means h_{n-1}, as in [G13] eq. 5.

[DS2] D. Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
arXiv 1512.02595 and ICML 2016.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow for large negative x."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def peephole_lstm_step(
    projected: Array, h: Array, c: Array, w_hidden: Array, peepholes: Array
) -> tuple[Array, Array]:
    """One time step, [G13] eq. 3-7.

    Args:
        projected: W_x· x_t + b for the four gates, (..., 4H).
        h: h_{t-1}, (..., H).
        c: c_{t-1}, (..., H).
        w_hidden: W_hi, W_hf, W_hc, W_ho stacked, (4H, H).
        peepholes: W_ci, W_cf, W_co, (3, H).

    Returns:
        (h_t, c_t), each (..., H).
    """
    x_i, x_f, x_c, x_o = np.split(projected + h @ w_hidden.T, 4, axis=-1)
    w_ci, w_cf, w_co = peepholes
    i = sigmoid(x_i + w_ci * c)  # eq. 3
    f = sigmoid(x_f + w_cf * c)  # eq. 4
    c = f * c + i * np.tanh(x_c)  # eq. 5
    o = sigmoid(x_o + w_co * c)  # eq. 6
    return o * np.tanh(c), c  # eq. 7


def peephole_lstm(
    x: Array, w_input: Array, w_hidden: Array, peepholes: Array, bias: Array
) -> Array:
    """One direction over one sequence, [G13] eq. 3-7.

    Args:
        x: input, (T, F).
        w_input: (4H, F).
        w_hidden: (4H, H).
        peepholes: (3, H).
        bias: (4H,).

    Returns:
        h_1 … h_T, (T, H).
    """
    h = c = np.zeros(w_hidden.shape[1])
    hidden = []
    for x_t in x:
        h, c = peephole_lstm_step(w_input @ x_t + bias, h, c, w_hidden, peepholes)
        hidden.append(h)
    return np.array(hidden).reshape(len(x), -1)


def projected_lstm(
    x: Array,
    w_input: Array,
    w_hidden: Array,
    peepholes: Array,
    projection: Array,
    bias: Array,
    nonrecurrent: Array | None = None,
) -> Array:
    """One direction of an LSTM with projections (LSTMP) over one sequence, [S14].

    The layer feeds back, and hands on, r_t = W_rm m_t in place of its cells' outputs m_t. With a
    non-recurrent projection it hands on p_t = W_pm m_t beside r_t.

    Args:
        x: input, (T, F).
        w_input: (4H, F).
        w_hidden: W_ir, W_fr, W_cr, W_or stacked, (4H, P).
        peepholes: (3, H).
        projection: W_rm, (P, H).
        bias: (4H,).
        nonrecurrent: W_pm, (Q, H); None: Q = 0.

    Returns:
        (r_1, p_1) … (r_T, p_T), (T, P + Q).
    """
    beside = np.zeros((0, projection.shape[1])) if nonrecurrent is None else nonrecurrent
    r, c = np.zeros(len(projection)), np.zeros(projection.shape[1])
    projected = []
    for x_t in x:
        m, c = peephole_lstm_step(w_input @ x_t + bias, r, c, w_hidden, peepholes)
        r = projection @ m
        p = beside @ m
        projected.append(np.concatenate([r, p]))
    return np.array(projected).reshape(len(x), len(r) + len(beside))


def tanh_rnn(x: Array, w_input: Array, w_hidden: Array, bias: Array) -> Array:
    """One direction of a plain recurrent layer with H = tanh, [G13] eq. 1.

    Shapes as in `peephole_lstm`, with H in place of 4H.
    """
    h = np.zeros(w_hidden.shape[1])
    hidden = []
    for x_t in x:
        h = np.tanh(w_input @ x_t + w_hidden @ h + bias)
        hidden.append(h)
    return np.array(hidden).reshape(len(x), -1)


def clipped_relu(x: Array) -> Array:
    """min(max(x, 0), 20), the nonlinearity of [DS2]."""
    return np.minimum(np.maximum(x, 0.0), 20.0)


def relu_rnn(x: Array, w_input: Array, w_hidden: Array, bias: Array) -> Array:
    """One direction of the simple recurrent layer of [DS2]: f(W x_t + U h_{t-1} + b).

    Shapes as in `peephole_lstm`, with H in place of 4H.
    """
    h = np.zeros(w_hidden.shape[1])
    hidden = []
    for x_t in x:
        h = clipped_relu(w_input @ x_t + w_hidden @ h + bias)
        hidden.append(h)
    return np.array(hidden).reshape(len(x), -1)


def gru(
    x: Array,
    w_input: Array,
    w_hidden: Array,
    bias: Array,
    f: Callable[[Array], Array] = clipped_relu,
) -> Array:
    """One direction of a layer of gated recurrent units over one sequence, [DS2].

    Args:
        x: input, (T, F).
        w_input: W_z, W_r, W_h stacked, (3H, F).
        w_hidden: U_z, U_r, U_h stacked, (3H, H).
        bias: (3H,).
        f: the nonlinearity of the candidate.

    Returns:
        h_1 … h_T, (T, H).
    """
    u_z, u_r, u_h = np.split(w_hidden, 3)
    h = np.zeros(w_hidden.shape[1])
    hidden = []
    for x_t in x:
        x_z, x_r, x_h = np.split(w_input @ x_t + bias, 3)
        z = sigmoid(x_z + u_z @ h)
        r = sigmoid(x_r + u_r @ h)
        candidate = f(x_h + r * (u_h @ h))
        h = (1.0 - z) * h + z * candidate
        hidden.append(h)
    return np.array(hidden).reshape(len(x), -1)
