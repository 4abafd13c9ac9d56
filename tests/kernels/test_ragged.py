"""Batches without padding: where each frame stands, and that nothing else is read or written."""

import pytest
import torch

from pipeline.kernels.ragged import layout, pack, unpack

BATCHES = {
    "falling": ([4, 3, 1], 4),
    "rising": ([1, 3, 4], 4),
    "ties": ([2, 3, 2, 3], 3),
    "one": ([3], 3),
    "one frame each": ([1, 1], 1),
    "longer padding": ([2, 1], 5),
    "one in padding": ([2], 5),
    "without frames": ([0, 2, 0], 3),
    "nothing": ([0, 0], 2),
}
each_batch = pytest.mark.parametrize("name", BATCHES)


@each_batch
def test_rows_are_frame_after_frame_the_longest_first(name: str) -> None:
    lengths, num_frames = BATCHES[name]
    ragged = layout(torch.tensor(lengths), num_frames)
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])  # stable
    wanted = [n * num_frames + t for t in range(num_frames) for n in order if t < lengths[n]]
    assert ragged.index.tolist() == wanted
    assert ragged.rows == sum(lengths)
    assert ragged.active.tolist() == [sum(t < u for u in lengths) for t in range(num_frames)]
    assert ragged.offsets.tolist() == [0, *torch.cumsum(ragged.active, 0).tolist()]
    assert ragged.padded == (len(lengths), num_frames)


@each_batch
@pytest.mark.parametrize("junk", [7.0, float("nan"), float("inf")])
def test_there_and_back_without_the_padding(name: str, junk: float) -> None:
    lengths, num_frames = BATCHES[name]
    ragged = layout(torch.tensor(lengths), num_frames)
    inside = torch.arange(num_frames) < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), num_frames, 2).masked_fill(~inside[..., None], junk)
    rows = pack(x, ragged)
    assert rows.shape == (sum(lengths), 2)
    back = unpack(rows, ragged)
    assert torch.equal(back, torch.where(inside[..., None], x, 0.0))


@each_batch
def test_gradients_go_where_the_values_came_from(name: str) -> None:
    lengths, num_frames = BATCHES[name]
    ragged = layout(torch.tensor(lengths), num_frames)
    x = torch.randn(len(lengths), num_frames, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pack(x, ragged), x)
    rows = pack(x.detach(), ragged).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: unpack(r, ragged), rows)


def test_inputs_of_any_strides() -> None:
    ragged = layout(torch.tensor([3, 2]), 3)
    x = torch.randn(3, 2, 4).transpose(0, 1)
    assert torch.equal(pack(x, ragged), pack(x.contiguous(), ragged))


def test_one_whole_sequence_is_not_copied() -> None:
    x = torch.randn(1, 4, 3)
    ragged = layout(torch.tensor([4]), 4)
    assert ragged.is_dense
    assert pack(x, ragged).data_ptr() == x.data_ptr()
    assert unpack(x[0], ragged).data_ptr() == x.data_ptr()
    assert not layout(torch.tensor([3]), 4).is_dense


@pytest.mark.parametrize("lengths", [[5, 1], [3, -1]])
def test_lengths_outside_the_batch(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="lengths must lie in 0 … 4"):
        layout(torch.tensor(lengths), 4)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_random_batches(seed: int, dtype: torch.dtype) -> None:
    """Each row is the frame that its place says; active counts fall; there and back is the same."""
    generator = torch.Generator().manual_seed(seed)
    count, num_frames = torch.randint(1, 9, (2,), generator=generator).tolist()
    lengths = torch.randint(0, num_frames + 1, (count,), generator=generator).to(dtype)
    ragged = layout(lengths, num_frames)
    order = torch.argsort(lengths, descending=True, stable=True).tolist()
    x = torch.randn(count, num_frames, 3, generator=generator)
    rows = pack(x, ragged)
    for t in range(num_frames):
        for n in range(int(ragged.active[t])):
            assert torch.equal(rows[ragged.offsets[t] + n], x[order[n], t])
    assert (ragged.active.diff() <= 0).all()
    assert int(ragged.active.sum()) == int(ragged.offsets[-1]) == int(lengths.sum())
    assert torch.equal(pack(unpack(rows, ragged), ragged), rows)


@pytest.mark.parametrize(("count", "num_frames"), [(0, 0), (0, 3), (2, 0)])
def test_batches_of_nothing(count: int, num_frames: int) -> None:
    ragged = layout(torch.zeros(count, dtype=torch.int64), num_frames)
    assert (ragged.rows, ragged.offsets.tolist()) == (0, [0] * (num_frames + 1))
    assert pack(torch.zeros(count, num_frames, 4), ragged).shape == (0, 4)
    assert unpack(torch.zeros(0, 4), ragged).shape == (count, num_frames, 4)


def test_gradients_of_the_padding_are_not_read() -> None:
    """What reaches the zeros of `unpack` is dropped; `pack` gives the padding zeros."""
    ragged, inside = layout(torch.tensor([1, 3]), 3), torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    rows = torch.randn(4, 2, requires_grad=True)
    upstream = torch.ones(2, 3, 2).masked_fill(~inside[..., None], torch.nan)
    unpack(rows, ragged).backward(upstream)
    assert torch.equal(rows.grad, torch.ones(4, 2))
    x = torch.full((2, 3, 2), torch.nan, requires_grad=True)
    pack(x, ragged).backward(torch.ones(4, 2))
    assert torch.equal(x.grad, inside[..., None].expand(-1, -1, 2).float())
