"""The transducer's loss: what torchaudio's callers may ask for, extreme logits, and, slowly, ten
thousand small lattices against the sum over all alignments."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.kernels.engines import _has
from pipeline.kernels.transducer.loss import transducer_loss

torch.set_num_threads(1)


def batch(
    frames: tuple[int, ...] = (5, 3),
    labels: tuple[int, ...] = (3, 2),
    vocab: int = 5,
    seed: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits in float64 and targets that are not 0, the blank, with their lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(frames), max(frames), max(labels) + 1, vocab)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, vocab, (len(frames), max(labels)), generator=generator)
    return logits, targets, torch.tensor(frames), torch.tensor(labels)


def gradient(logits: Tensor, *rest: Tensor, by: Tensor | None = None, **options: object) -> Tensor:
    leaf = logits.clone().requires_grad_()
    losses = transducer_loss(leaf, *rest, blank=0, reduction="none", **options)
    (found,) = torch.autograd.grad((losses * (1.0 if by is None else by)).sum(), leaf)
    return found


# ---- clamp and fused_log_softmax -----------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
def test_clamp_cuts_each_gradient_before_the_upstream_scales_it(fused: bool) -> None:
    given, by = batch(), torch.tensor([2.0, -3.0])
    if not fused:
        given = given[0].log_softmax(dim=3), *given[1:]
    whole = gradient(*given, fused_log_softmax=fused)
    cut = gradient(*given, by=by, clamp=0.05, fused_log_softmax=fused)
    assert whole.abs().max() > 0.1
    wanted = whole.clamp(-0.05, 0.05) * by[:, None, None, None]
    torch.testing.assert_close(cut, wanted, rtol=1e-12, atol=1e-15)
    for no_clamp in (0.0, -1.0, -7.0):
        assert torch.equal(gradient(*given, clamp=no_clamp, fused_log_softmax=fused), whole)


def test_log_probabilities_may_be_given() -> None:
    """The same loss, and through the log-softmax the same gradient."""
    logits, *rest = batch()
    leaf = logits.clone().requires_grad_()
    losses = transducer_loss(
        leaf.log_softmax(dim=3), *rest, blank=0, reduction="none", fused_log_softmax=False
    )
    fused = transducer_loss(logits, *rest, blank=0, reduction="none")
    torch.testing.assert_close(losses.detach(), fused, rtol=1e-13, atol=0)
    (found,) = torch.autograd.grad(losses.sum(), leaf)
    torch.testing.assert_close(found, gradient(logits, *rest), rtol=1e-10, atol=1e-14)


def test_the_gradient_of_log_probabilities_is_minus_how_often_they_are_used() -> None:
    """One of each label and one blank a frame."""
    logits, *rest = batch()
    found = -gradient(logits.log_softmax(dim=3), *rest, fused_log_softmax=False)
    assert (found >= 0).all()
    for n, (t, u) in enumerate(zip(rest[1].tolist(), rest[2].tolist(), strict=True)):
        assert found[n].sum().item() == pytest.approx(t + u)
        assert found[n, :, :, 0].sum().item() == pytest.approx(t)
        torch.testing.assert_close(
            found[n, :, :, 0].sum(dim=1)[:t], torch.ones(t, dtype=torch.float64)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_log_probabilities_of_other_dtypes(dtype: torch.dtype) -> None:
    logits, *rest = batch()
    log_probs = logits.log_softmax(dim=3).to(dtype)
    found = gradient(log_probs, *rest, fused_log_softmax=False)
    assert found.dtype == dtype
    exact = gradient(log_probs.double(), *rest, fused_log_softmax=False)
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)


def test_a_reduction_in_the_place_of_clamp_is_named() -> None:
    with pytest.raises(TypeError, match="reduction="):
        transducer_loss(*batch(), 0, "sum")


def test_arguments_stand_where_torchaudio_has_them() -> None:
    given = batch()
    by_place = transducer_loss(*given, 0, -1.0, "sum", True)
    by_name = transducer_loss(*given, blank=0, reduction="sum")
    assert torch.equal(by_place, by_name)


# ---- extreme logits ------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "compiled"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("PIPELINE_KERNELS", request.param)
    _has.cache_clear()
    yield request.param
    _has.cache_clear()


each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@each_dtype
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e6])
def test_the_same_logit_everywhere(engine: str, dtype: torch.dtype, value: float) -> None:
    """Every path has the probability V^-(T+U)."""
    logits, *rest = batch((7,), (3,), vocab=4)
    loss = transducer_loss(torch.full_like(logits, value).to(dtype), *rest, blank=0)
    assert loss.item() == pytest.approx(10 * math.log(4) - math.log(math.comb(9, 3)), rel=1e-6)
    found = gradient(torch.full_like(logits, value).to(dtype), *rest)
    torch.testing.assert_close(found, gradient(torch.zeros_like(logits).to(dtype), *rest))


@each_dtype
@pytest.mark.parametrize("high", [1e4, torch.inf])
def test_one_certain_path(engine: str, dtype: torch.dtype, high: float) -> None:
    """Labels at frame 1, then blanks: all else impossible, or as good as."""
    logits, targets, *lengths = batch((4,), (2,), vocab=5)
    logits = torch.zeros_like(logits) if high < torch.inf else torch.full_like(logits, -torch.inf)
    peak = high if high < torch.inf else 0.0
    cells = [(0, 0, 0), (1, 0, targets[0, 0]), (1, 1, targets[0, 1])]
    for t, u, k in [*cells, (1, 2, 0), (2, 2, 0), (3, 2, 0)]:
        logits[0, t, u, k] = peak
    loss = transducer_loss(logits.to(dtype), targets, *lengths, blank=0)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    found = gradient(logits.to(dtype), targets, *lengths)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 1e-12


@each_dtype
def test_peaks_on_the_wrong_output(engine: str, dtype: torch.dtype) -> None:
    """Each of the T + U steps costs 1e4 nats and its gradient is 1 - 0."""
    logits, targets, *lengths = batch((4,), (0,), vocab=5)
    logits = torch.zeros_like(logits)
    logits[..., 3] = 1e4
    loss = transducer_loss(logits.to(dtype), targets, *lengths, blank=0)
    assert loss.item() == pytest.approx(4e4)
    found = gradient(logits.to(dtype), targets, *lengths)
    wanted = torch.zeros(4, 1, 5, dtype=dtype)
    wanted[..., 3], wanted[..., 0] = 1.0, -1.0
    torch.testing.assert_close(found[0], wanted)


@each_dtype
def test_impossible_labels(engine: str, dtype: torch.dtype) -> None:
    """-inf for what is not wanted is no trouble; for what is, an infinite loss without gradient."""
    logits, targets, *lengths = batch((5, 4), (2, 2), vocab=6)
    targets[:] = torch.tensor([[1, 2], [3, 4]])
    logits = logits.to(dtype)
    logits[..., 5] = -torch.inf
    fine = transducer_loss(logits, targets, *lengths, blank=0, reduction="none")
    without = transducer_loss(
        logits[..., :5].contiguous(), targets, *lengths, blank=0, reduction="none"
    )
    torch.testing.assert_close(fine, without)
    logits[..., 2] = -torch.inf
    losses = transducer_loss(logits, targets, *lengths, blank=0, reduction="none")
    assert losses[0] == torch.inf
    assert torch.isfinite(losses[1])
    found = gradient(logits, targets, *lengths)
    assert torch.isfinite(found).all()
    assert not found[0].any()
    assert found[1].any()


@each_dtype
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_distribution_shows(engine: str, dtype: torch.dtype, value: float) -> None:
    """NaN, or an infinite logit, which has no softmax: a NaN of that utterance's loss alone."""
    logits, *rest = batch((5, 4), (2, 2))
    clean = transducer_loss(logits.to(dtype), *rest, blank=0, reduction="none")
    logits[0, 2, 1, 3] = value
    losses = transducer_loss(logits.to(dtype), *rest, blank=0, reduction="none")
    assert torch.isnan(losses[0])
    torch.testing.assert_close(losses[1], clean[1])
    gradient(logits.to(dtype), *rest)  # ends


def test_inputs_of_any_strides(engine: str) -> None:
    logits, targets, *lengths = batch()
    strided = logits.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    columns = targets.t().contiguous().t()
    assert torch.equal(
        gradient(strided, columns, *lengths), gradient(logits.contiguous(), targets, *lengths)
    )
    log_probs = strided.log_softmax(dim=3)
    torch.testing.assert_close(
        gradient(log_probs, columns, *lengths, fused_log_softmax=False),
        gradient(log_probs.contiguous(), targets, *lengths, fused_log_softmax=False),
    )


def test_an_empty_batch(engine: str) -> None:
    logits, targets = torch.zeros(0, 3, 2, 4), torch.zeros(0, 1, dtype=torch.int64)
    lengths = torch.zeros(0, dtype=torch.int64)
    losses = transducer_loss(logits, targets, lengths, lengths, blank=0, reduction="none")
    assert losses.shape == (0,)


# ---- ten thousand lattices -----------------------------------------------------------------------


def all_alignments(
    log_probs: np.ndarray, targets: list[int], blank: int
) -> tuple[float, np.ndarray]:
    """[G12] eq. 1 for log-probabilities (T, U+1, V): ln of the sum over alignments, and how often
    each output of each cell is used on average, (T, U+1, V)."""
    frames, labels = len(log_probs), len(targets)
    scores, paths = [], []
    # The last output is a blank at the last frame; the labels stand anywhere before it.
    for places in itertools.combinations(range(frames - 1 + labels), labels):
        t, u, path = 0, 0, []
        for step in range(frames + labels):
            is_label = step in places
            path.append((t, u, targets[u] if is_label else blank))
            t, u = (t, u + 1) if is_label else (t + 1, u)
        paths.append(tuple(np.array(path).T))
        scores.append(log_probs[paths[-1]].sum())
    whole = float(np.logaddexp.reduce(scores))
    used = np.zeros_like(log_probs)
    for score, path in zip(scores, paths, strict=True):
        used[path] += np.exp(score - whole)
    return whole, used


@pytest.mark.slow
def test_ten_thousand_random_lattices() -> None:
    """In ragged batches of ten, of every scale of logits, in both dtypes."""
    random = np.random.default_rng(0)
    for round_ in range(1000):
        frames, labels = random.integers(1, 6, size=10), random.integers(0, 5, size=10)
        vocab = int(random.integers(2, 7))
        blank = int(random.integers(vocab))
        scale = float(random.choice([0.1, 1.0, 5.0, 30.0]))
        shape = (10, int(frames.max()), int(labels.max()) + 1, vocab)
        logits = torch.from_numpy((scale * random.normal(size=shape)).astype(np.float32))
        targets = torch.from_numpy(
            (blank + random.integers(1, vocab, (*shape[:1], shape[2] - 1))) % vocab
        )
        lengths = torch.from_numpy(frames), torch.from_numpy(labels)
        dtype = torch.float64 if round_ % 2 else torch.float32
        leaf = logits.to(dtype).requires_grad_()
        losses = transducer_loss(leaf, targets, *lengths, blank=blank, reduction="none")
        (found,) = torch.autograd.grad(losses.sum(), leaf)
        near = 1e-10 if dtype == torch.float64 else 3e-5
        probs = logits.detach().double().log_softmax(dim=3)
        for n, (t, u) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
            part = probs[n, :t, : u + 1]
            whole, used = all_alignments(part.numpy(), targets[n, :u].tolist(), blank)
            assert losses[n].item() == pytest.approx(-whole, rel=near, abs=near)
            wanted = used.sum(axis=2, keepdims=True) * part.exp().numpy() - used
            np.testing.assert_allclose(found[n, :t, : u + 1], wanted, rtol=near, atol=near)
            assert not found[n, t:].any()
            assert not found[n, :, u + 1 :].any()
