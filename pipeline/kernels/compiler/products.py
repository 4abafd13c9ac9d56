"""Matrix products in tiles that fit the registers, to be used within kernels and between them.

A tile is `TILE_ROWS` rows by `PANEL` columns of C, kept in registers while a panel of B streams by
and single numbers of A are broadcast; so most instructions are multiply-adds. Operands are given
as an array, an offset and strides, since rows of C are often a part of something larger.
"""

from typing import Any

import torch
from llvmlite import ir
from numba import types
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pipeline.kernels.compiler import simd
from pipeline.kernels.compiler.compiling import Floats, call_address, kernel, part
from pipeline.kernels.compiler.simd import Vector, beyond, intrinsic, lanes, load, store
from pipeline.kernels.compiler.threads import run_parallel, spans

TILE_ROWS = 6
TILE_VECTORS = 2 if simd.REGISTER_BYTES == 32 else 4  # AVX2 has 16 registers, the others 32
DEPTH = 512  # rows of a panel of B that stay in the cache
WORTH_A_THREAD = 1 << 20  # multiply-adds of few rows from which on threads share them
NARROW_ROWS = 12  # of a tile of less than a whole panel's vectors, which leaves more registers
BLOCK = 96  # rows of A that meet all panels of B before the next ones do


def _make_tile(rows: int, vectors: int = TILE_VECTORS) -> Any:
    """C[:rows, :columns] += A[:rows, :depth] B[:depth, :columns]; columns ≤ so many vectors."""

    @intrinsic
    def tile(
        typingctx: Any,
        a: Any,
        a_row: Any,
        a_step: Any,
        b: Any,
        b_step: Any,
        c: Any,
        c_row: Any,
        depth: Any,
        columns: Any,
    ) -> Any:
        size = types.intp
        signature = types.void(a, size, size, b, size, c, size, size, size)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit_tile(builder, (rows, vectors), Vector(a.dtype), args)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _emit_tile(builder: Any, size_of: tuple[int, int], vector: Vector, args: Any) -> None:
    at_a, a_row, a_step, at_b, b_step, at_c, c_row, depth, columns = args
    rows, vectors = size_of
    fma = simd.call_llvm("llvm.fma")
    wide, size = simd.llvm_vector(vector), ir.IntType(64)
    starts = [size(v * vector.lanes) for v in range(vectors)]
    masks = [simd.mask(builder, vector, builder.sub(columns, start)) for start in starts]
    cells = [(r, v) for r in range(rows) for v in range(vectors)]
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
def _panel_product(
    a: Floats, a_row: int, a_step: int, b: Floats, b_step: int, c: Floats, c_row: int,
    rows: int, depth: int, columns: int,
) -> None:  # fmt: skip
    """C (rows, columns) += A (rows, depth) B (depth, columns); columns ≤ a panel, depth ≥ 1."""
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    start = 0
    for index in range(tiles):  # of almost equal heights
        height = (rows - start + tiles - index - 1) // (tiles - index)
        at_a, at_c = beyond(a, start * a_row), beyond(c, start * c_row)
        if height == 6:
            _tile_6(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
        elif height == 5:
            _tile_5(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
        elif height == 4:
            _tile_4(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
        elif height == 3:
            _tile_3(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
        elif height == 2:
            _tile_2(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
        else:
            _tile_1(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
        start += height


@intrinsic
def panel_product(
    typingctx: Any, function: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any,
    c_row: Any, rows: Any, depth: Any, columns: Any,
) -> Any:  # fmt: skip
    """Call `_panel_product` by its address, which `panel_products` gives."""
    size = types.intp
    return types.void(size, a, size, size, b, size, c, size, size, size, size), call_address


_narrow_12, _narrow_4, _narrow_1 = (_make_tile(r, 1) for r in (NARROW_ROWS, 4, 1))
_half_12, _half_4, _half_1 = (_make_tile(r, TILE_VECTORS // 2) for r in (NARROW_ROWS, 4, 1))


@kernel
def _narrow_product(
    a: Floats, a_row: int, a_step: int, b: Floats, b_step: int, c: Floats, c_row: int,
    rows: int, depth: int, columns: int,
) -> None:  # fmt: skip
    """`_panel_product` for columns that fit one vector: the same numbers, sooner."""
    start = 0
    while start < rows:
        at_a, at_c = beyond(a, start * a_row), beyond(c, start * c_row)
        if rows - start >= 12:
            _narrow_12(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
            start += 12
        elif rows - start >= 4:
            _narrow_4(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
            start += 4
        else:
            _narrow_1(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
            start += 1


@kernel
def _half_product(
    a: Floats, a_row: int, a_step: int, b: Floats, b_step: int, c: Floats, c_row: int,
    rows: int, depth: int, columns: int,
) -> None:  # fmt: skip
    """`_panel_product` for columns that fit half a panel of four vectors."""
    start = 0
    while start < rows:
        at_a, at_c = beyond(a, start * a_row), beyond(c, start * c_row)
        if rows - start >= 12:
            _half_12(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
            start += 12
        elif rows - start >= 4:
            _half_4(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
            start += 4
        else:
            _half_1(at_a, a_row, a_step, b, b_step, at_c, c_row, depth, columns)
            start += 1


def products_for(dtype: torch.dtype, columns: int) -> tuple[int, int]:
    """The address of a product for so many columns, as `panel_products`, and a panel's width."""
    lanes_ = simd.REGISTER_BYTES * 8 // torch.finfo(dtype).bits
    if columns <= lanes_:
        return _narrow_product.address(dtype), lanes_
    if columns <= 2 * lanes_ and TILE_VECTORS == 4:
        return _half_product.address(dtype), 2 * lanes_
    return panel_products(dtype), TILE_VECTORS * lanes_


def panel_products(dtype: torch.dtype) -> int:
    """The address that kernels which multiply matrices take as their first argument."""
    return _panel_product.address(dtype)


@part
def _pack_panels(b, b_row, b_column, packed, depth, columns):
    """B (depth, columns) of any strides -> panels one after the other, the last filled with 0."""
    panel = TILE_VECTORS * lanes(b)
    for j0 in range(0, columns, panel):
        width = min(panel, columns - j0)
        target, source = beyond(packed, j0 * depth), beyond(b, j0 * b_column)
        if b_column == 1:
            for k in range(depth):
                for j in range(0, panel, lanes(b)):
                    value = load(source, k * b_row + j, width - j)
                    store(target, k * panel + j, panel - j, value)
        else:
            for j in range(panel):
                for k in range(depth):
                    inside = j < width
                    target[k * panel + j] = source[k * b_row + j * b_column] if inside else 0


@kernel
def _pack(b: Floats, b_row: int, b_column: int, packed: Floats, depth: int, columns: int) -> None:
    _pack_panels(b, b_row, b_column, packed, depth, columns)


def packed_panels(weight: Tensor, *, transposed: bool) -> Tensor:
    """Panels, as `packed_product` reads them, of a contiguous matrix or of its transpose."""
    rows, columns = weight.shape
    panel = TILE_VECTORS * simd.REGISTER_BYTES // weight.element_size()
    depth, width = (columns, rows) if transposed else (rows, columns)
    panels = weight.new_empty(-(-width // panel) * panel * depth)
    strides = (1, columns) if transposed else (columns, 1)
    _pack[weight.dtype](weight, *strides, panels, depth, width)
    return panels


_kept: Any = WeakIdKeyDictionary()  # of weights: by place and shape, the version and the panels


def kept_panels(weight: Tensor, *, transposed: bool) -> Tensor:
    """`packed_panels`, which in inference are packed once and kept as long as the weights are.

    They are packed again when the weights have changed.
    """
    base = weight if weight._base is None else weight._base
    if not torch.is_inference_mode_enabled() or base.is_inference():
        return packed_panels(weight.contiguous(), transposed=transposed)
    of_base = _kept.setdefault(base, {})
    key = (weight.data_ptr(), weight.shape, weight.stride(), transposed)
    version, panels = of_base.get(key, (-1, weight))
    if version != weight._version:
        panels = packed_panels(weight.contiguous(), transposed=transposed)
        of_base[key] = weight._version, panels
    kept: Tensor = panels
    return kept


@part
def packed_product(function, a, a_row, panels, c, c_row, rows, depth, width):
    """C (rows, width) += A (rows, depth) times packed weights, for any number of rows."""
    panel = TILE_VECTORS * lanes(a)
    for j in range(0, width if rows > 0 else 0, panel):
        panel_product(function, a, a_row, 1, beyond(panels, j * depth), panel, beyond(c, j), c_row,
                      rows, depth, min(panel, width - j))  # fmt: skip


@kernel
def _multiply(
    function: int, a: Floats, a_row: int, a_step: int, b: Floats, b_row: int,
    b_column: int, c: Floats, c_row: int, m: int, n: int, depth: int, packed_a: Floats,
    packed_b: Floats,
) -> None:  # fmt: skip
    """C (m, n) += A (m, depth) B (depth, n) on one thread."""
    mode = simd.flush_denormals()
    panel = TILE_VECTORS * lanes(b)
    for k0 in range(0, depth, DEPTH):
        kc = min(DEPTH, depth - k0)
        _pack_panels(beyond(b, k0 * b_row), b_row, b_column, packed_b, kc, n)
        for i0 in range(0, m, BLOCK):
            mc = min(BLOCK, m - i0)
            part_a, row, step = beyond(a, i0 * a_row + k0 * a_step), a_row, a_step
            if a_step != 1:
                for k in range(kc):
                    for i in range(0, mc, lanes(a)):
                        store(packed_a, k * mc + i, mc - i, load(part_a, k * a_step + i, mc - i))
                part_a, row, step = packed_a, 1, mc
            for j0 in range(0, n, panel):
                panel_product(function, part_a, row, step, beyond(packed_b, j0 * kc), panel,
                              beyond(c, i0 * c_row + j0), c_row, mc, kc,
                              min(panel, n - j0))  # fmt: skip
    simd.restore_denormals(mode)


def memory(x: Tensor) -> Tensor:
    """The memory of a tensor of any strides from its first element to its last."""
    span = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
    return x.detach().as_strided((span if x.numel() else 0,), (1,))


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
    dtype = c.dtype
    panel = TILE_VECTORS * simd.REGISTER_BYTES // c.element_size()
    multiply, function = _multiply[dtype], panel_products(dtype)
    threads = torch.get_num_threads()
    by_rows = a.stride(1) != 1  # then most of the packing is A's
    parts = spans(m, TILE_ROWS, threads) if by_rows else spans(n, panel, threads)

    def job(first: int, last: int) -> None:
        i, j = (first, 0) if by_rows else (0, first)
        rows, columns = (last - first, n) if by_rows else (m, last - first)
        packed_a = c.new_empty(BLOCK * min(DEPTH, depth) if by_rows else 0)
        packed_b = c.new_empty(-(-columns // panel) * panel * min(DEPTH, depth))
        multiply(
            function, memory(a[i:]), a.stride(0), a.stride(1), memory(b[:, j:]), b.stride(0),
            b.stride(1), memory(c[i:, j:]), c.stride(0), rows, columns, depth, packed_a, packed_b,
        )  # fmt: skip

    run_parallel([lambda span=span: job(*span) for span in parts])  # type: ignore[misc]
    return c


@kernel
def _few_rows(
    function: int, a: Floats, panels: Floats, c: Floats, c_row: int, rows: int, depth: int,
    width: int,
) -> None:  # fmt: skip
    mode = simd.flush_denormals()
    packed_product(function, a, depth, panels, c, c_row, rows, depth, width)
    simd.restore_denormals(mode)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x`` (M, K) times ``weight`` (N, K) transposed, plus ``bias`` (N,): (M, N).

    In inference few rows meet weights that stay packed; the sums are the same, to the last bit.
    """
    rows = bias.repeat(len(x), 1)
    if not (torch.is_inference_mode_enabled() and 0 < len(x) <= BLOCK and weight.numel()):
        return add_product(rows, x, weight.t())
    (count, depth), width, x = x.shape, len(weight), x.contiguous()
    panels, flat = kept_panels(weight, transposed=True), rows.view(-1)
    few_rows, function = _few_rows[x.dtype], panel_products(x.dtype)
    panel = TILE_VECTORS * simd.REGISTER_BYTES // x.element_size()
    threads = torch.get_num_threads() if count * depth * width > WORTH_A_THREAD else 1

    def job(first: int, last: int) -> None:
        few_rows(function, x, panels[first * depth :], flat[first:], width, count, depth,
                 last - first)  # fmt: skip

    run_parallel([lambda span=span: job(*span) for span in spans(width, panel, threads)])  # type: ignore[misc]
    return rows


def product(a: Tensor, b: Tensor) -> Tensor:
    """A B: see `add_product`."""
    return add_product(a.new_zeros(a.shape[0], b.shape[1]), a, b)
