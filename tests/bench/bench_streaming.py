#!/usr/bin/env python3
"""Latency of streaming recognition: time a chunk, at the start and after ten minutes.

Usage: bench_streaming.py [--minutes N] [--chunk-ms N] [--streams N]

e.g.: python3 tests/bench/bench_streaming.py --minutes=10

A network of 3 layers of 421 cells that reads forwards, CTC-3l-421h-uni of [G13], and the transducer
with it, have random weights and read noise that sounds like syllables; the output layer is set so
that about ten labels a second come out. What a chunk of samples takes, from samples to the partial
result, is measured for each chunk of a long recording: in its first minute, in its last, and of all
the mean and the 98th percentile. With several streams each gets a chunk, and all are advanced in
one batch, whose time is that of a chunk. Times are those of the processor, on one thread: what a
chunk takes on a machine that does nothing else.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine

from pipeline.decoding.decode_options import AnySearchOptions
from pipeline.decoding.streaming import StreamingRecogniser
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.front_end import FrontEnd
from pipeline.kernels.compiler.memory import keep_freed_memory
from pipeline.models.model_dir import ModelDir
from pipeline.models.weights import save_weights
from pipeline.nn.config import model_config_from
from pipeline.nn.layers import initialise
from pipeline.nn.models import CtcModel, TransducerModel, build_model
from pipeline.text.tokens import Tokens

RATE, TOKENS, LABELS_A_SECOND = 16000, 62, 10.0
SEARCHES = (("ctc", 10), ("transducer", 10), ("ctc", 1), ("transducer", 1), ("ctc", 100))
FBANK = "--num-mel-bins=40\n--use-energy=true\n"


def speech(seconds: int, generator: np.random.Generator) -> np.ndarray:
    """Noise in bursts of a tenth of a second, each through a filter of its own."""
    bursts = []
    for _ in range(10 * seconds):
        white = generator.standard_normal(RATE // 10 + 40)
        shape = np.exp(-np.arange(40) / generator.uniform(1, 10)) * np.cos(
            np.arange(40) * generator.uniform(0.1, 2.5)
        )
        loud = 10.0 ** generator.uniform(1.5, 3.5)
        bursts.append(loud * np.convolve(white, shape, "valid")[: RATE // 10])
    return np.concatenate(bursts).astype(np.float32)


def make_model(kind: str, folder: Path, samples: np.ndarray) -> Path:
    """A model directory with random weights."""
    conf = folder / "conf"
    conf.mkdir(exist_ok=True)
    (conf / "fbank.conf").write_text(FBANK)
    (conf / "delta.conf").write_text("--delta-order=2\n")
    encoder = {"input_dim": 123, "layers": 3, "cells": 421, "bidirectional": False}
    parts = {"predictor": {"cells": 250}, "joiner": {"kind": "tanh", "dim": 250}}
    data = {"num_tokens": TOKENS, "encoder": encoder, **(parts if kind != "ctc" else {})}
    config = model_config_from(data, where="bench")
    model = build_model(config, num_tokens=TOKENS)
    initialise(model, scale=0.1, generator=torch.Generator().manual_seed(0))
    features = FrontEnd.load(conf)(samples, RATE)
    stats = CmvnStats.zeros(features.shape[1])
    stats.accumulate(features)
    batch = torch.from_numpy(stats.apply(features, norm_vars=True))[None]
    with torch.no_grad():
        encoded, _ = model.eval().encoder(batch, torch.tensor([batch.shape[1]]))
        speak(model, encoded[0])
    symbols = ["<blk>", *(f"p{k}" for k in range(1, TOKENS))]
    directory = ModelDir.create(
        folder / kind, config, Tokens(symbols), cmvn=stats, front_end=conf, options={}
    )
    save_weights(model, directory.weights_path)
    return directory.path


def speak(model: torch.nn.Module, encoded: torch.Tensor) -> None:
    """Scale the output layer, and set the blank's bias, so that labels come at their rate."""
    if isinstance(model, CtcModel):
        layer, inputs = model.output, encoded
    else:
        assert isinstance(model, TransducerModel)
        layer = model.joiner.output
        inputs = torch.tanh(model.joiner.project_encoder(encoded) + model.start(1)[1])
    layer.weight /= (inputs @ layer.weight.t()).std() / 4.0
    labels = (inputs @ layer.weight.t() + layer.bias)[:, 1:].max(dim=1).values
    blank = inputs @ layer.weight[0]
    share = LABELS_A_SECOND / 100.0
    layer.bias[0] = torch.quantile(labels - blank, 1.0 - share)


def measure(path: Path, beam: int, samples: np.ndarray, options: argparse.Namespace) -> None:
    """Print a row of the table."""
    recogniser = StreamingRecogniser(
        path, options=AnySearchOptions(beam=beam, max_tokens_per_frame=1)
    )
    warm = recogniser.start()
    warm.accept_waveform(samples[: 2 * RATE])
    warm.finish()
    started = time.process_time()
    streams = [recogniser.start() for _ in range(options.streams)]
    of_start = (time.process_time() - started) / options.streams
    size = round(RATE * options.chunk_ms / 1000)
    chunks = round(options.minutes * 60_000 / options.chunk_ms)
    a_minute = round(60_000 / options.chunk_ms)
    begins = np.random.default_rng(1).integers(0, len(samples) - size, (chunks, options.streams))
    before, times = memory_mb(), []
    for of_chunk in begins:
        started = time.process_time()
        for stream, begin in zip(streams, of_chunk, strict=True):
            stream.accept_waveform(samples[begin : begin + size])
        recogniser.advance(streams)
        for stream in streams:
            stream.partial_result()
        times.append(1000.0 * (time.process_time() - started))
    first, last = (statistics.median(x) for x in (times[:a_minute], times[-a_minute:]))
    labels = len(streams[0].partial_result().tokens) / (60.0 * options.minutes)
    high, mean = float(np.percentile(times, 98)), statistics.mean(times)
    cells = [
        f"{path.name}, beam {beam}",
        *(f"{x:.2f} ms" for x in (first, last, mean, high, max(times))),
        f"{mean / (options.chunk_ms * options.streams):.4f}",
        f"{labels:.1f}",
        f"{1000 * of_start:.2f} ms",
        f"{memory_mb() - before:.0f} MB",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def memory_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--chunk-ms", type=float, default=100)
    parser.add_argument("--streams", type=int, default=1, help="advanced in one batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    samples = speech(60, np.random.default_rng(0))
    print(f"{machine()}, 1 thread; {options}")
    columns = ["model", "1st minute, median", "last", "mean", "98th", "greatest"]
    columns += ["of real time", "labels/s", "a start", "more memory"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, beam in (
            ("ctc", 1),
            ("ctc", 10),
            ("ctc", 100),
            ("transducer", 1),
            ("transducer", 10),
        ):
            path = Path(folder) / kind
            if not path.exists():
                path = make_model(kind, Path(folder), samples[: 20 * RATE])
            measure(path, beam, samples, options)
        look_ahead = StreamingRecogniser(path).look_ahead()
    print(f"look-ahead: {look_ahead}, {look_ahead.total_ms:g} ms in all")


if __name__ == "__main__":
    main()
