"""Joiner and loss as one, both joiners, against the dense joiner and `transducer_loss`."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pipeline.kernels.engines import _has
from pipeline.kernels.transducer import joint_loss as module
from pipeline.kernels.transducer.joint_loss import joint_transducer_loss, sum_transducer_loss
from pipeline.kernels.transducer.loss import transducer_loss

torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
each_engine = pytest.mark.parametrize("engine", ["plain", "compiled"], indirect=True)
each_joiner = pytest.mark.parametrize("kind", ["tanh", "sum"])


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Plain torch, or what the machine has."""
    monkeypatch.setenv("PIPELINE_KERNELS", request.param)
    _has.cache_clear()
    yield request.param
    _has.cache_clear()


class Problem(NamedTuple):
    """A ragged batch: what joiner and loss are given."""

    joiner: list[Tensor]  # rows, columns and, for the tanh joiner, weight and bias
    targets: Tensor
    frames: Tensor
    labels: Tensor
    blank: int = 0

    def losses(self, joiner: list[Tensor] | None = None, reduction: str = "none") -> Tensor:
        joiner = self.joiner if joiner is None else joiner
        fused = joint_transducer_loss if len(joiner) == 4 else sum_transducer_loss
        rest = (self.targets, self.frames, self.labels, self.blank, reduction)
        return fused(*joiner, *rest)

    def dense(self, joiner: list[Tensor] | None = None) -> Tensor:
        """[G13] eq. 16-17 or [G12] eq. 12-13 with all in memory, then the loss from logits."""
        logits = lattice(self.joiner if joiner is None else joiner)
        lengths = self.targets, self.frames, self.labels
        return transducer_loss(logits, *lengths, blank=self.blank, reduction="none")

    def gradients(self, losses: Callable[[list[Tensor]], Tensor]) -> list[Tensor]:
        """Those of a sum that weights each utterance differently."""
        leaves = [x.clone().requires_grad_() for x in self.joiner]
        found = losses(leaves)
        by = torch.linspace(0.5, 2.0, len(found), dtype=found.dtype, device=found.device)
        return list(torch.autograd.grad((found * by).sum(), leaves))

    def to(self, device: str) -> "Problem":
        return Problem([x.to(device) for x in self.joiner], *(x.to(device) for x in self[1:4]), 0)


def lattice(joiner: list[Tensor]) -> Tensor:
    summed = joiner[0][:, :, None] + joiner[1][:, None]
    return summed if len(joiner) == 2 else torch.tanh(summed) @ joiner[2].t() + joiner[3]


def problem(
    kind: str = "tanh",
    frames: tuple[int, ...] = (4, 2, 5, 1),
    labels: tuple[int, ...] = (3, 1, 0, 4),
    vocab: int = 6,
    dim: int = 7,
    dtype: torch.dtype = torch.float64,
    scale: float = 1.0,
) -> Problem:
    generator = torch.Generator().manual_seed(sum(frames) + vocab)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    size = dim if kind == "tanh" else vocab
    n, t, u = len(frames), max(frames), max(labels) + 1
    joiner = [scale * normal(n, t, size), scale * normal(n, u, size)]
    if kind == "tanh":
        joiner += [normal(vocab, dim), normal(vocab)]
    targets = torch.randint(1, vocab, (n, u - 1), generator=generator)
    return Problem(joiner, targets, torch.tensor(frames), torch.tensor(labels))


SHAPES = {
    "ragged": ((4, 2, 5, 1), (3, 1, 0, 4)),
    "one cell": ((1,), (0,)),
    "one frame": ((1, 1), (3, 0)),
    "no labels": ((6, 2), (0, 0)),
    "more labels than frames": ((2, 3), (6, 4)),
    "several tiles": ((33, 20, 9), (17, 3, 12)),
    "many labels": ((7, 3), (101, 47)),
}


@pytest.mark.parametrize("device", DEVICES)
@each_joiner
@each_engine
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_dense_joiner_and_the_loss(
    name: str, kind: str, engine: str, device: str
) -> None:
    given = problem(kind, *SHAPES[name], vocab=19, dim=21).to(device)
    losses = given.losses()
    assert losses.dtype == torch.float64
    torch.testing.assert_close(losses, given.dense(), rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(
        given.gradients(given.losses), given.gradients(given.dense), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


@each_joiner
@each_engine
def test_float32(kind: str, engine: str) -> None:
    exact = problem(kind, *SHAPES["several tiles"], vocab=62, dim=64)
    given = exact._replace(joiner=[x.float() for x in exact.joiner])
    assert given.losses().dtype == torch.float32
    torch.testing.assert_close(given.losses().double(), exact.dense(), rtol=2e-6, atol=1e-4)
    for mine, theirs in zip(
        given.gradients(given.losses), exact.gradients(exact.dense), strict=True
    ):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=2e-5)


@each_joiner
@each_engine
def test_gradcheck(kind: str, engine: str) -> None:
    given = problem(kind, (3, 2), (2, 1), vocab=4, dim=3)
    leaves = [x.requires_grad_() for x in given.joiner]
    assert torch.autograd.gradcheck(lambda *x: given.losses(list(x)), leaves)


@each_joiner
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(kind: str, dtype: torch.dtype) -> None:
    given = problem(kind, dtype=dtype)
    exact = given._replace(joiner=[x.double() for x in given.joiner])
    losses = given.losses()
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), exact.dense(), rtol=1e-2, atol=1e-2)
    for mine, theirs in zip(
        given.gradients(given.losses), exact.gradients(exact.dense), strict=True
    ):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-2, atol=2e-2)


@each_joiner
@each_engine
@pytest.mark.parametrize("junk", [1e4, float("nan"), float("inf"), -float("inf")])
def test_padding_changes_nothing(kind: str, engine: str, junk: float) -> None:
    clean, dirty = problem(kind), problem(kind)
    for n, (t, u) in enumerate(zip(dirty.frames, dirty.labels, strict=True)):
        dirty.joiner[0][n, t:] = junk
        dirty.joiner[1][n, u + 1 :] = junk
        dirty.targets[n, u:] = -7 if n else 999
    assert torch.equal(dirty.losses(), clean.losses())
    for mine, theirs in zip(
        dirty.gradients(dirty.losses), clean.gradients(clean.losses), strict=True
    ):
        assert torch.equal(mine, theirs)


@each_joiner
@each_engine
def test_a_confident_joiner(kind: str, engine: str) -> None:
    """Most cells are never visited; what is skipped is below rounding."""
    given = problem(kind, (60, 41), (25, 11), scale=8.0)
    torch.testing.assert_close(given.losses(), given.dense(), rtol=1e-11, atol=1e-11)
    for mine, theirs in zip(
        given.gradients(given.losses), given.gradients(given.dense), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@each_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_sums_saturate_the_layer(engine: str, dtype: torch.dtype) -> None:
    """tanh of ± 1e4 is ± 1, whatever it is computed from."""
    given = problem("tanh", (9, 5), (4, 2), dtype=dtype, scale=1e4)
    torch.testing.assert_close(given.losses(), given.dense(), rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(
        given.gradients(given.losses), given.gradients(given.dense), strict=True
    ):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def opposed(dtype: torch.dtype) -> Problem:
    """Encoder and predictor that deem different outputs possible: exponentials underflow."""
    given = problem("sum", (4, 3), (2, 1), vocab=5, dtype=dtype)
    given.joiner[0][0, 1] += torch.tensor([0.0, 2e3, 0.0, 0.0, 0.0], dtype=dtype)
    given.joiner[1][0, 1] += torch.tensor([0.0, -2e3, 1e3, 0.0, 0.0], dtype=dtype)
    given.joiner[1][0, 2] -= torch.tensor([1e3, 2e3, 1e3, 1e3, 1e3], dtype=dtype)
    return given


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_sum_whose_exponentials_underflow(dtype: torch.dtype) -> None:
    given = opposed(dtype)
    f, f_top = module._exponentials(given.joiner[0], given.frames)
    g, g_top = module._exponentials(given.joiner[1], given.labels + 1)
    assert module._underflown(f @ g.transpose(1, 2)) == [0]
    assert f_top.max() > 1e3 > 0 > g_top.min()
    exact = given._replace(joiner=[x.double() for x in given.joiner])
    torch.testing.assert_close(given.losses().double(), exact.dense(), rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(
        given.gradients(given.losses), exact.gradients(exact.dense), strict=True
    ):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-6)


@each_joiner
@each_engine
def test_targets_that_no_path_gives(kind: str, engine: str) -> None:
    """An infinite loss without a gradient; the neighbour is as it would be alone."""
    given = problem(kind, (4, 3), (2, 2))
    given.targets[:] = torch.tensor([[1, 2], [3, 4]])
    if kind == "tanh":
        given.joiner[3][2] = -torch.inf
    else:
        given.joiner[0][:, :, 2] = -torch.inf
    losses = given.losses()
    assert losses[0] == torch.inf
    torch.testing.assert_close(losses[1], given.dense()[1])
    rows, columns, *_ = given.gradients(given.losses)
    for gradient in (rows, columns):
        assert torch.isfinite(gradient).all()
        assert not gradient[0].any()
        assert gradient[1].any()


@each_joiner
@each_engine
def test_a_number_that_is_none_shows(kind: str, engine: str) -> None:
    """NaN in one utterance is a NaN of its loss and of no other."""
    given = problem(kind)
    clean = given.losses()
    given.joiner[0][0, 2, 1] = torch.nan
    losses = given.losses()
    assert torch.isnan(losses[0])
    torch.testing.assert_close(losses[1:], clean[1:])
    given.gradients(given.losses)  # ends


@each_joiner
def test_reductions_and_blanks(kind: str) -> None:
    given = problem(kind)
    none = given.losses()
    torch.testing.assert_close(given.losses(reduction="sum"), none.sum())
    torch.testing.assert_close(given.losses(reduction="mean"), none.mean())
    last = given._replace(blank=5, targets=given.targets.clamp(max=4))
    torch.testing.assert_close(last._replace(blank=-1).losses(), last.dense())


@each_joiner
def test_same_bytes_on_every_run_and_any_number_of_threads(kind: str) -> None:
    given = problem(kind, (60, 41, 35), (25, 11, 20), vocab=33, dim=40, dtype=torch.float32)
    first = [given.losses(), *given.gradients(given.losses)]
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            again = [given.losses(), *given.gradients(given.losses)]
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(1)


@each_joiner
def test_inputs_of_any_strides(kind: str) -> None:
    given = problem(kind)
    strided = [
        x.transpose(0, 1).contiguous().transpose(0, 1) if x.dim() > 1 else x for x in given.joiner
    ]
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(given.losses(strided), given.losses())
    mine = given._replace(joiner=strided)
    for a, b in zip(mine.gradients(mine.losses), given.gradients(given.losses), strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_kept_when_no_gradient_is_needed() -> None:
    given = problem()
    assert not given.losses().requires_grad
    partly = [given.joiner[0].clone().requires_grad_(), *given.joiner[1:]]
    given.losses(partly).sum().backward()
    torch.testing.assert_close(
        partly[0].grad,
        torch.autograd.grad(given.dense(partly).sum(), partly[0])[0],
    )


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("tanh", {0: torch.zeros(4, 5)}, r"the encoder's are \(N, T, J\)"),
        ("tanh", {1: torch.zeros(3, 5, 7)}, r"predictor's \(N, U\+1, J\)"),
        ("tanh", {1: torch.zeros(4, 5, 8)}, r"predictor's \(N, U\+1, J\)"),
        ("tanh", {2: torch.zeros(6, 8)}, "encoder's need J = 8 numbers, not 7"),
        ("tanh", {3: torch.zeros(5)}, "bias V = 6 numbers"),
        ("sum", {1: torch.zeros(4, 5, 5)}, r"predictor's \(N, U\+1, V\)"),
        ("sum", {1: torch.zeros(4, 3, 6)}, r"U\+1 = 3, so targets need 2"),
    ],
)
def test_shapes_that_do_not_fit(kind: str, changed: dict[int, Tensor], message: str) -> None:
    given = problem(kind)
    joiner = [changed.get(i, x) for i, x in enumerate(given.joiner)]
    with pytest.raises(ValueError, match=message):
        given.losses(joiner)


@each_joiner
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frames": torch.tensor([4, 2, 6, 1])}, "logit_lengths must lie in 1 … 5"),
        ({"labels": torch.tensor([3, 1, -1, 4])}, "target_lengths must lie in 0 … 4"),
        ({"frames": torch.tensor([4])}, "same batch size"),
        ({"targets": torch.zeros(4, 4, dtype=torch.int64)}, "not be the blank, 0"),
        ({"targets": torch.full((4, 4), 6)}, "targets must lie in 0 … 5"),
        ({"blank": 6}, "blank 6 is no id of 6 outputs"),
    ],
)
def test_batches_that_do_not_fit(kind: str, changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem(kind)._replace(**changed).losses()
    with pytest.raises(ValueError, match="reduction is none, mean or sum"):
        problem(kind).losses(reduction="average")
