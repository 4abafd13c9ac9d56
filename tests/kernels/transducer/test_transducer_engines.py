"""Every engine of the transducer's lattice, function by function: against the printed equations,
brute force, autograd through the joiner, and what must not matter."""

import importlib
import itertools
import os
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.transducer import plain as transducer_plain
from pipeline.kernels.transducer import reference
from pipeline.kernels.transducer.plain import Arrows, Joint, Lattice

torch.set_num_threads(1)


class Engine(NamedTuple):
    module: ModuleType
    device: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.module.__name__.rpartition('_')[2]}-{self.device}-{str(self.dtype)[6:]}"


def engines() -> list[Engine]:
    """Each engine that works here with each dtype it computes in itself."""
    both = (torch.float64, torch.float32)
    if os.environ.get("TRITON_INTERPRET") == "1":  # see test_transducer_cuda.py
        module = importlib.import_module("pipeline.kernels.transducer.cuda")
        return [Engine(module, "cpu", torch.float32)]
    found = [Engine(transducer_plain, "cpu", dtype) for dtype in both]
    if importlib.util.find_spec("numba") is not None:
        module = importlib.import_module("pipeline.kernels.transducer.cpu")
        found += [Engine(module, "cpu", dtype) for dtype in both]
    if torch.cuda.is_available():
        found.append(Engine(transducer_plain, "cuda", torch.float64))
        module = importlib.import_module("pipeline.kernels.transducer.cuda")
        if module.available():
            found += [Engine(module, "cuda", dtype) for dtype in both]
    return found


each_engine = pytest.mark.parametrize("engine", engines(), ids=str)


class Problem:
    """A random ragged batch with the joiner's inputs, in float64."""

    def __init__(
        self, frames: list[int], labels: list[int], vocab: int = 5, blank: int = 0, joint: int = 7
    ) -> None:
        generator = torch.Generator().manual_seed(len(frames) + vocab)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        n, t_max, u_max = len(frames), max(frames), max(labels) + 1
        self.blank, self.frames, self.labels = blank, torch.tensor(frames), torch.tensor(labels)
        inputs = normal(n, t_max, joint), normal(n, u_max, joint)
        self.joiner = [*inputs, normal(vocab, joint), normal(vocab)]
        self.logits = self.dense(self.joiner)
        others = torch.tensor([k for k in range(vocab) if k != blank])
        self.targets = others[torch.randint(0, vocab - 1, (n, u_max - 1), generator=generator)]
        self.upstream = normal(n)

    @staticmethod
    def dense(joiner: list[Tensor]) -> Tensor:
        """[G13] eq. 16-17 with all in memory."""
        rows, columns, weight, bias = joiner
        return torch.tanh(rows[:, :, None] + columns[:, None]) @ weight.t() + bias

    def each(self) -> Iterator[tuple[int, np.ndarray, list[int]]]:
        """Index, logits (T, U+1, V) and targets of each utterance without its padding."""
        for n, (t, u) in enumerate(zip(self.frames.tolist(), self.labels.tolist(), strict=True)):
            yield n, self.logits[n, :t, : u + 1].numpy(), self.targets[n, :u].tolist()

    def gradient(self) -> Tensor:
        """The reference's gradient in the logits, times the upstream gradient."""
        whole = torch.zeros_like(self.logits)
        for n, logits, targets in self.each():
            _, found = reference.transducer_loss(logits, targets, self.blank)
            whole[n, : len(logits), : len(targets) + 1] = torch.from_numpy(found)
        return whole * self.upstream[:, None, None, None]

    def joint_gradient(self) -> tuple[Tensor, ...]:
        """That of the joiner's inputs, by autograd through the dense joiner."""
        leaves = [x.clone().requires_grad_() for x in self.joiner]
        return torch.autograd.grad(self.dense(leaves), leaves, self.gradient())


class On:
    """A problem's functions, computed by an engine."""

    def __init__(self, engine: Engine, problem: Problem) -> None:
        self.engine, self.problem, self.kernels = engine, problem, engine.module
        self.targets = problem.targets.to(engine.device)
        self.lengths = problem.frames.to(engine.device), problem.labels.to(engine.device)
        self.logits = self.cast(problem.logits)
        self.joiner = [self.cast(x) for x in problem.joiner]

    def cast(self, x: Tensor) -> Tensor:
        return x.to(self.engine.device, self.engine.dtype)

    def arrows(self, *, joint: bool = False) -> Arrows:
        tail = (self.targets, *self.lengths, self.problem.blank)
        if joint:
            return self.kernels.joint_arrows(Joint(*self.joiner, *tail))
        return self.kernels.arrows(self.logits, *tail)

    def sweep(self, arrows: Arrows) -> Lattice:
        return self.kernels.sweep(arrows.null, arrows.label, *self.lengths)

    def upstream(self, lattice: Lattice) -> Lattice:
        by = self.cast(self.problem.upstream)[:, None, None]
        return Lattice(lattice.log_prob, lattice.null * by, lattice.label * by)

    def logits_gradient(self) -> Tensor:
        arrows = self.arrows()
        lattice = self.upstream(self.sweep(arrows))
        return self.kernels.logits_gradient(
            self.logits, self.targets, arrows.log_norm, lattice, self.problem.blank, *self.lengths
        )

    def joint_gradient(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        arrows = self.arrows(joint=True)
        lattice = self.upstream(self.sweep(arrows))
        joint = Joint(*self.joiner, self.targets, *self.lengths, self.problem.blank)
        return self.kernels.joint_gradient(joint, arrows.log_norm, lattice)

    def close(self, found: Tensor, wanted: Tensor | np.ndarray, scale: float = 1.0) -> None:
        assert found.device.type == self.engine.device
        tolerance = scale * (1e-11 if self.engine.dtype == torch.float64 else 2e-5)
        wanted = torch.as_tensor(wanted, dtype=torch.float64)
        torch.testing.assert_close(found.double().cpu(), wanted, rtol=tolerance, atol=tolerance)


PROBLEMS = {
    "ragged": Problem([4, 2, 5, 1], [3, 1, 0, 4]),
    "one cell": Problem([1], [0]),
    "one frame": Problem([1, 1], [3, 0], blank=2),
    "no labels": Problem([6, 2], [0, 0]),
    "more labels than frames": Problem([2, 3], [6, 4], joint=3),
    "square": Problem([7], [7], blank=4),
    "two outputs": Problem([3, 4], [2, 3], vocab=2, blank=1),
    "many outputs": Problem([4, 3], [2, 3], vocab=130, blank=129, joint=33),
    "several tiles": Problem([19, 11, 9], [9, 17, 3], vocab=19, joint=40),
}
PROBLEMS["ragged"].upstream[1] = 0.0
each_problem = pytest.mark.parametrize("name", PROBLEMS)


def posteriors(logits: np.ndarray, targets: list[int], blank: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the arrows ∅ and label, (T, U+1), from the reference's variables."""
    alpha, beta, null, label = reference.lattice(logits, targets, blank)
    after_null = np.full_like(beta, -np.inf)
    after_null[:-1] = beta[1:]
    after_null[-1, -1] = 0.0
    after_label = np.full_like(beta, -np.inf)
    after_label[:, :-1] = beta[:, 1:]
    return (
        np.exp(alpha + null + after_null - beta[0, 0]),
        np.exp(alpha + label + after_label - beta[0, 0]),
    )


@each_engine
@each_problem
@pytest.mark.parametrize("joint", [False, True], ids=["logits", "joint"])
def test_arrows_are_those_of_the_reference(engine: Engine, name: str, joint: bool) -> None:
    on = On(engine, PROBLEMS[name])
    arrows = on.arrows(joint=joint)
    for n, logits, targets in on.problem.each():
        t, u = len(logits), len(targets)
        _, _, null, label = reference.lattice(logits, targets, on.problem.blank)
        on.close(arrows.null[n, :t, : u + 1], null)
        on.close(arrows.label[n, :t, :u], label[:, :u])
        on.close(arrows.log_norm[n, :t, : u + 1], np.logaddexp.reduce(logits, axis=2))


@each_engine
@each_problem
def test_the_sweep_is_that_of_the_reference(engine: Engine, name: str) -> None:
    on = On(engine, PROBLEMS[name])
    lattice = on.sweep(on.arrows())
    assert lattice.log_prob.dtype == torch.float64
    assert lattice.null.dtype == lattice.label.dtype == engine.dtype
    for n, logits, targets in on.problem.each():
        t, u = len(logits), len(targets)
        beta = reference.lattice(logits, targets, on.problem.blank)[1]
        on.close(lattice.log_prob[n], beta[0, 0])
        null, label = posteriors(logits, targets, on.problem.blank)
        on.close(lattice.null[n, :t, : u + 1], null)
        on.close(lattice.label[n, :t, : u + 1], label)
        for found in (lattice.null[n], lattice.label[n]):
            assert not found[t:].any()
            assert not found[:, u + 1 :].any()
        assert not lattice.label[n, :, u:].any()
        assert abs(lattice.null[n, t - 1, u].item() - 1.0) < 1e-6


@each_engine
@each_problem
def test_the_logits_gradient_is_that_of_the_reference(engine: Engine, name: str) -> None:
    on = On(engine, PROBLEMS[name])
    gradient = on.logits_gradient()
    assert gradient.dtype == engine.dtype
    on.close(gradient, on.problem.gradient())
    assert gradient.sum(dim=3).abs().max() < (1e-13 if engine.dtype == torch.float64 else 1e-5)


@each_engine
@each_problem
def test_the_joint_gradient_is_that_of_the_dense_joiner(engine: Engine, name: str) -> None:
    on = On(engine, PROBLEMS[name])
    found = on.joint_gradient()
    for mine, theirs in zip(found, on.problem.joint_gradient(), strict=True):
        assert mine.dtype == engine.dtype
        on.close(mine, theirs, scale=3.0)
    again = on.joint_gradient()
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def by_brute_force(logits: np.ndarray, targets: list[int], blank: int) -> tuple[float, np.ndarray]:
    """[G12] eq. 1: the probabilities of all alignments; their sum, and for each cell and arrow
    (∅, label) the share of those that take it, (2, T, U+1)."""
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    frames, labels = len(logits), len(targets)
    whole, taken = 0.0, np.zeros((2, frames, labels + 1))
    # The last output is a blank at the last frame; the labels stand anywhere before it.
    for places in itertools.combinations(range(frames - 1 + labels), labels):
        t, u, product, path = 0, 0, 1.0, np.zeros_like(taken)
        for output in range(frames + labels):
            is_label = output in places
            path[int(is_label), t, u] = 1.0
            product *= probs[t, u, targets[u] if is_label else blank]
            t, u = (t, u + 1) if is_label else (t + 1, u)
        whole += product
        taken += product * path
    return whole, taken / whole


@each_engine
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("frames", "labels"), [(1, 0), (1, 3), (3, 0), (3, 2), (4, 3)])
def test_it_is_the_sum_over_all_alignments(
    engine: Engine, frames: int, labels: int, repeated: bool
) -> None:
    problem = Problem([frames], [labels], vocab=4, blank=3)
    if repeated:
        problem.targets = torch.full_like(problem.targets, 2)
    on = On(engine, problem)
    lattice = on.sweep(on.arrows())
    ((_, logits, targets),) = problem.each()
    probability, shares = by_brute_force(logits, targets, problem.blank)
    on.close(lattice.log_prob[0], np.log(probability))
    on.close(lattice.null[0], shares[0])
    on.close(lattice.label[0], shares[1])


@each_engine
def test_every_diagonal_sums_to_one(engine: Engine) -> None:
    """[G12] eq. 19."""
    on = On(engine, PROBLEMS["several tiles"])
    lattice = on.sweep(on.arrows())
    occupancy = (lattice.null + lattice.label).double().cpu().numpy()
    for n, logits, targets in on.problem.each():
        cells = occupancy[n, : len(logits), : len(targets) + 1][:, ::-1]
        for diagonal in range(len(logits) + len(targets)):
            assert np.trace(cells, len(targets) - diagonal) == pytest.approx(1.0, abs=1e-6)


@each_engine
@pytest.mark.parametrize("junk", [1e4, float("nan"), -float("inf")])
def test_padding_changes_nothing(engine: Engine, junk: float) -> None:
    clean, dirty = (On(engine, Problem([4, 2, 5], [3, 1, 0])) for _ in range(2))
    for n, (t, u) in enumerate(zip(*dirty.lengths, strict=True)):
        dirty.logits[n, t:], dirty.logits[n, :, u + 1 :] = junk, junk
        dirty.joiner[0][n, t:], dirty.joiner[1][n, u + 1 :] = junk, junk
        dirty.targets[n, u:] = -7 if n else 999
    for joint in (False, True):
        arrows = dirty.arrows(joint=joint)
        for n, (t, u) in enumerate(zip(*dirty.lengths, strict=True)):
            arrows.null[n, t:], arrows.null[n, :, u + 1 :] = junk, junk
            arrows.label[n, t:], arrows.label[n, :, u:] = junk, junk
        wanted = clean.sweep(clean.arrows(joint=joint))
        for mine, theirs in zip(dirty.sweep(arrows), wanted, strict=True):
            assert torch.equal(mine, theirs)
    assert torch.equal(clean.logits_gradient(), dirty.logits_gradient())
    for mine, theirs in zip(clean.joint_gradient(), dirty.joint_gradient(), strict=True):
        assert torch.equal(mine, theirs)


@each_engine
@pytest.mark.parametrize("change", ["constant", "1e4", "-1e4", "times 1e4", "forbidden"])
def test_extreme_logits(engine: Engine, change: str) -> None:
    problem = Problem([6, 4], [3, 2])
    problem.targets[:] = 1
    if change == "constant":
        problem.logits[:] = 0.0
    elif change == "times 1e4":
        problem.logits = (problem.logits * 1e4).round()
    elif change == "forbidden":
        problem.logits[..., 3] = -torch.inf
    else:
        problem.logits = problem.logits.float().double() + float(change)
    on = On(engine, problem)
    problem.logits = on.logits.cpu().double()  # as rounded
    lattice, gradient = on.sweep(on.arrows()), on.logits_gradient()
    for n, logits, targets in problem.each():
        log_prob = reference.lattice(logits, targets, 0)[1][0, 0]
        torch.testing.assert_close(lattice.log_prob[n].item(), log_prob, rtol=1e-5, atol=2e-3)
    assert torch.isfinite(gradient).all()
    assert not gradient[..., 3].any() or change != "forbidden"
    null, label = lattice.null.double().cpu(), lattice.label.double().cpu()
    wanted = (null + label)[..., None] * torch.softmax(problem.logits, dim=3)
    wanted[..., 0] -= null
    wanted[..., 1] -= label
    wanted *= problem.upstream[:, None, None, None]
    torch.testing.assert_close(gradient.cpu().double(), wanted, rtol=2e-3, atol=2e-3)


@each_engine
def test_a_forbidden_output_of_the_joiner(engine: Engine) -> None:
    problem = Problem([6, 4], [3, 2])
    problem.targets[:] = 1
    problem.joiner[3][3] = -torch.inf
    problem.logits = problem.dense(problem.joiner)
    on = On(engine, problem)
    lattice, gradients = on.sweep(on.arrows(joint=True)), on.joint_gradient()
    for n, logits, targets in problem.each():
        on.close(lattice.log_prob[n], reference.lattice(logits, targets, 0)[1][0, 0])
    assert all(torch.isfinite(x).all() for x in gradients)
    assert not gradients[2][3].any()
    assert not gradients[3][3].any()


@each_engine
def test_targets_that_no_path_gives(engine: Engine) -> None:
    """The utterance has probability 0 and no gradient; its neighbour is as it would be alone."""
    problem = Problem([4, 3], [2, 2])
    problem.targets[:] = torch.tensor([[1, 2], [3, 4]])
    problem.joiner[3][2] = -torch.inf
    problem.logits = problem.dense(problem.joiner)
    on = On(engine, problem)
    for joint in (False, True):
        lattice = on.sweep(on.arrows(joint=joint))
        assert lattice.log_prob[0] == -torch.inf
        assert not lattice.null[0].any()
        assert not lattice.label[0].any()
        _, (_, logits, targets) = problem.each()
        on.close(lattice.log_prob[1], reference.lattice(logits, targets, 0)[1][0, 0])
    assert not on.logits_gradient()[0].any()
    for gradient in on.joint_gradient()[:2]:
        assert not gradient[0].any()
        assert gradient[1].any()


@each_engine
def test_a_cell_without_any_output(engine: Engine) -> None:
    problem = Problem([3, 3], [2, 1])
    problem.logits[0, 0, 0] = -torch.inf
    on = On(engine, problem)
    assert on.sweep(on.arrows()).log_prob[0] == -torch.inf
    assert not on.logits_gradient()[0].any()
    assert on.logits_gradient()[1].any()


@each_engine
def test_a_long_lattice_is_skipped_only_below_rounding(engine: Engine) -> None:
    """A confident joiner: most cells are never visited."""
    problem = Problem([60], [25], vocab=6)
    problem.joiner[2] *= 3.0
    problem.logits = problem.dense(problem.joiner)
    on = On(engine, problem)
    for mine, theirs in zip(on.joint_gradient(), problem.joint_gradient(), strict=True):
        on.close(mine, theirs, scale=10.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_with_as_float32(dtype: torch.dtype) -> None:
    """`transducer_cuda` is compared with plain torch in its own file; the CPU's has none."""
    problem = Problem([5, 3], [3, 2])
    problem.logits = problem.logits.to(dtype).double()
    plain = Engine(transducer_plain, "cpu", torch.float32)
    exact, half = On(plain, problem), On(plain._replace(dtype=dtype), problem)
    assert all(torch.equal(a, b) for a, b in zip(half.arrows(), exact.arrows(), strict=True))
    gradient = half.logits_gradient()
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.float(), exact.logits_gradient(), rtol=2e-2, atol=2e-2)
