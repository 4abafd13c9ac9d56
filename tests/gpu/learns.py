#!/usr/bin/env python3
"""Last part of the GPU script: short trainings of a transducer by the modern regime.

Usage: learns.py FOLDER FEATS

FEATS is a folder of train/, dev/ and tokens.txt, as features.sh makes it; in Triton's interpreter a
toy corpus takes its place. Without what is random on a GPU the losses are compared with those of a
CPU, epoch by epoch; a training that is killed and started again must end as the others do.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from part import IS_INTERPRETED, ROOT, Part, chosen, run_part

sys.path.append(str(ROOT / "tests"))
from conftest import make_toy_corpus

EPOCHS = chosen(4, 2)
CONF = ROOT / "egs" / "timit" / "conf"
SAME = 0.02  # most that losses on a GPU and on a CPU differ, relative


class Corpus(NamedTuple):
    """A corpus and how a network is trained on it."""

    folder: Path
    architecture: Path
    options: list[str]


def corpus(folder: Path) -> Corpus:
    """The features that were given, or a toy."""
    if IS_INTERPRETED:
        toy = make_toy_corpus(folder / "toy")
        text = (toy.path / "model.toml").read_text()
        small = text.replace("cells = 16", "cells = 4").replace(
            "layers", "stack_frames = 3\nlayers"
        )
        (toy.path / "model.toml").write_text(small.replace("sum", "tanh") + "dim = 5\n")
        adam = ["--optimizer=adam", "--learning-rate=0.03", "--batch-size=4"]
        return Corpus(toy.path, toy.path / "model.toml", adam)
    config = [f"--config={CONF}/modern/train_transducer.conf", "--cmvn=train/cmvn.ark"]
    config += ["--patience=0", "--batch-size=8", "--ctc-weight=0.3"]
    return Corpus(Path(sys.argv[2]).resolve(), CONF / "modern.toml", config)


def start(corpus: Corpus, model_dir: Path, *options: str, on_gpu: bool) -> subprocess.Popen[bytes]:
    """Start a training; its log is beside its directory."""
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    if not on_gpu:
        for name in ("TRITON_INTERPRET", "PIPELINE_KERNELS"):
            environment.pop(name, None)
    device = "cuda" if on_gpu and not IS_INTERPRETED else "cpu"
    program = [sys.executable, "-W", "ignore", str(ROOT / "bin" / "train_transducer.py")]
    files = [corpus.architecture, "tokens.txt", "train", "dev", model_dir.resolve()]
    with open(f"{model_dir}.log", "ab") as log:
        return subprocess.Popen(
            [*program, *corpus.options, *options, f"--device={device}", *map(str, files)],
            cwd=corpus.folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def finish(process: subprocess.Popen[bytes], model_dir: Path, seconds: float) -> list[dict]:
    """The metrics of every epoch, once the training has ended well."""
    if process.wait(timeout=seconds) != 0:
        last = Path(f"{model_dir}.log").read_text().strip().splitlines()[-1:]
        raise RuntimeError(f"the training failed: {' '.join(last)}")
    return metrics(model_dir)


def metrics(model_dir: Path) -> list[dict]:
    """The metrics of the epochs so far."""
    path = model_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def curve(epochs: list[dict], name: str) -> str:
    """A number of each epoch, for a table."""
    return ", ".join(f"{epoch[name]:.3f}" for epoch in epochs)


STILL = ("--dropout=0", "--input-noise=0")  # what a GPU draws otherwise than a CPU


def trainings(part: Part) -> None:
    """All of them: the CPU's goes on beside the others."""
    folder = part.folder / "learns"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    data = corpus(folder)
    still = (*STILL, f"--epochs={EPOCHS}", "--threads=2")
    beside = start(data, folder / "cpu", *still, on_gpu=False)
    found: dict[str, list[dict]] = {}
    try:
        with part.attempt("training"):
            name = folder / "whole"
            found["whole"] = finish(start(data, name, *still, on_gpu=True), name, 90)
        with part.attempt("training killed and started again"):
            found["killed"] = killed(data, folder / "killed", still)
        with part.attempt("modern regime in half precision"):
            precision = chosen("bf16", "float32")
            options = (f"--precision={precision}", f"--epochs={chosen(20, 2)}", "--threads=2")
            name = folder / "modern"
            found["modern"] = finish(start(data, name, *options, on_gpu=True), name, 60)
        with part.attempt("training on the CPU"):
            found["cpu"] = finish(beside, folder / "cpu", 60)
    finally:
        beside.kill()
        found.setdefault("cpu", metrics(folder / "cpu"))
    tell(part, found)
    shutil.rmtree(folder, ignore_errors=True)


def killed(data: Corpus, name: Path, options: tuple[str, ...]) -> list[dict]:
    """A training that is killed within its second epoch and started again."""
    process = start(data, name, *options, "--save-every=0", on_gpu=True)
    end = time.monotonic() + 60
    while not metrics(name) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("it ended before it was killed")
    return finish(start(data, name, *options, "--save-every=0", on_gpu=True), name, 60)


def tell(part: Part, found: dict[str, list[dict]]) -> None:
    """The table, and what is wrong with it."""
    titles = {
        "whole": chosen("GPU, nothing random", "interpreted, nothing random"),
        "killed": "the same, killed and started again",
        "cpu": "CPU, nothing random",
        "modern": chosen("GPU, whole modern regime, bf16", "interpreted, dropout and noise"),
    }
    part.head("training", "loss of each epoch", "dev loss", "dev error, %", "frames/s")
    for name, title in titles.items():
        if found.get(name):
            last = found[name][-1]
            error, speed = f"{last['dev_error_rate']:.1f}", f"{last['frames_per_second']:,.0f}"
            losses = [curve(found[name], kind) for kind in ("train_loss", "dev_loss")]
            part.row(title, *losses, error, speed)
            part.record(name, found[name])
    for name in ("whole", "modern"):
        losses = [epoch["train_loss"] for epoch in found.get(name, [])]
        if losses and not losses[-1] < losses[0]:
            part.fail(f"{titles[name]}: the loss does not fall")
    compare(part, "on the CPU", found.get("whole", []), found["cpu"], SAME)
    compare(part, "after a kill", found.get("whole", []), found.get("killed", []), 1e-4)


def compare(part: Part, what: str, one: list[dict], other: list[dict], most: float) -> None:
    """Whether two trainings had the same losses, as far as both have come."""
    if not one or not other:
        return
    names = ("train_loss", "dev_loss")
    pairs = [(a[n], b[n]) for a, b in zip(one, other, strict=False) for n in names]
    off = max(abs(a - b) / abs(a) for a, b in pairs)
    part.say(f"\nLosses {what} differ by at most {100 * off:.4f} % over {len(pairs) // 2} epochs.")
    part.record(f"difference {what}", off)
    if not off <= most:
        part.fail(f"losses {what} differ by {100 * off:.2f} %, allowed are {100 * most:g} %")


def two_gpus(part: Part) -> None:
    """Two processes over NCCL, where there are two GPUs."""
    count = 0 if IS_INTERPRETED else torch.cuda.device_count()
    if count < 2:
        part.say(f"\nNCCL needs two GPUs; here is {'one' if count else 'none'}: not run.")
        return
    folder = part.folder / "nccl"
    folder.mkdir(exist_ok=True)
    data = corpus(folder)
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    files = [data.architecture, "tokens.txt", "train", "dev", (folder / "model").resolve()]
    command = [*program, str(ROOT / "bin" / "train_transducer.py"), *data.options, "--epochs=2"]
    subprocess.run([*command, "--device=cuda", *map(str, files)], cwd=data.folder, check=True)
    part.say(f"\nTwo processes over NCCL: dev loss {curve(metrics(folder / 'model'), 'dev_loss')}.")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_part("learns", "Learns", [("trainings", trainings), ("two GPUs", two_gpus)])
