"""The transducer's loss: reference, brute force, finite differences, and what must not matter."""

import itertools
from math import lgamma, log

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.transducer import reference
from pipeline.kernels.transducer.loss import transducer_loss

torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Problem:
    """A random ragged batch."""

    def __init__(
        self, frames: list[int], labels: list[int], vocab: int = 5, blank: int = 0, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.blank = blank
        shape = (len(frames), max(frames), max(labels) + 1, vocab)
        self.logits = 2.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
        others = torch.tensor([k for k in range(vocab) if k != blank % vocab])
        draw = torch.randint(0, vocab - 1, (len(frames), max(labels)), generator=generator)
        self.targets = others[draw]
        self.frames, self.labels = torch.tensor(frames), torch.tensor(labels)

    def loss(
        self, logits: Tensor | None = None, reduction: str = "none", **other: Tensor
    ) -> Tensor:
        return transducer_loss(
            self.logits if logits is None else logits,
            other.get("targets", self.targets),
            self.frames,
            self.labels,
            blank=self.blank,
            reduction=reduction,
        )

    def loss_and_gradient(self, logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = (self.logits if logits is None else logits).clone().requires_grad_()
        losses = self.loss(logits)
        return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]

    def each(self) -> list[tuple[np.ndarray, list[int]]]:
        """Each utterance without its padding: logits (T, U+1, V) and targets."""
        return [
            (self.logits[n, :t, : u + 1].numpy(), self.targets[n, :u].tolist())
            for n, (t, u) in enumerate(zip(self.frames.tolist(), self.labels.tolist(), strict=True))
        ]


PROBLEMS = {
    "ragged": ([4, 2, 5, 1], [3, 1, 0, 4]),
    "one cell": ([1], [0]),
    "one frame": ([1, 1], [3, 0]),
    "no labels": ([6, 2], [0, 0]),
    "more labels than frames": ([2, 3], [6, 4]),
    "square": ([7], [7]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blank", [0, 2, -1])
@pytest.mark.parametrize("name", PROBLEMS)
def test_values_and_gradients_are_those_of_the_reference(
    name: str, blank: int, device: str
) -> None:
    problem = Problem(*PROBLEMS[name], blank=blank)
    expected = [reference.transducer_loss(*one, blank % 5) for one in problem.each()]
    logits = problem.logits.to(device).requires_grad_()
    losses = transducer_loss(
        logits,
        problem.targets.to(device),
        problem.frames.to(device),
        problem.labels.to(device),
        blank=blank,
        reduction="none",
    )
    assert losses.dtype == torch.float64
    np.testing.assert_allclose(losses.tolist(), [loss for loss, _ in expected], rtol=1e-12)
    gradient = torch.autograd.grad(losses.sum(), logits)[0].cpu()
    for n, (_, wanted) in enumerate(expected):
        t, u, _ = wanted.shape
        np.testing.assert_allclose(gradient[n, :t, :u].numpy(), wanted, rtol=1e-9, atol=1e-13)
        assert not gradient[n, t:].any()
        assert not gradient[n, :, u:].any()


def by_brute_force(logits: np.ndarray, targets: list[int], blank: int) -> float:
    """[G12] eq. 1: the sum over all alignments, each the product of its outputs' probabilities."""
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    frames, labels = len(logits), len(targets)
    total = 0.0
    # The last output is a blank at the last frame; the labels stand anywhere before it.
    for places in itertools.combinations(range(frames - 1 + labels), labels):
        t = u = 0
        product = 1.0
        for output in range(frames + labels):
            if output in places:
                product *= probs[t, u, targets[u]]
                u += 1
            else:
                product *= probs[t, u, blank]
                t += 1
        total += product
    return total


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("labels", [0, 1, 3])
@pytest.mark.parametrize("blank", [0, 3])
def test_it_is_the_sum_over_all_alignments(frames: int, labels: int, blank: int) -> None:
    problem = Problem([frames], [labels], vocab=4, blank=blank, seed=frames + 10 * labels)
    (one,) = problem.each()
    probability = by_brute_force(*one, blank)
    assert float(problem.loss().exp()) == pytest.approx(1.0 / probability, rel=1e-12)
    assert np.exp(-reference.transducer_loss(*one, blank)[0]) == pytest.approx(probability)


def test_repeated_labels_are_not_merged() -> None:
    problem = Problem([3], [2])
    repeated = torch.tensor([[2, 2]])
    loss = problem.loss(targets=repeated)
    probability = by_brute_force(problem.logits[0].numpy(), [2, 2], 0)
    assert float(loss) == pytest.approx(-np.log(probability))


def test_a_uniform_model_counts_alignments() -> None:
    """T + U outputs of probability 1/V each, in as many orders as the labels have places."""
    loss = transducer_loss(
        torch.zeros(1, 4, 3, 5, dtype=torch.float64),
        torch.tensor([[1, 2]]),
        torch.tensor([4]),
        torch.tensor([2]),
        blank=0,
    )
    orders = 10.0  # 5 choose 2
    assert float(loss) == pytest.approx(6 * np.log(5.0) - np.log(orders))


@pytest.mark.parametrize("lengths", [([3], [2]), ([3, 1], [1, 2]), ([2], [0])], ids=str)
def test_gradcheck(lengths: tuple[list[int], list[int]]) -> None:
    problem = Problem(*lengths, vocab=3, blank=1)
    logits = problem.logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: problem.loss(x), (logits,))


def test_every_diagonal_sums_to_the_probability() -> None:
    """[G12] eq. 19."""
    for logits, targets in Problem([4, 2, 5, 1], [3, 1, 0, 4]).each():
        alpha, beta, null, _ = reference.lattice(logits, targets, 0)
        log_z = beta[0, 0]
        assert alpha[-1, -1] + null[-1, -1] == pytest.approx(log_z)  # eq. 17
        frames, columns = alpha.shape
        for diagonal in range(frames + columns - 1):
            cells = [
                alpha[t, u] + beta[t, u]
                for t in range(frames)
                for u in range(columns)
                if t + u == diagonal
            ]
            assert np.logaddexp.reduce(cells) == pytest.approx(log_z)


def test_rows_of_the_gradient_sum_to_zero() -> None:
    """Adding the same number to all logits of a cell changes no probability."""
    _, gradient = Problem([6, 3, 1], [4, 2, 0]).loss_and_gradient()
    assert gradient.sum(dim=-1).abs().max() < 1e-14
    assert gradient.abs().max() > 1e-3


def test_only_the_next_label_and_the_blank_have_a_negative_gradient() -> None:
    problem = Problem([5], [3])
    _, gradient = problem.loss_and_gradient()
    for u in range(4):
        wanted = {0} | ({int(problem.targets[0, u])} if u < 3 else set())
        negative = (gradient[0, :, u] < 0).any(dim=0).nonzero().flatten().tolist()
        assert set(negative) <= wanted


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
    ids=str,
)
def test_other_precisions(dtype: torch.dtype, tolerance: float) -> None:
    """The lattice is exact for the logits as they are; only the gradient is rounded to dtype."""
    problem = Problem([12, 7], [6, 3], vocab=9)
    rounded = problem.logits.to(dtype)
    losses, gradient = problem.loss_and_gradient(rounded)
    exact, exact_gradient = problem.loss_and_gradient(rounded.double())
    assert losses.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("junk", [1e4, float("nan"), float("inf"), -float("inf")])
def test_padding_changes_nothing(junk: float) -> None:
    problem = Problem([4, 2, 5], [3, 1, 0])
    losses, gradient = problem.loss_and_gradient()
    logits, targets = problem.logits.clone(), problem.targets.clone()
    for n, (t, u) in enumerate(zip(problem.frames, problem.labels, strict=True)):
        logits[n, t:] = junk
        logits[n, :, u + 1 :] = junk
        targets[n, u:] = -7 if n else 999
    problem.targets = targets
    dirty_losses, dirty_gradient = problem.loss_and_gradient(logits)
    assert torch.equal(dirty_losses, losses)
    assert torch.equal(dirty_gradient, gradient)


def test_neighbours_and_order_change_nothing() -> None:
    problem = Problem([4, 2, 5], [3, 1, 0])
    losses, gradient = problem.loss_and_gradient()
    order = [2, 0, 1]
    swapped = transducer_loss(
        problem.logits[order],
        problem.targets[order],
        problem.frames[order],
        problem.labels[order],
        blank=0,
        reduction="none",
    )
    assert torch.equal(swapped, losses[order])
    for n, (logits, targets) in enumerate(problem.each()):
        alone = torch.tensor(logits)[None].requires_grad_()
        t, u = logits.shape[0], len(targets)
        loss = transducer_loss(
            alone,
            torch.tensor([targets], dtype=torch.int64),
            torch.tensor([t]),
            torch.tensor([u]),
            blank=0,
        )
        loss.backward()
        assert loss.item() == pytest.approx(losses[n].item(), rel=1e-13)
        torch.testing.assert_close(alone.grad[0], gradient[n, :t, : u + 1], rtol=1e-12, atol=1e-14)


def test_reductions() -> None:
    problem = Problem([4, 2], [3, 1])
    none = problem.loss()
    assert none.shape == (2,)
    torch.testing.assert_close(problem.loss(reduction="sum"), none.sum())
    torch.testing.assert_close(problem.loss(reduction="mean"), none.mean())
    logits = problem.logits.clone().requires_grad_()
    problem.loss(logits, reduction="mean").backward()
    torch.testing.assert_close(logits.grad, problem.loss_and_gradient()[1] / 2)


def test_each_utterance_is_weighted_by_its_own_upstream_gradient() -> None:
    problem = Problem([4, 2], [3, 1])
    logits = problem.logits.clone().requires_grad_()
    (problem.loss(logits) * torch.tensor([3.0, -0.5])).sum().backward()
    _, gradient = problem.loss_and_gradient()
    torch.testing.assert_close(logits.grad[0], 3.0 * gradient[0])
    torch.testing.assert_close(logits.grad[1], -0.5 * gradient[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_large_logits_and_improbable_targets(dtype: torch.dtype) -> None:
    problem = Problem([6, 4], [3, 2])
    exact, exact_gradient = problem.loss_and_gradient(1e3 * problem.logits)
    losses, gradient = problem.loss_and_gradient((1e3 * problem.logits).to(dtype))
    assert exact.min() > 1e3  # nats: no such number is a probability in any float
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-2, atol=1e-3)
    shifted, _ = problem.loss_and_gradient(problem.logits.to(dtype) + 1e3)
    torch.testing.assert_close(shifted, problem.loss(problem.logits.to(dtype)), rtol=1e-4, atol=0)


def test_a_forbidden_output_has_no_gradient() -> None:
    """A logit of minus infinity is a probability of 0, which is no reason for NaN elsewhere."""
    problem = Problem([4], [2])
    problem.targets[:] = 1
    logits = problem.logits.clone()
    logits[..., 3] = -torch.inf
    losses, gradient = problem.loss_and_gradient(logits)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()
    assert not gradient[..., 3].any()


def test_a_long_utterance_does_not_underflow() -> None:
    frames, labels = 400, 60
    loss = transducer_loss(
        torch.zeros(1, frames, labels + 1, 3),
        torch.ones(1, labels, dtype=torch.int64),
        torch.tensor([frames]),
        torch.tensor([labels]),
        blank=0,
    )
    orders = lgamma(frames + labels) - lgamma(labels + 1) - lgamma(frames)
    assert float(loss) == pytest.approx((frames + labels) * log(3.0) - orders, rel=1e-6)


def test_nothing_is_kept_when_no_gradient_is_needed() -> None:
    problem = Problem([4, 2], [3, 1])
    assert not problem.loss().requires_grad
    with torch.no_grad():
        losses = problem.loss(problem.logits.clone().requires_grad_())
    torch.testing.assert_close(losses, problem.loss())


def test_integer_types_of_lengths_and_targets() -> None:
    problem = Problem([4, 2], [3, 1])
    losses = transducer_loss(
        problem.logits,
        problem.targets.int(),
        problem.frames.int(),
        problem.labels.int(),
        blank=0,
        reduction="none",
    )
    assert torch.equal(losses, problem.loss())


def test_a_second_derivative_is_refused() -> None:
    problem = Problem([2], [1])
    logits = problem.logits.requires_grad_()
    (gradient,) = torch.autograd.grad(
        problem.loss(logits).square().sum(), logits, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


GOOD = {
    "logits": torch.zeros(2, 3, 3, 4),
    "targets": torch.ones(2, 2, dtype=torch.int64),
    "logit_lengths": torch.tensor([3, 2]),
    "target_lengths": torch.tensor([2, 1]),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": torch.zeros(3, 3, 4)}, r"logits are \(N, T, U\+1, V\)"),
        ({"targets": torch.ones(1, 2, dtype=torch.int64)}, "same batch size"),
        ({"logit_lengths": torch.tensor([3])}, "same batch size"),
        ({"target_lengths": torch.tensor([3, 1, 1])}, "same batch size"),
        ({"targets": torch.ones(2, 3, dtype=torch.int64)}, r"U\+1 = 3, so targets need 2"),
        ({"logit_lengths": torch.tensor([3, 0])}, "logit_lengths must lie in 1 … 3"),
        ({"logit_lengths": torch.tensor([4, 2])}, "logit_lengths must lie in 1 … 3"),
        ({"target_lengths": torch.tensor([3, 1])}, "target_lengths must lie in 0 … 2"),
        ({"target_lengths": torch.tensor([-1, 1])}, "target_lengths must lie in 0 … 2"),
        ({"blank": 4}, "blank 4 is no id of 4 outputs"),
        ({"blank": -5}, "blank -5 is no id"),
        ({"targets": torch.tensor([[1, 4], [1, 0]])}, r"targets must lie in 0 … 3"),
        ({"targets": torch.tensor([[1, -1], [1, 0]])}, r"targets must lie in 0 … 3"),
        ({"targets": torch.tensor([[1, 0], [1, 0]])}, "not be the blank, 0"),
        ({"reduction": "average"}, "reduction is none, mean or sum, not 'average'"),
    ],
)
def test_errors_say_what_is_wrong(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transducer_loss(**{**GOOD, "blank": 0, **changed})
