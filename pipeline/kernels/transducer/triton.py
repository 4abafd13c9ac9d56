"""The programs of `cuda.py`, in Triton.

Lattices (N, T, U+1) are contiguous; ``frames`` and ``width`` are T and U+1, ``size`` is J and
``vocab`` V. Everything that grows with the batch is indexed with 64 bits. Products and sums of the
joiner's programs are float32, whatever the dtype of its inputs.
"""

import triton
import triton.language as tl

NEVER = tl.constexpr(-1e290)  # log of a probability of 0 that can be added to without becoming NaN
IMPOSSIBLE = tl.constexpr(-1e280)  # below this no path exists
NEGLIGIBLE = tl.constexpr(1e-30)  # smaller posteriors and gradients are zero to rounding
INF = tl.constexpr(float("inf"))


# ---- log-probabilities of the arrows -------------------------------------------------------------


@triton.jit
def _add_exponentials(top, total, logits):
    """Running maximum and Σ e^(logit - maximum) of each row, with one more block of logits."""
    best = tl.maximum(top, tl.max(logits, 1))
    base = tl.where(best == -INF, 0.0, best)
    total = total * tl.exp(top - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
    return best, total


@triton.jit
def _log_ratio(value, norm):
    ratio = value.to(tl.float64) - norm
    return tl.where(norm == -INF, -INF, ratio).to(value.dtype)


@triton.jit
def _log_norm(top, total):
    """float64: of large logits, float32 would keep nothing behind the point."""
    return top.to(tl.float64) + tl.log(total).to(tl.float64)


@triton.jit
def arrows_kernel(
    logits, targets, logit_lengths, target_lengths, null, label, norm,
    frames, width, vocab, blank, blocks,
    CELLS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """``blocks`` programs an utterance, each for ``CELLS`` cells; one pass over the logits."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    cell = (tl.program_id(0) % blocks).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    t, u = cell // width, cell % width
    u_len = tl.load(target_lengths + n)
    inside = (t < tl.load(logit_lengths + n)) & (u <= u_len)
    has_label = inside & (u < u_len)
    cell += n * frames * width
    dtype = null.dtype.element_ty
    top = tl.full((CELLS,), -INF, dtype)
    total = tl.zeros((CELLS,), dtype)
    for v0 in range(0, vocab, OUTPUTS):
        v = v0 + tl.arange(0, OUTPUTS)
        mask = inside[:, None] & (v < vocab)[None, :]
        x = tl.load(logits + cell[:, None] * vocab + v[None, :], mask=mask, other=-INF).to(dtype)
        top, total = _add_exponentials(top, total, x)
    log_norm = _log_norm(top, total)
    of_null = tl.load(logits + cell * vocab + blank, mask=inside, other=0.0).to(dtype)
    target = tl.load(targets + n * (width - 1) + u, mask=has_label, other=0)
    of_label = tl.load(logits + cell * vocab + target, mask=has_label, other=0.0).to(dtype)
    tl.store(norm + cell, log_norm, mask=inside)
    tl.store(null + cell, _log_ratio(of_null, log_norm), mask=inside)
    tl.store(label + cell, _log_ratio(of_label, log_norm), mask=has_label)


# ---- the lattice ---------------------------------------------------------------------------------


@triton.jit
def _log_add(a, b):
    return tl.maximum(a, b) + tl.log(1.0 + tl.exp(-tl.abs(a - b)))


@triton.jit
def _finite(x):
    x = x.to(tl.float64)
    return tl.where(x < IMPOSSIBLE, NEVER, x)


@triton.jit
def _on_diagonal(cells, d, u, t_len, last, width):
    """Log-probabilities out of the cells (d - u, u) with u <= last."""
    t = d - u
    inside = (t >= 0) & (t < t_len) & (u <= last)
    return _finite(tl.load(cells + t * width + u, mask=inside, other=-INF))


@triton.jit
def _store_diagonal(cells, value, d, u, t_len, u_len, width):
    t = d - u
    tl.store(cells + t * width + u, value, mask=(t >= 0) & (t < t_len) & (u <= u_len))


@triton.jit
def _forward_variables(null, label, alpha, log_prob, t_len, u_len, width, PREFIXES: tl.constexpr):
    """log α, [G12] eq. 16, and eq. 17; the next diagonal's arrows are loaded ahead."""
    u = tl.arange(0, PREFIXES).to(tl.int64)
    below = tl.maximum(tl.arange(0, PREFIXES) - 1, 0)
    value = _finite(tl.where(u == 0, 0.0, -INF))
    null_d = _on_diagonal(null, 0, u, t_len, u_len, width)
    label_d = _on_diagonal(label, 0, u, t_len, u_len - 1, width)
    for d in range(0, t_len + u_len):
        null_next = _on_diagonal(null, d + 1, u, t_len, u_len, width)
        label_next = _on_diagonal(label, d + 1, u, t_len, u_len - 1, width)
        _store_diagonal(alpha, value, d, u, t_len, u_len, width)
        from_below = tl.gather(value + label_d, below, 0)
        value = _log_add(value + null_d, tl.where(u == 0, NEVER, from_below))
        null_d, label_d = null_next, label_next
    found = tl.sum(tl.where(u == u_len, value, 0.0), 0)
    tl.store(log_prob, tl.where(found < IMPOSSIBLE, -INF, found))


@triton.jit
def _backward_variables(null, label, beta, t_len, u_len, width, PREFIXES: tl.constexpr):
    """log β, [G12] eq. 18."""
    u = tl.arange(0, PREFIXES).to(tl.int64)
    above = tl.minimum(tl.arange(0, PREFIXES) + 1, PREFIXES - 1)
    value = _finite(tl.where(u == u_len, 0.0, -INF))  # beyond the last ∅
    last = t_len + u_len - 1
    null_d = _on_diagonal(null, last, u, t_len, u_len, width)
    label_d = _on_diagonal(label, last, u, t_len, u_len - 1, width)
    for back in range(0, t_len + u_len):
        d = last - back
        null_next = _on_diagonal(null, d - 1, u, t_len, u_len, width)
        label_next = _on_diagonal(label, d - 1, u, t_len, u_len - 1, width)
        # In the last column label_d is `NEVER`, whatever is gathered there.
        value = _log_add(value + null_d, tl.gather(value, above, 0) + label_d)
        _store_diagonal(beta, value, d, u, t_len, u_len, width)
        null_d, label_d = null_next, label_next


@triton.jit
def sweep_kernel(
    null, label, logit_lengths, target_lengths, alpha, beta, log_prob,
    frames, width, batch, PREFIXES: tl.constexpr,
):  # fmt: skip
    """One program for each utterance's log α, and one for its log β, float64."""
    n = (tl.program_id(0) % batch).to(tl.int64)
    start = n * frames * width
    t_len, u_len = tl.load(logit_lengths + n), tl.load(target_lengths + n)
    null += start
    label += start
    if tl.program_id(0) < batch:
        _forward_variables(null, label, alpha + start, log_prob + n, t_len, u_len, width, PREFIXES)
    else:
        _backward_variables(null, label, beta + start, t_len, u_len, width, PREFIXES)


@triton.jit
def posteriors_kernel(
    null, label, logit_lengths, target_lengths, alpha, beta, log_prob, out_null, out_label,
    frames, width, blocks, CELLS: tl.constexpr,
):  # fmt: skip
    """The posterior of each arrow from log α, log β and log Pr(y|x)."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    cell = (tl.program_id(0) % blocks).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    in_range = cell < frames * width
    t, u = cell // width, cell % width
    t_len, u_len = tl.load(logit_lengths + n), tl.load(target_lengths + n)
    inside = (t < t_len) & (u <= u_len)
    has_label = inside & (u < u_len)
    cell += n * frames * width
    found = tl.load(log_prob + n)
    arrived = tl.load(alpha + cell, mask=inside, other=NEVER)
    arrived = tl.where(found > IMPOSSIBLE, arrived - found, NEVER)
    after = tl.load(beta + cell + width, mask=inside & (t + 1 < t_len), other=NEVER)
    after = tl.where((t == t_len - 1) & (u == u_len), 0.0, after)
    x = arrived + _finite(tl.load(null + cell, mask=inside, other=-INF)) + after
    _store_posterior(out_null + cell, x, in_range)
    after = tl.load(beta + cell + 1, mask=has_label, other=NEVER)
    x = arrived + _finite(tl.load(label + cell, mask=has_label, other=-INF)) + after
    _store_posterior(out_label + cell, x, in_range)


@triton.jit
def _store_posterior(at, log_posterior, in_range):
    p = tl.exp(log_posterior)
    p = tl.where(p > NEGLIGIBLE, p, 0.0)
    tl.store(at, p.to(at.dtype.element_ty), mask=in_range)


# ---- the gradient in the logits ------------------------------------------------------------------


@triton.jit
def _cell_gradient(x, norm, null, label, v, blank, target):
    """occupancy · softmax less the posteriors of ∅ and the next label, [G12] eq. 20."""
    high = norm.to(x.dtype)
    low = (norm - high.to(tl.float64)).to(x.dtype)
    g = (null + label)[:, None] * tl.exp(x - high[:, None] - low[:, None])
    g -= tl.where(v[None, :] == blank, null[:, None], 0.0)
    return g - tl.where(v[None, :] == target[:, None], label[:, None], 0.0)


@triton.jit
def logits_gradient_kernel(
    logits, targets, logit_lengths, target_lengths, norm, null, label, out,
    frames, width, vocab, blank, blocks, v_blocks,
    CELLS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Logits are only read of cells that a path visits."""
    v = tl.program_id(0) % v_blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    block = tl.program_id(0) // v_blocks
    n = (block // blocks).to(tl.int64)
    cell = (block % blocks).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    in_range = cell < frames * width
    t, u = cell // width, cell % width
    u_len = tl.load(target_lengths + n)
    inside = (t < tl.load(logit_lengths + n)) & (u <= u_len)
    target = tl.load(targets + n * (width - 1) + u, mask=inside & (u < u_len), other=-1)
    cell += n * frames * width
    p_null = tl.load(null + cell, mask=inside, other=0.0)
    p_label = tl.load(label + cell, mask=inside, other=0.0)
    visited = p_null + p_label != 0.0
    log_norm = tl.load(norm + cell, mask=visited, other=0.0)
    at = cell[:, None] * vocab + v[None, :]
    mask = (v < vocab)[None, :]
    x = tl.load(logits + at, mask=visited[:, None] & mask, other=0.0).to(p_null.dtype)
    g = _cell_gradient(x, log_norm, p_null, p_label, v, blank, target)
    g = tl.where(visited[:, None] & ~(tl.abs(g) < NEGLIGIBLE), g, 0.0)
    tl.store(out + at, g.to(out.dtype.element_ty), mask=in_range[:, None] & mask)


# ---- the joiner of [G13] -------------------------------------------------------------------------


@triton.jit
def _tanh(x):
    """To a few units in the last place, also where the exponentials would cancel."""
    e = tl.exp(-2.0 * tl.abs(x))
    large = (1.0 - e) / (1.0 + e)
    s = x * x
    small = x * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0 - s * (17.0 / 315.0))))
    return tl.where(tl.abs(x) < 0.2, small, tl.where(x < 0.0, -large, large))


@triton.jit
def _join(row, column, inside, j, size):
    """tanh(f + g), [G13] eq. 16, of cells (M,) and numbers j: (M, HIDDEN); 0 outside."""
    mask = inside[:, None] & (j < size)[None, :]
    x = tl.load(row[:, None] + j[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(column[:, None] + j[None, :], mask=mask, other=0.0).to(tl.float32)
    return _tanh(x)


@triton.jit
def _joint_logits(
    row, column, inside, weight, bias, v, size, vocab,
    HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[G13] eq. 17 of cells (M,) and outputs v; minus infinity for v >= V."""
    logits = tl.zeros((row.shape[0], v.shape[0]), tl.float32)
    for j0 in range(0, size, HIDDEN):
        j = j0 + tl.arange(0, HIDDEN)
        mask = (j < size)[:, None] & (v < vocab)[None, :]
        at = v.to(tl.int64)[None, :] * size + j[:, None]
        w = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
        h = _join(row, column, inside, j, size)
        logits = tl.dot(h, w, logits, input_precision=PRECISION)
    return logits + tl.load(bias + v, mask=v < vocab, other=-INF).to(tl.float32)[None, :]


@triton.jit
def joint_arrows_kernel(
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths, null, label, norm,
    frames, width, size, vocab, blank, t_blocks, u_blocks,
    FRAMES: tl.constexpr, PREFIXES: tl.constexpr, OUTPUTS: tl.constexpr, HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A program for each tile of ``FRAMES`` by ``PREFIXES`` cells."""
    tile = tl.program_id(0) // u_blocks
    n = (tile // t_blocks).to(tl.int64)
    t0, u0 = tile % t_blocks * FRAMES, tl.program_id(0) % u_blocks * PREFIXES
    t_len, u_len = tl.load(logit_lengths + n), tl.load(target_lengths + n)
    if (t0 < t_len) & (u0 <= u_len):
        m = tl.arange(0, FRAMES * PREFIXES)
        t, u = t0 + m // PREFIXES, u0 + m % PREFIXES
        inside = (t < t_len) & (u <= u_len)
        has_label = inside & (u < u_len)
        target = tl.load(targets + n * (width - 1) + u, mask=has_label, other=-1)
        row, column = encoder + (n * frames + t) * size, predictor + (n * width + u) * size
        top = tl.full((FRAMES * PREFIXES,), -INF, tl.float32)
        total = tl.zeros((FRAMES * PREFIXES,), tl.float32)
        of_null = tl.zeros((FRAMES * PREFIXES,), tl.float32)
        of_label = tl.zeros((FRAMES * PREFIXES,), tl.float32)
        for v0 in range(0, vocab, OUTPUTS):
            v = v0 + tl.arange(0, OUTPUTS)
            x = _joint_logits(row, column, inside, weight, bias, v, size, vocab, HIDDEN, PRECISION)
            top, total = _add_exponentials(top, total, x)
            of_null += tl.sum(tl.where(v[None, :] == blank, x, 0.0), 1)
            of_label += tl.sum(tl.where(v[None, :] == target[:, None], x, 0.0), 1)
        log_norm = _log_norm(top, total)
        cell = (n * frames + t) * width + u
        tl.store(norm + cell, log_norm, mask=inside)
        tl.store(null + cell, _log_ratio(of_null, log_norm), mask=inside)
        tl.store(label + cell, _log_ratio(of_label, log_norm), mask=has_label)


@triton.jit
def joint_gradient_kernel(
    encoder, predictor, weight, bias, targets, logit_lengths, target_lengths,
    norm, null, label, least, d_encoder, d_predictor, d_weight, d_bias,
    frames, width, size, vocab, blank, chunks, span, items,
    FRAMES: tl.constexpr, PREFIXES: tl.constexpr, OUTPUTS: tl.constexpr, HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """An item is ``span`` frames of an utterance; the programs take ``items`` in turns.

    Of d_encoder an item has its own part, of d_predictor its own copy (items, U+1, J); d_weight and
    d_bias are a copy for each program. Nothing else adds to these, so no sum's order is left open.
    """
    program = tl.program_id(0).to(tl.int64)
    d_weight += program * vocab * size
    d_bias += program * vocab
    m = tl.arange(0, FRAMES * PREFIXES)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        n = tl.cast(item // chunks, tl.int64)
        u_len = tl.load(target_lengths + n).to(tl.int32)
        first = item % chunks * span
        last = tl.minimum(first + span, tl.load(logit_lengths + n).to(tl.int32))
        threshold = tl.load(least + n)
        for t0 in range(first, last, FRAMES):
            for u0 in range(0, u_len + 1, PREFIXES):
                t, u = t0 + m // PREFIXES, u0 + m % PREFIXES
                inside = (t < last) & (u <= u_len)
                cell = (n * frames + t) * width + u
                p_null = tl.load(null + cell, mask=inside, other=0.0)
                p_label = tl.load(label + cell, mask=inside, other=0.0)
                # A NaN, which comes with the upstream gradient, is not below anything.
                active = inside & ~(tl.abs(p_null + p_label) <= threshold)
                if tl.max(active.to(tl.int32), 0) > 0:
                    has_label = active & (u < u_len)
                    target = tl.load(targets + n * (width - 1) + u, mask=has_label, other=-1)
                    log_norm = tl.load(norm + cell, mask=active, other=0.0)
                    _tile_gradient(
                        encoder + (n * frames + t) * size, predictor + (n * width + u) * size,
                        active, log_norm, p_null, p_label, target, weight, bias,
                        d_encoder + (n * frames + t0) * size, last - t0,
                        d_predictor + (tl.cast(item, tl.int64) * width + u0) * size, u_len + 1 - u0,
                        d_weight, d_bias, size, vocab, blank,
                        FRAMES, PREFIXES, OUTPUTS, HIDDEN, PRECISION,
                    )  # fmt: skip


@triton.jit
def _tile_gradient(
    row, column, active, log_norm, p_null, p_label, target, weight, bias,
    d_encoder, row_count, d_predictor, column_count, d_weight, d_bias, size, vocab, blank,
    FRAMES: tl.constexpr, PREFIXES: tl.constexpr, OUTPUTS: tl.constexpr, HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds a tile's part to all gradients, some outputs at a time: they are sums over outputs.

    What one round adds to, another thread may add to in the next: hence the barriers.
    """
    f, p = tl.arange(0, FRAMES), tl.arange(0, PREFIXES)
    for v0 in range(0, vocab, OUTPUTS):
        v = v0 + tl.arange(0, OUTPUTS)
        v_mask = v < vocab
        sum_g = tl.load(d_bias + v, mask=v_mask, other=0.0)
        x = _joint_logits(row, column, active, weight, bias, v, size, vocab, HIDDEN, PRECISION)
        g = _cell_gradient(x, log_norm, p_null, p_label, v, blank, target)
        g = tl.where(active[:, None] & v_mask[None, :], g, 0.0)
        tl.store(d_bias + v, sum_g + tl.sum(g, 0), mask=v_mask)
        for j0 in range(0, size, HIDDEN):
            j = j0 + tl.arange(0, HIDDEN)
            j_mask = (j < size)[None, :]
            at, mask = v.to(tl.int64)[:, None] * size + j[None, :], v_mask[:, None] & j_mask
            h = _join(row, column, active, j, size)
            w = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
            sums = tl.load(d_weight + at, mask=mask, other=0.0)
            sums = tl.dot(tl.trans(g), h, sums, input_precision=PRECISION)
            tl.store(d_weight + at, sums, mask=mask)
            d = tl.dot(g, w, input_precision=PRECISION) * (1.0 - h * h)
            d = tl.reshape(d, (FRAMES, PREFIXES, HIDDEN))
            _add(d_encoder + f[:, None] * size + j[None, :], tl.sum(d, 1),
                 (f < row_count)[:, None] & j_mask)  # fmt: skip
            _add(d_predictor + p[:, None] * size + j[None, :], tl.sum(d, 0),
                 (p < column_count)[:, None] & j_mask)  # fmt: skip
        tl.debug_barrier()


@triton.jit
def _add(at, x, mask):
    tl.store(at, tl.load(at, mask=mask, other=0.0) + x, mask=mask)
