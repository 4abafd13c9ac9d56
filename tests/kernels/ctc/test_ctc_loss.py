"""CTC's loss: reference, brute force, torch's own, finite differences, and what must not matter."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.ctc import reference
from pipeline.kernels.ctc.loss import ctc_loss
from pipeline.kernels.engines import _has

torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=["plain", "compiled"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Plain torch, or what the machine has."""
    monkeypatch.setenv("PIPELINE_KERNELS", request.param)
    _has.cache_clear()
    yield request.param
    _has.cache_clear()


def batch(
    frames: tuple[int, ...] = (7, 3, 9, 1, 4),
    labels: tuple[int, ...] = (3, 1, 0, 1, 4),
    vocab: int = 5,
    blank: int = 0,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities (T, N, V) in float64, targets (N, U) and lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (max(frames), len(frames), vocab)
    logits = 2.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, vocab - 1, (len(frames), max(labels)), generator=generator)
    targets += targets >= blank
    return logits.log_softmax(dim=2), targets, torch.tensor(frames), torch.tensor(labels)


def loss_and_gradient(
    log_probs: Tensor, *rest: Tensor, blank: int = 0, **options: object
) -> tuple[Tensor, Tensor]:
    leaf = log_probs.detach().clone().requires_grad_()
    losses = ctc_loss(leaf, *rest, blank=blank, **{"reduction": "none", **options})
    return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


# ---- right values --------------------------------------------------------------------------------


def test_two_frames_by_hand(engine: str) -> None:
    """Of one token a over two frames there are three alignments: a∅, ∅a and aa."""
    probs = torch.tensor([[0.3, 0.6, 0.1], [0.5, 0.2, 0.3]], dtype=torch.float64)
    loss, gradient = loss_and_gradient(probs.log(), torch.tensor([1]), [2], [1])
    whole = 0.6 * 0.5 + 0.3 * 0.2 + 0.6 * 0.2
    assert loss.item() == pytest.approx(-math.log(whole))
    wanted = -np.array([[0.06, 0.42, 0.0], [0.30, 0.18, 0.0]]) / whole
    np.testing.assert_allclose(gradient, wanted, rtol=1e-12)


def test_a_repeated_token_needs_a_blank_between(engine: str) -> None:
    """a∅a alone; in two frames there is none."""
    log_probs = torch.full((3, 1, 3), -math.log(3.0), dtype=torch.float64)
    targets = torch.tensor([[1, 1]])
    assert ctc_loss(log_probs, targets, [3], [2], reduction="sum").item() == pytest.approx(
        3 * math.log(3.0)
    )
    loss, gradient = loss_and_gradient(log_probs, targets, [2], [2])
    assert loss.item() == math.inf
    assert not gradient.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blank", [0, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_values_and_gradients_are_those_of_the_reference(
    engine: str, device: str, blank: int, seed: int
) -> None:
    given = batch(blank=blank, seed=seed)
    losses, gradient = loss_and_gradient(*(x.to(device) for x in given), blank=blank)
    log_probs, targets, frames, labels = given
    for n, (t, u) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
        found, wanted = reference.ctc_loss(log_probs[:t, n].numpy(), targets[n, :u].tolist(), blank)
        assert losses[n].item() == pytest.approx(found, rel=1e-12)
        np.testing.assert_allclose(gradient[:t, n].cpu(), wanted, rtol=1e-10, atol=1e-14)
        assert not gradient[t:, n].any()


def collapsed(alignment: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """Repeats become one, then blanks go: ℬ of Graves et al. 2006."""
    return tuple(k for k, _ in itertools.groupby(alignment) if k != blank)


def test_it_is_the_sum_over_all_alignments(engine: str) -> None:
    """Every target that four frames of three outputs have, and their probabilities make 1."""
    log_probs = batch((4,), (0,), vocab=3, seed=3)[0]
    sums: dict[tuple[int, ...], float] = {}
    for alignment in itertools.product(range(3), repeat=4):
        log_prob = sum(log_probs[t, 0, k].item() for t, k in enumerate(alignment))
        key = collapsed(alignment, 0)
        sums[key] = sums.get(key, 0.0) + math.exp(log_prob)
    assert sum(sums.values()) == pytest.approx(1.0)
    for targets, probability in sums.items():
        loss = ctc_loss(log_probs, torch.tensor([targets]).long(), [4], [len(targets)], 0, "sum")
        assert math.exp(-loss.item()) == pytest.approx(probability, rel=1e-12)


def by_brute_force(probs: np.ndarray, targets: tuple[int, ...], blank: int) -> tuple[float, Tensor]:
    """Pr(y|x) over all alignments, and each output's share of it, (T, V)."""
    whole, shares = 0.0, np.zeros_like(probs)
    for alignment in itertools.product(range(probs.shape[1]), repeat=len(probs)):
        if collapsed(alignment, blank) == targets:
            probability = math.prod(probs[t, k] for t, k in enumerate(alignment))
            whole += probability
            for t, k in enumerate(alignment):
                shares[t, k] += probability
    return whole, torch.from_numpy(shares / whole if whole else shares)


def test_a_thousand_small_utterances_by_brute_force(engine: str) -> None:
    for vocab, blank in ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2)):
        generator = torch.Generator().manual_seed(10 * vocab + blank)
        frames = torch.randint(1, 5, (200,), generator=generator)
        labels = torch.randint(0, 3, (200,), generator=generator)
        log_probs, targets, *_ = batch((4,) * 200, (2,) * 200, vocab, blank, seed=vocab)
        losses, gradient = loss_and_gradient(log_probs, targets, frames, labels, blank=blank)
        for n, (t, u) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
            row = tuple(targets[n, :u].tolist())
            whole, shares = by_brute_force(log_probs[:t, n].exp().numpy(), row, blank)
            assert math.exp(-losses[n].item()) == pytest.approx(whole, rel=1e-12)
            torch.testing.assert_close(gradient[:t, n], -shares, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("form", ["padded", "concatenated", "one utterance"])
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_every_form_of_the_arguments_gives_what_torch_does(
    engine: str, form: str, blank: int, reduction: str
) -> None:
    log_probs, targets, frames, labels = batch((9, 8, 6), (3, 2, 0), blank=blank, seed=2)
    if form == "concatenated":
        targets = torch.cat([targets[n, :u] for n, u in enumerate(labels)])
    elif form == "one utterance":
        log_probs, targets, frames, labels = log_probs[:, 0], targets[0], frames[0], labels[0]
    found = []
    for function in (ctc_loss, torch.nn.functional.ctc_loss):
        logits = log_probs.clone().requires_grad_()
        loss = function(logits.log_softmax(-1), targets, frames, labels, blank, reduction)
        found.append((loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_behind_a_log_softmax_it_is_torchs(
    engine: str, reduction: str, zero_infinity: bool, dtype: torch.dtype
) -> None:
    frames, labels = (30, 17, 25, 2), (8, 3, 0, 2)
    log_probs, targets, *lengths = batch(frames, labels, vocab=12, seed=5)
    if zero_infinity:
        targets[3] = 7  # twice, in two frames
    else:
        targets[3, :2] = torch.tensor([7, 8])
    found = []
    for function in (ctc_loss, torch.nn.functional.ctc_loss):
        logits = log_probs.to(dtype).requires_grad_()
        loss = function(
            logits.log_softmax(2), targets, *lengths, 0, reduction, zero_infinity=zero_infinity
        )
        found.append((loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]))
    near = 1e-10 if dtype == torch.float64 else 1e-4
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, theirs, rtol=near, atol=near)


def test_gradcheck(engine: str) -> None:
    given = batch((5, 3), (2, 1), vocab=3)
    leaf = given[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ctc_loss(x, *given[1:], reduction="none"), leaf)


def test_each_frame_has_one_output(engine: str) -> None:
    _, gradient = loss_and_gradient(*batch((12, 9), (4, 3)))
    torch.testing.assert_close(gradient[:9].sum(dim=2), -torch.ones(9, 2, dtype=torch.float64))


def test_each_utterance_is_weighted_by_its_own_upstream_gradient(engine: str) -> None:
    given = batch((5, 4), (2, 1))
    leaf = given[0].clone().requires_grad_()
    losses = ctc_loss(leaf, *given[1:], reduction="none")
    (found,) = torch.autograd.grad((losses * torch.tensor([3.0, -0.5])).sum(), leaf)
    _, plain = loss_and_gradient(*given)
    torch.testing.assert_close(found, plain * torch.tensor([3.0, -0.5])[:, None])


# ---- forms of the arguments ----------------------------------------------------------------------


def test_forms_of_the_arguments(engine: str) -> None:
    log_probs, targets, frames, labels = batch()
    wanted = ctc_loss(log_probs, targets, frames, labels, reduction="none")
    after_each_other = torch.cat([targets[n, :u] for n, u in enumerate(labels)])
    for other in (
        (log_probs, after_each_other, frames, labels),
        (log_probs, targets.int(), frames.int(), labels.int()),
        (log_probs, targets, tuple(frames.tolist()), labels.tolist()),
        (log_probs.transpose(0, 2).contiguous().transpose(0, 2), targets, frames, labels),
    ):
        assert torch.equal(ctc_loss(*other, reduction="none"), wanted)
    one = ctc_loss(log_probs[:7, 0], targets[0, :3], [7], [3], reduction="none")
    assert one.shape == ()
    torch.testing.assert_close(one, wanted[0])


def test_gradients_of_any_strides(engine: str) -> None:
    log_probs, *rest = batch()
    strided = log_probs.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(loss_and_gradient(strided, *rest)[1], loss_and_gradient(log_probs, *rest)[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_with_as_float32(engine: str, dtype: torch.dtype) -> None:
    log_probs, *rest = batch()
    half, gradient = loss_and_gradient(log_probs.to(dtype), *rest)
    exact, exact_gradient = loss_and_gradient(log_probs.to(dtype).float(), *rest)
    assert half.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(half, exact)
    torch.testing.assert_close(gradient, exact_gradient.to(dtype))


# ---- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "labels", "loss"),
    [
        (0, 0, 0.0),
        (0, 1, math.inf),
        (1, 0, math.log(4)),
        (1, 1, math.log(4)),
        (1, 2, math.inf),
        (9, 0, 9 * math.log(4)),
    ],
)
def test_edges(engine: str, frames: int, labels: int, loss: float) -> None:
    log_probs = torch.full((max(frames, 1), 1, 4), -math.log(4.0))
    targets = torch.arange(1, 3)[None, :labels]
    found, gradient = loss_and_gradient(log_probs, targets, [frames], [labels])
    assert found.item() == pytest.approx(loss)
    assert gradient.any() == (frames > 0 and loss < math.inf)
    zeroed = ctc_loss(log_probs, targets, [frames], [labels], zero_infinity=True, reduction="sum")
    assert zeroed.item() == pytest.approx(loss if loss < math.inf else 0.0)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_padding_changes_nothing(engine: str, junk: float) -> None:
    log_probs, targets, frames, labels = batch()
    clean = loss_and_gradient(log_probs, targets, frames, labels)
    for n, (t, u) in enumerate(zip(frames, labels, strict=True)):
        log_probs[t:, n] = junk
        targets[n, u:] = -7 if n else 999
    for mine, theirs in zip(
        loss_and_gradient(log_probs, targets, frames, labels), clean, strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_log_probabilities(engine: str, dtype: torch.dtype) -> None:
    log_probs, targets, *lengths = batch((6, 5, 6), (2, 2, 2), vocab=6)
    targets[:] = torch.tensor([[1, 2], [3, 4], [1, 4]])
    log_probs[..., 5] = -math.inf  # what nobody wants
    log_probs[:, 0, 2] = -math.inf  # what the first utterance wants
    log_probs[:, 2] = -1e4
    log_probs[:, 2, 3] = 0.0  # certain, and wrong
    losses, gradient = loss_and_gradient(log_probs.to(dtype), targets, *lengths)
    assert losses[0] == math.inf
    assert not gradient[:, 0].any()
    assert torch.isfinite(gradient).all()
    for n in (1, 2):
        t = int(lengths[0][n])
        found, wanted = reference.ctc_loss(log_probs[:t, n].numpy(), targets[n].tolist())
        assert losses[n].item() == pytest.approx(found, rel=1e-6)
        np.testing.assert_allclose(gradient[:t, n], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize(("t", "u"), [(1, 1), (0, 2), (6, 0), (3, None)])
def test_a_number_that_is_none_shows(engine: str, wrong: float, t: int, u: int | None) -> None:
    """Also at a token that no alignment has at that frame: the last at first, the first at last."""
    log_probs, targets, *rest = batch()
    targets[0, :3] = torch.tensor([1, 2, 3])
    clean, clean_gradient = loss_and_gradient(log_probs, targets, *rest)
    log_probs[t, 0, 0 if u is None else targets[0, u]] = wrong
    losses, gradient = loss_and_gradient(log_probs, targets, *rest)
    assert torch.isnan(losses[0])
    assert not gradient[:, 0].any()
    assert torch.equal(losses[1:], clean[1:])
    assert torch.equal(gradient[:, 1:], clean_gradient[:, 1:])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_outputs_that_the_utterance_does_not_have_are_not_read(engine: str, wrong: float) -> None:
    log_probs, targets, *rest = batch((7, 6), (2, 1))
    targets[:] = 1
    clean = loss_and_gradient(log_probs, targets, *rest)
    log_probs[..., 3] = wrong
    for mine, theirs in zip(loss_and_gradient(log_probs, targets, *rest), clean, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("scale", [1e18, 1e30])
def test_no_share_exceeds_one_where_rounding_is_large(engine: str, scale: float) -> None:
    """Beyond float64: no gradient is right then, but none is larger than the states are many."""
    log_probs, *rest = batch((19, 18), (3, 2))
    losses, gradient = loss_and_gradient(scale * log_probs, *rest)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()
    assert (gradient.abs() <= 7.0).all()  # states


@pytest.mark.parametrize("targets", [torch.zeros(0), torch.zeros(0, 0), torch.zeros(0, 3)])
def test_a_batch_of_none(engine: str, targets: Tensor) -> None:
    losses, gradient = loss_and_gradient(torch.zeros(3, 0, 4), targets.long(), [], [])
    assert losses.shape == (0,)
    assert gradient.shape == (3, 0, 4)


def test_no_frames_at_all(engine: str) -> None:
    losses, gradient = loss_and_gradient(torch.zeros(0, 2, 4), torch.tensor([1]), [0, 0], [1, 0])
    assert losses.tolist() == [math.inf, 0.0]
    assert gradient.shape == (0, 2, 4)


def test_a_long_utterance_does_not_underflow(engine: str) -> None:
    """All tokens alike and T = 2U - 1: the only alignment has a blank between each two."""
    frames, labels = 2001, 1001
    log_probs = torch.full((frames, 1, 3), -math.log(3.0))
    targets = torch.ones(1, labels, dtype=torch.int64)
    loss = ctc_loss(log_probs, targets, [frames], [labels], reduction="sum")
    assert loss.item() == pytest.approx(frames * math.log(3.0), rel=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_same_bytes_on_every_run_and_any_number_of_threads(engine: str, device: str) -> None:
    given = [x.to(device) for x in batch((60, 50, 40), (20, 10, 15), vocab=30)]
    given[0] = given[0].float()
    first = loss_and_gradient(*given)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            again = loss_and_gradient(*given)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(1)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"log_probs": torch.zeros(5)}, r"log_probs are \(T, N, V\) or \(T, V\)"),
        ({"input_lengths": [5]}, "2 utterances need as many lengths, not 1"),
        ({"target_lengths": [2, 1, 1]}, "2 utterances need as many lengths, not 3"),
        ({"input_lengths": [5, -1]}, "must not be negative"),
        ({"input_lengths": [6, 3]}, "input_lengths must lie in 0 … 5"),
        ({"target_lengths": [3, 1]}, "target_lengths must lie in 0 … 2"),
        ({"targets": torch.ones(3, 2).long()}, r"targets are \(N, U\)"),
        ({"targets": torch.ones(5).long()}, "as many numbers as target_lengths sum to"),
        ({"targets": torch.tensor([[1, 4], [1, 1]])}, "targets must lie in 0 … 3"),
        ({"targets": torch.tensor([[1, 0], [1, 1]])}, "not be the blank, 0"),
        ({"blank": 4}, "blank 4 is no id of 4 outputs"),
        ({"blank": -1}, "blank -1 is no id"),
        ({"reduction": "average"}, "reduction is none, mean or sum"),
    ],
)
def test_errors_say_what_is_wrong(changed: dict[str, object], message: str) -> None:
    good = {
        "log_probs": torch.zeros(5, 2, 4),
        "targets": torch.ones(2, 2, dtype=torch.int64),
        "input_lengths": [5, 3],
        "target_lengths": [2, 1],
    }
    with pytest.raises(ValueError, match=message):
        ctc_loss(**{**good, **changed})
