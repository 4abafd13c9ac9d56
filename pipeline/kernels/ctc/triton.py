"""The programs of `cuda.py`, in Triton: float64 in the log domain.

Of an utterance, ``frames`` is T in the tensors and ``width`` the states S = 2U + 1 of an alignment:
a blank before, between and after the tokens.
"""

import triton
import triton.language as tl

NEVER = tl.constexpr(-1e290)  # log of a probability of 0 that can be added to without becoming NaN
IMPOSSIBLE = tl.constexpr(-1e280)  # below this no alignment exists
INF = tl.constexpr(float("inf"))


@triton.jit
def _log_add_3(a, b, c):
    top = tl.maximum(tl.maximum(a, b), c)
    return top + tl.log(tl.exp(a - top) + tl.exp(b - top) + tl.exp(c - top))


@triton.jit
def _emitted(log_probs, output, t, vocab, inside):
    """ln Pr of each state's output at frame t."""
    x = tl.load(log_probs + t * vocab + output, mask=inside, other=-INF).to(tl.float64)
    return tl.where(x < IMPOSSIBLE, NEVER, x)


@triton.jit
def _forward_variables(
    log_probs, outputs, skips, alpha, log_prob, t_len, count, vocab, width, STATES: tl.constexpr
):  # fmt: skip
    """ln α of every frame and ln Pr(y|x)."""
    s = tl.arange(0, STATES)
    inside = s < count
    output = tl.load(outputs + s, mask=inside, other=0)
    is_skipped_to = tl.load(skips + s, mask=inside, other=0) != 0
    one, two = tl.maximum(s - 1, 0), tl.maximum(s - 2, 0)
    value = tl.where(s == 0, 0.0, NEVER).to(tl.float64)  # before the first frame
    for t in range(0, t_len):
        emitted = _emitted(log_probs, output, t, vocab, inside)
        from_one = tl.where(s == 0, NEVER, tl.gather(value, one, 0))
        from_two = tl.where(is_skipped_to, tl.gather(value, two, 0), NEVER)
        value = _log_add_3(value, from_one, from_two) + emitted
        tl.store(alpha + t * width + s, value, mask=inside)
    # Without frames only the first state is there, and it is the last where there are no tokens.
    ends = (s == count - 1) | ((s == count - 2) & (t_len > 0))
    last = tl.where(ends, value, NEVER)
    top = tl.max(last, 0)
    found = top + tl.log(tl.sum(tl.exp(last - top), 0))
    wrong = tl.sum((~(value < INF)).to(tl.int32), 0) > 0  # NaN stays where it was
    found = tl.where(wrong, float("nan"), found)
    tl.store(log_prob, tl.where(found < IMPOSSIBLE, -INF, found))


@triton.jit
def _backward_variables(
    log_probs, outputs, skips, beta, t_len, count, vocab, width, STATES: tl.constexpr
):  # fmt: skip
    """ln β of every frame."""
    s = tl.arange(0, STATES)
    inside = s < count
    output = tl.load(outputs + s, mask=inside, other=0)
    skips_two = tl.load(skips + s + 2, mask=s + 2 < count, other=0) != 0
    one, two = tl.minimum(s + 1, STATES - 1), tl.minimum(s + 2, STATES - 1)
    value = tl.where((s == count - 1) | (s == count - 2), 0.0, NEVER).to(tl.float64)
    for back in range(0, t_len):
        t = t_len - 1 - back
        tl.store(beta + t * width + s, value, mask=inside)
        after = value + _emitted(log_probs, output, t, vocab, inside)
        to_one = tl.where(s + 1 < count, tl.gather(after, one, 0), NEVER)
        to_two = tl.where(skips_two, tl.gather(after, two, 0), NEVER)
        value = _log_add_3(after, to_one, to_two)


@triton.jit
def sweep_kernel(
    log_probs, outputs, skips, lengths, target_lengths, alpha, beta, log_prob,
    frames, vocab, width, batch, STATES: tl.constexpr,
):  # fmt: skip
    """One program for each utterance's ln α, and one for its ln β."""
    n = (tl.program_id(0) % batch).to(tl.int64)
    t_len, count = tl.load(lengths + n), 2 * tl.load(target_lengths + n) + 1
    log_probs += n * frames * vocab
    outputs += n * width
    skips += n * width
    start = n * frames * width
    if tl.program_id(0) < batch:
        _forward_variables(
            log_probs, outputs, skips, alpha + start, log_prob + n, t_len, count, vocab, width,
            STATES,
        )  # fmt: skip
    else:
        _backward_variables(
            log_probs, outputs, skips, beta + start, t_len, count, vocab, width, STATES
        )


@triton.jit
def posteriors_kernel(
    outputs, lengths, target_lengths, alpha, beta, log_prob, out,
    frames, vocab, width, t_blocks, v_blocks,
    FRAMES: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Pr(k at t | y, x) of a tile of frames and outputs: the states are added in their order."""
    tile = tl.program_id(0) // v_blocks
    n = (tile // t_blocks).to(tl.int64)
    t = tile % t_blocks * FRAMES + tl.arange(0, FRAMES)
    v = tl.program_id(0) % v_blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    found = tl.load(log_prob + n)
    inside = t < tl.where(found > IMPOSSIBLE, tl.load(lengths + n), 0)
    at = (n * frames + t) * width
    sums = tl.zeros((FRAMES, OUTPUTS), tl.float64)
    for s in range(0, 2 * tl.load(target_lengths + n) + 1):
        log_share = tl.load(alpha + at + s, mask=inside, other=NEVER)
        log_share += tl.load(beta + at + s, mask=inside, other=NEVER) - found
        share = tl.where(inside, tl.exp(tl.minimum(log_share, 0.0)), 0.0)
        sums += tl.where(v[None, :] == tl.load(outputs + n * width + s), share[:, None], 0.0)
    mask = (t < frames)[:, None] & (v < vocab)[None, :]
    at = (n * frames + t)[:, None] * vocab + v[None, :]
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=mask)
