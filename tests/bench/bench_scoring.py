#!/usr/bin/env python3
"""Time and memory of scoring large test sets, beside jiwer and NIST's sclite.

Usage: bench_scoring.py [--utterances=N] [--tokens=N]

Each program is a process of its own, from reading the files to its last line. jiwer counts errors
and aligns; sclite, left out if it is not installed (apt install sctk), writes what score.py writes
in its forms (sum, rsum, dtl, pra, sgml). These two get a tenth of the utterances, beside ours.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PHONES = [f"p{n}" for n in range(39)]
JIWER = """
import sys, jiwer
sides = [[line.split(" ", 1)[1] for line in open(path)] for path in sys.argv[1:3]]
print(jiwer.process_words(*sides).wer)
"""


def make_tables(folder: Path, count: int, tokens: int) -> None:
    """References and hypotheses with 17 % errors, 100 utterances a speaker; as trn as well."""
    draw = random.Random(0)
    (folder / "data").mkdir(parents=True)
    (folder / "decode").mkdir()
    names = ("data/text", "decode/hyp.txt", "data/utt2spk", "ref.trn", "hyp.trn")
    files = [open(folder / name, "w") for name in names]  # noqa: SIM115
    for number in range(count):
        ref = draw.choices(PHONES, k=tokens)
        hyp = [draw.choice(PHONES) if draw.random() < 0.1 else phone for phone in ref]
        hyp = [phone for phone in hyp if draw.random() > 0.05] or ["p0"]
        if draw.random() < 0.3:
            hyp.insert(draw.randrange(len(hyp) + 1), draw.choice(PHONES))
        speaker, texts = f"s{number // 100:05}", (" ".join(ref), " ".join(hyp))
        utt_id = f"{speaker}-u{number:07}"
        lines = [*(f"{utt_id} {text}\n" for text in texts), f"{utt_id} {speaker}\n"]
        lines += [f"{text} ({utt_id})\n" for text in texts]
        for file, line in zip(files, lines, strict=True):
            file.write(line)
    for file in files:
        file.close()


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and MB (peak, resident) of a command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=10)
    arguments = parser.parse_args()
    ours = {
        "compute_wer.py": ["compute_wer.py", "ark:data/text", "ark:decode/hyp.txt"],
        "score.py": ["score.py", "data", "decode"],
    }
    peers = {"jiwer": [sys.executable, "-c", JIWER, "data/text", "decode/hyp.txt"]}
    if shutil.which("sctk"):
        forms = ["-o", "sum", "rsum", "dtl", "pra", "sgml", "-O", ".", "-n", "out"]
        texts = ["-i", "spu_id", "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn"]
        peers["sclite"] = ["sctk", "sclite", "-s", *texts, *forms]
    print("| utterances | program | seconds | MB |\n|---|---|---|---|")
    for count, programs in ((arguments.utterances, {}), (arguments.utterances // 10, peers)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "tables"
            make_tables(folder, count, arguments.tokens)
            for program, (script, *options) in ours.items():
                command = [sys.executable, str(ROOT / "bin" / script), *options]
                seconds, size = measure(command, folder)
                print(f"| {count} | {program} | {seconds:.1f} | {size:.0f} |", flush=True)
            for program, command in programs.items():
                seconds, size = measure(command, folder)
                print(f"| {count} | {program} | {seconds:.1f} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
