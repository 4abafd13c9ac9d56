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
