"""A real asynchronous training on this machine, beside the simulation of the same."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from async_simulation import Cluster, Cost, Outcome, simulate
from async_times import CONF, TOKENS, WORKLOADS, Workload, network, synthetic

from pipeline.tables import MatrixWriter

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 3


def write_data(folder: Path, workload: Workload, features: int, batches: int, seed: int) -> None:
    """A data directory of noise, as many utterances as that many batches have."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    text = []
    with MatrixWriter(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
        for n in range(batches):
            batch = synthetic(workload, features, generator)
            for k, (length, count) in enumerate(
                zip(batch.lengths.tolist(), batch.target_lengths.tolist(), strict=True)
            ):
                writer.write(f"u{n:04}-{k:02}", batch.features[k, :length].numpy())
                words = " ".join(f"t{token}" for token in batch.targets[k, :count].tolist())
                text.append(f"u{n:04}-{k:02} {words}\n")
    (folder / "text").write_text("".join(text))


def train(model: str, workers: int, shards: int, updates: int) -> list[dict[str, Any]]:
    """What ``metrics.jsonl`` says of the epochs."""
    workload = WORKLOADS[model]
    if not workload.config.startswith("encoders") or workload.changes:
        raise SystemExit(f"{model}: only lstmp and lstmp-16 are trained here")
    features = network(workload)[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "train", workload, features, updates, 0)
        write_data(folder / "dev", workload, features, 1, 1)
        symbols = ["<blk>", *(f"t{n}" for n in range(1, TOKENS))]
        tokens = "".join(f"{symbol} {n}\n" for n, symbol in enumerate(symbols))
        (folder / "tokens.txt").write_text(tokens)
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            f"--nproc-per-node={1 + shards + workers}", str(ROOT / "bin" / "train_ctc.py"),
            *("--async", f"--shards={shards}", f"--epochs={EPOCHS}", "--device=cpu"),
            *(f"--batch-size={workload.utterances}", "--learning-rate=1e-6", "--cmvn=none"),
            *("--dropout=0", str(CONF / workload.config), str(folder / "tokens.txt")),
            *(str(folder / part) for part in ("train", "dev", "model")),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, timeout=120, stdout=sys.stderr)
        lines = (folder / "model" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["asynchronous"] for line in lines]


def totals(epochs: list[dict[str, Any]]) -> dict[str, float]:
    """Of the epochs after the first one, which compiles and fills caches."""
    shares = [share for facts in epochs[1:] for share in facts["workers"].values()]
    steps = sum(share["steps"] for share in shares)
    seconds = sum(share["steps"] / share["steps_per_second"] for share in shares)
    waiting = sum(share["waiting_seconds"] for share in shares)
    workers = len(epochs[1]["workers"])
    seen = [seen for facts in epochs[1:] for seen in facts["staleness"]]
    pushes = sum(n for one in seen for n in one.values())
    return {
        "step": (seconds - waiting) / steps,
        "updates": workers * steps / seconds,
        "waiting": waiting / seconds,
        "staleness": sum(int(late) * n for one in seen for late, n in one.items()) / pushes,
    }


def compare(cluster: Cluster, model: str, updates: int, seed: int) -> None:
    """Print what was measured, what is simulated, and that with all times longer as real steps."""
    found = totals(train(model, cluster.workers, len(cluster.shards), updates))
    mean = sum(cluster.steps) / len(cluster.steps)
    busy = stretched(cluster, found["step"] / mean)
    print("| | a step, ms | updates/s | waiting, % | mean staleness |\n|---|---|---|---|---|")
    _show("real", found["step"], found["updates"], found["waiting"], found["staleness"])
    for name, one in (("simulated", cluster), ("all times stretched to real steps", busy)):
        outcome: Outcome = simulate(one, seed=seed)
        step = sum(one.steps) / len(one.steps)
        _show(name, step, outcome.updates, outcome.waiting, outcome.mean_staleness)


def stretched(cluster: Cluster, factor: float) -> Cluster:
    """As on a machine that others use too: everything takes longer."""

    def longer(cost: Cost) -> Cost:
        return Cost(cost.call * factor, cost.million * factor)

    return replace(
        cluster,
        steps=[seconds * factor for seconds in cluster.steps],
        pull=longer(cluster.pull),
        push=longer(cluster.push),
        question=cluster.question * factor,
        latency=cluster.latency * factor,
        rate=cluster.rate / factor,
    )


def _show(name: str, step: float, updates: float, waiting: float, staleness: float) -> None:
    values = f"{1e3 * step:.1f} | {updates:.2f} | {100 * waiting:.1f} | {staleness:.2f}"
    print(f"| {name} | {values} |", flush=True)
