"""Matrix products in tiles that fit the registers, to be used within kernels and between them.

A tile is `TILE_ROWS` rows by `PANEL` columns of C, kept in registers while a panel of B streams by
and single numbers of A are broadcast; so most instructions are multiply-adds. Operands are given
as an array, an offset and strides, since rows of C are often a part of something larger.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import kernel
from pipeline.kernels.compiler.simd import Vector, intrinsic, lanes, load, store
from pipeline.kernels.compiler.threads import run_parallel, spans

TILE_ROWS = 6
TILE_VECTORS = 2 if simd.REGISTER_BYTES == 32 else 4  # AVX2 has 16 registers, the others 32
DEPTH = 512  # rows of a panel of B that stay in the cache
BLOCK = 96  # rows of A that meet all panels of B before the next ones do


def _make_tile(rows: int) -> Any:
    """C[:rows, :columns] += A[:rows, :depth] B[:depth, :columns]; columns ≤ a panel."""

    @intrinsic
    def tile(
        typingctx: Any,
        a: Any,
        a_offset: Any,
        a_row: Any,
        a_step: Any,
        b: Any,
        b_offset: Any,
        b_step: Any,
        c: Any,
        c_offset: Any,
        c_row: Any,
        depth: Any,
        columns: Any,
    ) -> Any:
        size = types.intp
        signature = types.void(a, size, size, size, b, size, size, c, size, size, size, size)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit_tile(context, builder, rows, (a, b, c), args)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _emit_tile(context: Any, builder: Any, rows: int, kinds: Any, args: Any) -> None:
    a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, columns = args
    vector = Vector(kinds[0].dtype)
    fma = simd.call_llvm("llvm.fma")
    wide, size = simd.llvm_vector(vector), ir.IntType(64)
    at_a = simd.address(context, builder, kinds[0], a, a_offset)
    at_b = simd.address(context, builder, kinds[1], b, b_offset)
    at_c = simd.address(context, builder, kinds[2], c, c_offset)
    starts = [size(v * vector.lanes) for v in range(TILE_VECTORS)]
    masks = [simd.mask(builder, vector, builder.sub(columns, start)) for start in starts]
    cells = [(r, v) for r in range(rows) for v in range(TILE_VECTORS)]
    places = {
        (r, v): builder.gep(at_c, [builder.add(builder.mul(c_row, size(r)), starts[v])])
        for r, v in cells
    }
    first = [simd.masked_load(builder, vector, places[cell], masks[cell[1]]) for cell in cells]

    before = builder.block
    loop, done = builder.append_basic_block("depth"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(size)
    sums = [builder.phi(wide) for _ in cells]
    row_of_b = builder.mul(k, b_step)
    panel = [
        simd.masked_load(builder, vector, builder.gep(at_b, [builder.add(row_of_b, start)]), mask)
        for start, mask in zip(starts, masks, strict=True)
    ]
    column_of_a = builder.mul(k, a_step)
    one_of_a = []
    for r in range(rows):
        place = builder.add(builder.mul(a_row, size(r)), column_of_a)
        one_of_a.append(simd.splat_value(builder, wide, builder.load(builder.gep(at_a, [place]))))
    grown = [
        fma(builder, vector, one_of_a[r], panel[v], total)
        for (r, v), total in zip(cells, sums, strict=True)
    ]
    following = builder.add(k, size(1))
    for phi, start, next_ in zip([k, *sums], [size(0), *first], [following, *grown], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(next_, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    builder.position_at_end(done)
    for cell, value in zip(cells, grown, strict=True):
        simd.masked_store(builder, vector, value, places[cell], masks[cell[1]])


_tile_1, _tile_2, _tile_3, _tile_4, _tile_5, _tile_6 = (_make_tile(r + 1) for r in range(TILE_ROWS))


@kernel
def tile(rows, a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns):
    """C += A B for at most `TILE_ROWS` rows and one panel of columns; depth ≥ 1."""
    if rows == 6:
        _tile_6(a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns)
    elif rows == 5:
        _tile_5(a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns)
    elif rows == 4:
        _tile_4(a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns)
    elif rows == 3:
        _tile_3(a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns)
    elif rows == 2:
        _tile_2(a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns)
    else:
        _tile_1(a, a0, a_row, a_step, b, b0, b_step, c, c0, c_row, depth, columns)


@kernel
def panel_product(a, a0, a_row, a_step, b, b0, c, c0, c_row, rows, depth, columns):
    """C += A B for any number of rows and one packed panel of B, (depth, panel)."""
    panel = TILE_VECTORS * lanes(b)
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    start = 0
    for index in range(tiles):  # of almost equal heights
        height = (rows - start + tiles - index - 1) // (tiles - index)
        tile(
            height, a, a0 + start * a_row, a_row, a_step,
            b, b0, panel, c, c0 + start * c_row, c_row, depth, columns,
        )  # fmt: skip
        start += height


@kernel
def pack_panels(b, b0, b_row, b_column, packed, p0, depth, columns):
    """B (depth, columns) of any strides -> panels one after the other, the last filled with 0."""
    panel = TILE_VECTORS * lanes(b)
    for j0 in range(0, columns, panel):
        width = min(panel, columns - j0)
        target = p0 + j0 * depth
        source = b0 + j0 * b_column
        if b_column == 1:
            for k in range(depth):
                for j in range(0, panel, lanes(b)):
                    value = load(b, source + k * b_row + j, width - j)
                    store(packed, target + k * panel + j, panel - j, value)
        else:
            for j in range(panel):
                for k in range(depth):
                    inside = j < width
                    packed[target + k * panel + j] = (
                        b[source + k * b_row + j * b_column] if inside else 0
                    )


@kernel
def packed_panels(weight, rows, columns, transposed):
    """Panels of ``weight`` (rows, columns), or of its transpose."""
    panel = TILE_VECTORS * lanes(weight)
    depth, width = (columns, rows) if transposed else (rows, columns)
    panels = np.empty((width + panel - 1) // panel * panel * depth, weight.dtype)
    if transposed:
        pack_panels(weight, 0, 1, columns, panels, 0, depth, width)
    else:
        pack_panels(weight, 0, columns, 1, panels, 0, depth, width)
    return panels


@kernel
def packed_product(a, a0, a_row, panels, c, c0, c_row, rows, depth, width):
    """C (rows, width) += A (rows, depth) times packed weights, for any number of rows."""
    if rows <= 0:
        return
    panel = TILE_VECTORS * lanes(a)
    for j in range(0, width, panel):
        columns = min(panel, width - j)
        panel_product(a, a0, a_row, 1, panels, j * depth, c, c0 + j, c_row, rows, depth, columns)


@kernel
def _copy_columns(a, a0, a_step, packed, rows, depth):
    """Columns of A, each of whose numbers lie together in memory, one after the other."""
    width = lanes(a)
    for k in range(depth):
        for i in range(0, rows, width):
            store(packed, k * rows + i, rows - i, load(a, a0 + k * a_step + i, rows - i))


@kernel
def _multiply(a, a0, a_row, a_step, b, b0, b_row, b_column, c, c0, c_row, m, n, depth):
    """C (m, n) += A (m, depth) B (depth, n) on one thread."""
    mode = simd.flush_denormals()
    panel = TILE_VECTORS * lanes(b)
    most = min(DEPTH, depth)
    packed_b = np.empty((n + panel - 1) // panel * panel * most, b.dtype)
    packed_a = np.empty(0 if a_step == 1 else BLOCK * most, a.dtype)
    for k0 in range(0, depth, DEPTH):
        kc = min(DEPTH, depth - k0)
        pack_panels(b, b0 + k0 * b_row, b_row, b_column, packed_b, 0, kc, n)
        for i0 in range(0, m, BLOCK):
            mc = min(BLOCK, m - i0)
            start = a0 + i0 * a_row + k0 * a_step
            if a_step != 1:
                _copy_columns(a, start, a_step, packed_a, mc, kc)
            for j0 in range(0, n, panel):
                at_c = c0 + i0 * c_row + j0
                width = min(panel, n - j0)
                if a_step == 1:
                    panel_product(a, start, a_row, 1, packed_b, j0 * kc, c, at_c, c_row,
                                  mc, kc, width)  # fmt: skip
                else:
                    panel_product(packed_a, 0, 1, mc, packed_b, j0 * kc, c, at_c, c_row,
                                  mc, kc, width)  # fmt: skip
    simd.restore_denormals(mode)


def flat(x: Tensor) -> np.ndarray:
    """The memory of a tensor from its first element to its last."""
    span = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
    array: np.ndarray = x.detach().as_strided((span if x.numel() else 0,), (1,)).numpy()
    return array


def add_product(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """C += A B for (M, N), (M, K), (K, N) on the CPU; returns C.

    The same on every number of threads: each element sums over k in one order. Rows of C lie
    together in memory; A and B may have any strides.
    """
    if 1 not in a.stride():  # such as the expanded gradient of a sum
        a = a.contiguous()
    (m, depth), n = a.shape, b.shape[1]
    if not (m and n and depth):
        return c
    panel = TILE_VECTORS * simd.REGISTER_BYTES // c.element_size()
    operands = flat(a), flat(b), flat(c)
    threads = torch.get_num_threads()
    by_rows = a.stride(1) != 1  # then most of the packing is A's
    parts = spans(m, TILE_ROWS, threads) if by_rows else spans(n, panel, threads)

    def job(first: int, last: int) -> None:
        i, j = (first, 0) if by_rows else (0, first)
        rows, columns = (last - first, n) if by_rows else (m, last - first)
        _multiply(
            operands[0], i * a.stride(0), a.stride(0), a.stride(1),
            operands[1], j * b.stride(1), b.stride(0), b.stride(1),
            operands[2], i * c.stride(0) + j, c.stride(0), rows, columns, depth,
        )  # fmt: skip

    run_parallel([lambda span=span: job(*span) for span in parts])  # type: ignore[misc]
    return c


def product(a: Tensor, b: Tensor) -> Tensor:
    """A B: see `add_product`."""
    return add_product(a.new_zeros(a.shape[0], b.shape[1]), a, b)
