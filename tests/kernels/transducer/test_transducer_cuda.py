"""The Triton programs of the transducer: on a GPU where there is one, else in Triton's interpreter.

Whether Triton interprets is settled when it is first imported, so without a GPU this file and
`test_transducer_engines.py` run once more in a process of their own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pipeline.kernels.transducer import cuda as transducer_cuda
from pipeline.kernels.transducer import plain as transducer_plain
from pipeline.kernels.transducer.plain import Arrows, Joint, Lattice

torch.set_num_threads(1)

HERE = Path(__file__).parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
FOUND = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not FOUND, reason="needs Triton")
runs_programs = pytest.mark.skipif(
    not (FOUND and (INTERPRETED or DEVICE == "cuda")), reason="needs a GPU or the interpreter"
)


@needs_triton
@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the programs run in this process")
def test_in_the_interpreter() -> None:
    """Floating-point exceptions, which GPUs do not raise, are warnings of NumPy's there."""
    files = [str(HERE / name) for name in (Path(__file__).name, "test_transducer_engines.py")]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=HERE.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from pipeline.kernels.transducer import cuda as transducer_cuda
from pipeline.kernels.transducer import triton as transducer_triton

capability = int(sys.argv[1])
integers = {"targets": "*i64", "logit_lengths": "*i64", "target_lengths": "*i64"}
doubles = dict.fromkeys(["alpha", "beta", "log_prob", "norm"], "*fp64")
counts = "frames width batch vocab size blank blocks v_blocks t_blocks u_blocks chunks span items"
tile = {"FRAMES": 8, "PREFIXES": 8}
joint = {"num_warps": 8, "num_stages": 1}


def check(name, options=None, **constants):
    kernel = getattr(transducer_triton, name)
    types = {}
    for k in kernel.arg_names:
        number = "i32" if k in counts.split() else "*fp32"
        types[k] = "constexpr" if k in constants else {**integers, **doubles}.get(k, number)
    values = {(kernel.arg_names.index(k),): v for k, v in constants.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=values)
    options = {**(options or {}), "enable_fp_fusion": True}
    done = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert done.asm["cubin"]
    # What a GPU of that kind has for one program, less what is reserved.
    assert done.metadata.shared <= 99 * 1024, (name, done.metadata.shared)


check("arrows_kernel", CELLS=16, OUTPUTS=64)
check("sweep_kernel", {"num_warps": 1}, PREFIXES=64)
check("sweep_kernel", {"num_warps": 4}, PREFIXES=256)
check("posteriors_kernel", CELLS=1024)
check("logits_gradient_kernel", CELLS=16, OUTPUTS=64)
for name, sizes in (("joint_arrows_kernel", transducer_cuda.FORWARD_TILE),
                    ("joint_gradient_kernel", transducer_cuda.BACKWARD_TILE)):
    for precision, (outputs, hidden) in sizes.items():
        shape = {**tile, "OUTPUTS": outputs, "HIDDEN": hidden}
        check(name, joint, **shape, PRECISION=precision)
"""


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize("capability", [90])
def test_every_program_compiles_to_machine_code(capability: int, tmp_path: Path) -> None:
    """For a Hopper GPU, which need not be there."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(capability)],
        cwd=HERE.parents[2],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_available_says_whether_there_is_triton() -> None:
    assert transducer_cuda.available() == FOUND


class Problem(NamedTuple):
    """A random ragged batch with the joiner's inputs in float64."""

    joiner: list[Tensor]
    targets: Tensor
    lengths: tuple[Tensor, Tensor]
    blank: int

    def on(self, module: object, dtype: torch.dtype) -> tuple[Arrows, Lattice, tuple[Tensor, ...]]:
        """An engine's arrows, lattice and gradients of the joiner's inputs, upstream 1."""
        inputs = [x.to(DEVICE, dtype) for x in self.joiner]
        tail = (self.targets.to(DEVICE), *(x.to(DEVICE) for x in self.lengths))
        joint = Joint(*inputs, *tail, self.blank)
        arrows = module.joint_arrows(joint)  # type: ignore[attr-defined]
        lattice = module.sweep(arrows.null, arrows.label, *tail[1:])  # type: ignore[attr-defined]
        gradients = module.joint_gradient(  # type: ignore[attr-defined]
            joint, arrows.log_norm, lattice
        )
        return arrows, lattice, gradients

    def logits(self) -> Tensor:
        rows, columns, weight, bias = self.joiner
        return torch.tanh(rows[:, :, None] + columns[:, None]) @ weight.t() + bias


def problem(
    frames: list[int], labels: list[int], vocab: int, joint: int, blank: int = 0
) -> Problem:
    generator = torch.Generator().manual_seed(vocab)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    n, width = len(frames), max(labels) + 1
    joiner = [normal(n, max(frames), joint), normal(n, width, joint), normal(vocab, joint)]
    targets = torch.randint(0, vocab - 1, (n, width - 1), generator=generator)
    targets += targets >= blank
    lengths = torch.tensor(frames), torch.tensor(labels)
    return Problem([*joiner, normal(vocab)], targets, lengths, blank)


RAGGED = problem([17, 9, 11], [10, 9, 0], 150, 37, blank=149)


@runs_programs
def test_many_tiles_of_cells_outputs_and_numbers() -> None:
    wanted_arrows, wanted, wanted_gradients = RAGGED.on(transducer_plain, torch.float64)
    arrows, lattice, gradients = RAGGED.on(transducer_cuda, torch.float32)
    torch.testing.assert_close(lattice.log_prob, wanted.log_prob, rtol=1e-6, atol=1e-5)
    for mine, theirs in zip(lattice[1:], wanted[1:], strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-5)
    t, u = RAGGED.lengths[0][0], RAGGED.lengths[1][0]
    for mine, theirs in zip(arrows, wanted_arrows, strict=True):
        cells = mine[0, :t, :u].double(), theirs[0, :t, :u]
        torch.testing.assert_close(*cells, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(gradients, wanted_gradients, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=2e-5)


@runs_programs
@pytest.mark.parametrize(("items", "programs"), [(1, 1), (9, 2), (1024, 528)])
def test_how_the_work_is_dealt_out(
    items: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way gives the same but for the order of sums, and always exactly the same again."""
    small = problem([20, 7, 9], [3, 8, 4], 11, 18)
    _, _, wanted = small.on(transducer_plain, torch.float64)
    monkeypatch.setattr(transducer_cuda, "ITEMS", items)
    monkeypatch.setattr(transducer_cuda, "PROGRAMS", programs)
    found, again = (small.on(transducer_cuda, torch.float32)[2] for _ in range(2))
    for mine, same, theirs in zip(found, again, wanted, strict=True):
        assert torch.equal(mine, same)
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 64, 5000])
@pytest.mark.parametrize("frames", [1, 8, 304, 3000])
def test_items_cover_the_frames_and_partial_sums_stay_small(batch: int, frames: int) -> None:
    columns = 100 * 640
    span = transducer_cuda._span(batch, frames, columns)
    chunks = -(-frames // span)
    assert span % transducer_cuda.TILE_FRAMES == 0
    assert chunks == 1 or batch * chunks <= transducer_cuda.ITEMS
    assert chunks == 1 or batch * chunks * columns <= transducer_cuda.PARTIAL


@runs_programs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_joiner_in_half_precision(dtype: torch.dtype) -> None:
    half = problem([9, 5], [4, 2], 6, 20)
    rounded = half._replace(joiner=[x.to(dtype).double() for x in half.joiner])
    _, wanted, wanted_gradients = rounded.on(transducer_plain, torch.float64)
    arrows, lattice, gradients = half.on(transducer_cuda, dtype)
    assert {x.dtype for x in (*arrows[:2], *lattice[1:], *gradients)} == {torch.float32}
    torch.testing.assert_close(lattice.log_prob, wanted.log_prob, rtol=2e-3, atol=2e-3)
    for mine, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-2, atol=1e-2)


@runs_programs
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [6, 1030])
def test_logits(dtype: torch.dtype, vocab: int) -> None:
    one = problem([7, 3], [2, 4], vocab, 5, blank=1)
    logits = one.logits().to(DEVICE, dtype)
    targets, *lengths = (x.to(DEVICE) for x in (one.targets, *one.lengths))
    found, tolerance = [], 1e-12 if dtype == torch.float64 else 2e-5
    for module in (transducer_plain, transducer_cuda):
        arrows = module.arrows(logits, targets, *lengths, 1)
        lattice = module.sweep(arrows.null, arrows.label, *lengths)
        gradient = module.logits_gradient(logits, targets, arrows.log_norm, lattice, 1, *lengths)
        found.append((arrows, lattice, gradient))
    (_, wanted, wanted_gradient), (arrows, lattice, gradient) = found
    assert arrows.null.dtype == torch.promote_types(dtype, torch.float32)
    assert gradient.dtype == dtype
    for mine, theirs in zip(lattice, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    if dtype == torch.bfloat16:
        tolerance = 8e-3
    torch.testing.assert_close(gradient, wanted_gradient, rtol=tolerance, atol=tolerance)


@runs_programs
def test_views_are_read_as_what_they_show() -> None:
    one = problem([7, 3], [2, 4], 6, 5)
    logits, targets = one.logits().to(DEVICE), one.targets.to(DEVICE)
    lengths = [x.to(DEVICE) for x in one.lengths]
    wanted = transducer_cuda.arrows(logits, targets, *lengths, 0)
    strided = logits.transpose(1, 3).contiguous().transpose(1, 3)
    found = transducer_cuda.arrows(strided, targets.t().contiguous().t(), *lengths, 0)
    for n, (t, u) in enumerate(zip(*lengths, strict=True)):
        assert torch.equal(found.null[n, :t, : u + 1], wanted.null[n, :t, : u + 1])
        assert torch.equal(found.label[n, :t, :u], wanted.label[n, :t, :u])


@runs_programs
def test_nan_upstream_is_not_hidden() -> None:
    one = problem([7, 3], [2, 4], 6, 5)
    inputs = [x.to(DEVICE, torch.float32) for x in one.joiner]
    tail = [x.to(DEVICE) for x in (one.targets, *one.lengths)]
    arrows, lattice, _ = one.on(transducer_cuda, torch.float32)
    lattice.null[0] *= torch.nan
    lattice.label[0] *= torch.nan
    gradients = transducer_cuda.joint_gradient(Joint(*inputs, *tail, 0), arrows.log_norm, lattice)
    assert gradients[0][0].isnan().all()
    assert not gradients[0][1].isnan().any()
    assert gradients[2].isnan().any()


def test_more_prefixes_than_registers_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transducer_cuda, "LONGEST", 2)
    null, label = torch.randn(2, 4, 3, 5).log_softmax(dim=3).unbind(3)[:2]
    lengths = torch.tensor([4, 3]), torch.tensor([2, 1])
    found = transducer_cuda.sweep(null, label, *lengths)
    for mine, theirs in zip(found, transducer_plain.sweep(null, label, *lengths), strict=True):
        assert torch.equal(mine, theirs)


def test_products_are_float32_unless_tf32_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def precision(dtype: torch.dtype) -> str:
        return transducer_cuda._tile(transducer_cuda.FORWARD_TILE, 62, dtype)["PRECISION"]

    matmul = SimpleNamespace(fp32_precision="none")
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    assert precision(torch.float32) == "ieee"
    assert precision(torch.bfloat16) == "tf32"  # holds it exactly
    matmul.fp32_precision = "tf32"
    assert precision(torch.float32) == "tf32"
