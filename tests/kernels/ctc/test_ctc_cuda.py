"""The Triton programs of CTC: on a GPU where there is one, else in Triton's interpreter.

Whether Triton interprets is settled when it is first imported, so without a GPU this file runs once
more in a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.kernels.ctc import cuda as ctc_cuda
from pipeline.kernels.ctc import plain as ctc_plain
from pipeline.kernels.ctc.plain import CtcSums

torch.set_num_threads(1)

HERE = Path(__file__).parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
FOUND = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not FOUND, reason="needs Triton")
runs_programs = pytest.mark.skipif(
    not (FOUND and (INTERPRETED or DEVICE == "cuda")), reason="needs a GPU or the interpreter"
)


def in_process(*arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE.parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@needs_triton
@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the programs run in this process")
def test_in_the_interpreter() -> None:
    """Floating-point exceptions, which GPUs do not raise, are warnings of NumPy's there."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    in_process("-m", "pytest", *options, str(Path(__file__)), TRITON_INTERPRET="1")


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from pipeline.kernels.ctc import triton as ctc_triton

types = dict.fromkeys(["outputs", "lengths", "target_lengths"], "*i64")
types |= dict.fromkeys(["alpha", "beta", "log_prob"], "*fp64")
types |= dict.fromkeys(["frames", "vocab", "width", "batch", "t_blocks", "v_blocks"], "i32")
types |= {"log_probs": "*fp32", "out": "*fp32", "skips": "*i8"}
for name, warps, constants in (
    ("sweep_kernel", 1, {"STATES": 64}),
    ("sweep_kernel", 8, {"STATES": 512}),
    ("posteriors_kernel", 4, {"FRAMES": 16, "OUTPUTS": 64}),
):
    kernel = getattr(ctc_triton, name)
    signature = {k: "constexpr" if k in constants else types[k] for k in kernel.arg_names}
    values = {(kernel.arg_names.index(k),): v for k, v in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    assert compile(source, target=target, options=options).asm["cubin"]
"""


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="compiles")
def test_every_program_compiles_to_machine_code(tmp_path: Path) -> None:
    """For a Hopper GPU, which need not be there."""
    in_process("-c", COMPILE, "90", TRITON_CACHE_DIR=str(tmp_path))


def log_probs_of(frames: int, batch: int, vocab: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3.0 * torch.randn(batch, frames, vocab, generator=generator)
    return logits.log_softmax(dim=2)


def both(
    log_probs: Tensor, targets: list[list[int]], lengths: list[int], blank: int = 0
) -> tuple[CtcSums, CtcSums]:
    """What the programs find, and plain torch."""
    rows = [torch.tensor(row, dtype=torch.int64) for row in targets]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    tail = (padded, torch.tensor(lengths), torch.tensor([len(row) for row in targets]))
    found = ctc_cuda.sweep(log_probs.to(DEVICE), *(x.to(DEVICE) for x in tail), blank)
    return CtcSums(*(x.cpu() for x in found)), ctc_plain.sweep(log_probs, *tail, blank)


def assert_same(found: CtcSums, wanted: CtcSums) -> None:
    torch.testing.assert_close(
        found.log_prob, wanted.log_prob, rtol=1e-12, atol=1e-12, equal_nan=True
    )
    torch.testing.assert_close(found.posteriors, wanted.posteriors, rtol=1e-5, atol=1e-7)


@runs_programs
@pytest.mark.parametrize("blank", [0, 3, 39])
def test_sums_are_those_of_plain_torch(blank: int) -> None:
    """Ragged, with repeated tokens, without tokens, without frames, and too short to fit."""
    some = [k for k in (1, 2, 2, 2, 30, 5, 6, 6, 9) if k != blank]
    targets = [some, [7], [], [], [4, 4], [8, 8]]
    lengths = [21, 1, 13, 0, 3, 2]
    log_probs = log_probs_of(21, 6, 40)
    found, wanted = both(log_probs, targets, lengths, blank)
    assert_same(found, wanted)
    assert found.log_prob[3] == 0.0
    assert found.log_prob[5] == -torch.inf
    assert not found.posteriors[5].any()
    rows = found.posteriors.sum(dim=2)
    for n, t in enumerate(lengths[:5]):
        torch.testing.assert_close(rows[n, :t], torch.ones(t), rtol=1e-6, atol=1e-6)
        assert not rows[n, t:].any()


@runs_programs
def test_many_outputs_and_states() -> None:
    targets = [[*range(1, 41)], [5] * 20]
    assert_same(*both(log_probs_of(90, 2, 300), targets, [90, 77]))


@runs_programs
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, 1e30])
def test_padding_changes_nothing(junk: float) -> None:
    log_probs = log_probs_of(9, 2, 6)
    clean, _ = both(log_probs, [[1, 2, 2], [3]], [9, 4])
    log_probs[1, 4:] = junk
    dirty, _ = both(log_probs, [[1, 2, 2], [3]], [9, 4])
    for mine, theirs in zip(dirty, clean, strict=True):
        assert torch.equal(mine, theirs)


@runs_programs
def test_what_is_impossible_and_what_is_no_number() -> None:
    log_probs = log_probs_of(8, 6, 6)
    log_probs[0, :, 2] = -torch.inf
    log_probs[1, 3, 1] = torch.nan
    log_probs[2, :, 5] = -torch.inf
    log_probs[3, 7, 1] = torch.nan  # no alignment ends there
    log_probs[4, 0, 2] = torch.nan  # nor begins there
    log_probs[5, 7, 1] = torch.inf
    found, wanted = both(log_probs, [[1, 2], [1], *[[1, 2]] * 4], [8] * 6)
    assert_same(found, wanted)
    assert found.log_prob[0] == -torch.inf
    assert torch.isfinite(found.log_prob[2])
    assert torch.isnan(found.log_prob[[1, 3, 4, 5]]).all()
    assert not found.posteriors[[0, 1, 3, 4, 5]].any()


@runs_programs
def test_no_share_exceeds_one_where_rounding_is_large() -> None:
    found, _ = both(1e30 * log_probs_of(19, 2, 6).double(), [[1, 2, 2], [3]], [19, 18])
    assert (found.posteriors <= 7.0).all()  # states


@runs_programs
@pytest.mark.parametrize(("frames", "batch"), [(0, 2), (3, 0)])
def test_nothing_to_sum(frames: int, batch: int) -> None:
    tail = torch.ones(batch, 2).long(), torch.zeros(batch).long(), torch.arange(batch)
    given = torch.zeros(batch, frames, 4), *tail
    found, wanted = ctc_cuda.sweep(*(x.to(DEVICE) for x in given), 0), ctc_plain.sweep(*given, 0)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine.cpu(), theirs)


def test_more_states_than_registers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctc_cuda, "MOST_STATES", 4)
    given = log_probs_of(6, 2, 5), torch.tensor([[1, 2], [3, 3]])
    tail = torch.tensor([6, 5]), torch.tensor([2, 2])
    found = ctc_cuda.sweep(*given, *tail, 0)
    for mine, theirs in zip(found, ctc_plain.sweep(*given, *tail, 0), strict=True):
        assert torch.equal(mine, theirs)


@runs_programs
def test_same_bytes_on_every_run() -> None:
    log_probs = log_probs_of(60, 4, 30)
    runs = [both(log_probs, [[1, 2, 3] * 5] * 4, [60, 50, 40, 30])[0] for _ in range(2)]
    for mine, theirs in zip(*runs, strict=True):
        assert torch.equal(mine, theirs)


@runs_programs
def test_float64() -> None:
    found, wanted = both(log_probs_of(9, 2, 6).double(), [[1, 2, 2], [3]], [9, 4])
    assert found.posteriors.dtype == torch.float64
    torch.testing.assert_close(found.posteriors, wanted.posteriors, rtol=1e-11, atol=1e-13)
