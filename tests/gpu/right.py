#!/usr/bin/env python3
"""First part of the GPU script: values and gradients of every Triton program.

Usage: right.py FOLDER            errors against float64, and the same bytes twice, into FOLDER
       right.py --smallest        every program once on its smallest problem, for compute-sanitizer

An error is ‖found − reference‖ / ‖reference‖ of a whole tensor.
"""

import sys
from collections.abc import Iterator
from functools import cache

import torch
from guards import Guards
from part import DEVICE, IS_INTERPRETED, ROOT, Part, run_part, settle
from problems import Found, Problem, full_size, half, smallest
from torch import Tensor

sys.path.append(str(ROOT / "tests" / "bench"))
from bench_search import PeakyModel

from pipeline.kernels.search.transducer import transducer_beam_search, transducer_greedy
from pipeline.nn.models import TransducerModel

MOST = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # errors
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16  # NumPy has no bfloat16


def error(found: Tensor, reference: Tensor) -> float:
    """Relative, of the whole tensor; a reference of zeros must be met exactly."""
    difference, norm = (found.double() - reference).norm(), reference.norm()
    if bool((found.double() == reference).all()):
        return 0.0
    return float(difference / norm)


@cache
def reference(problem: Problem, dtype: torch.dtype) -> Found:
    """What plain torch finds in float64, of inputs rounded to ``dtype``."""
    return problem.solve(False, dtype, DEVICE, lambda x: x)


def solved(problem: Problem, dtype: torch.dtype) -> tuple[Found, bool]:
    """What the programs find, with margins around all tensors, and whether these were kept."""
    with Guards() as guards:
        found = problem.solve(True, dtype, DEVICE, guards.place)
    return found, guards.are_intact()


def faults(problem: Problem, dtype: torch.dtype, errors: dict[str, float]) -> Iterator[str]:
    """What is wrong with the programs of a problem; fills ``errors``."""
    found, is_intact = solved(problem, dtype)
    for name, wanted in reference(problem, dtype).items():
        if not bool(wanted.isfinite().all()):
            raise ValueError(f"{name}: the reference is not finite")
        errors[name] = error(found[name], wanted)
        if not errors[name] <= MOST[dtype]:
            yield f"{name} is off by {errors[name]:.1e}"
    if not is_intact:
        yield "memory beside a tensor was written to"
    again, _ = solved(problem, dtype)
    for name in found:
        if not torch.equal(found[name], again[name]):
            yield f"{name} differs between two runs"


def check(part: Part, problems: list[Problem]) -> None:
    """The table of errors."""
    part.head("problem", "precision", "largest error", "of", "allowed")
    for problem in problems:
        for dtype in [torch.float32, *([HALF] if half(problem.family) else [])]:
            what = f"{problem.name}, {str(dtype)[6:]}"
            with part.attempt(what):
                errors: dict[str, float] = {}
                for fault in faults(problem, dtype, errors):
                    part.fail(f"{what}: {fault}")
                worst = max(errors, key=lambda name: errors[name])
                cells = (f"{errors[worst]:.1e}", worst, f"{MOST[dtype]:.0e}")
                part.row(problem.name, str(dtype)[6:], *cells)
                part.record(what, errors)


def search(part: Part) -> None:
    """Searches with the network on the device find what those on the CPU find."""
    peaky = PeakyModel()
    inputs = peaky.frames(4)[:, : 6 if IS_INTERPRETED else 60]
    for beam in (0, 4):
        name = f"beam {beam}" if beam else "greedy"
        with part.attempt(name), torch.inference_mode():
            wanted = searched(inputs, peaky.model.cpu(), beam)
            found = searched(inputs.to(DEVICE), peaky.model.to(DEVICE), beam)
            off = max(abs(a[1] - b[1]) for a, b in zip(wanted, found, strict=True))
            part.say(f"\nSearch, {name}: ln Pr(y|x) differs by at most {off:.1e} from the CPU's.")
            part.record(f"search, {name}", off)
            if [y for y, _ in wanted] != [y for y, _ in found] or not off < 1e-3:
                part.fail(f"search, {name}: found {found}, on the CPU {wanted}")


def searched(inputs: Tensor, model: TransducerModel, beam: int) -> list[tuple[list[int], float]]:
    """The best tokens of each utterance, of which one is short; ln Pr(y|x), for a beam."""
    lengths = torch.full((len(inputs),), inputs.shape[1])
    lengths[1] = 2
    if not beam:
        return [(tokens, 0.0) for tokens in transducer_greedy(inputs, lengths, model)]
    found = transducer_beam_search(inputs, lengths, model, beam=beam)
    return [(list(hyps[0].tokens), hyps[0].log_prob) for hyps in found]


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1:] == ["--smallest"]:
        for problem in smallest():
            problem.solve(True, torch.float32, DEVICE, lambda x: x.clone())
            settle()
            print(problem.name, flush=True)
    else:
        sections = [("smallest problems", lambda part: check(part, smallest()))]
        if not IS_INTERPRETED:
            sections.append(("full size", lambda part: check(part, full_size())))
        sections.append(("search", search))
        run_part("right", "Right", sections)
