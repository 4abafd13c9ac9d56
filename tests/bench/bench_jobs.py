#!/usr/bin/env python3
"""What jobs cost: features and decoding against the number of jobs, and a job's start.

Usage: bench_jobs.py [--cmd run.py] [--jobs 1,2,4] CTC_MODEL TRANSDUCER_MODEL DATA_DIR CONF_DIR

e.g.: python3 tests/bench/bench_jobs.py exp/ctc exp/transducer data/dev conf

DATA_DIR has wav.scp, feats.scp and utt2num_frames; CONF_DIR fbank.conf and delta.conf. The start of
a job is the time from its process to its first utterance: that of decoding one utterance which is
already in the journal. Run it in the folder where the paths of DATA_DIR begin.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEAM = "--beam=10 --device=cpu"


def cost(*command: object) -> tuple[float, float]:
    """How long a command takes, and the processor seconds of all its processes on this machine.

    Ends the program if it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    path = f"{ROOT}/bin:{ROOT}/utils:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - started, busy


def copy_of(data: Path, place: Path) -> Path:
    """A data directory with the recordings alone, to make features of."""
    place.mkdir()
    for name in ("wav.scp", "text", "utt2spk", "spk2utt", "utt2num_frames"):
        (place / name).write_bytes((data / name).read_bytes())
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cmd", default="run.py")
    parser.add_argument("--jobs", default="1,2,4")
    for name in ("ctc", "transducer", "data", "conf"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    data, models = arguments.data, {"ctc": arguments.ctc, "transducer": arguments.transducer}
    frames = [int(x.split()[1]) for x in (data / "utt2num_frames").read_text().splitlines()]
    hours = sum(frames) / 360_000
    print(f"{len(frames)} utterances, {hours * 3600:.0f} s of speech, {arguments.cmd}\n")
    print("| step | jobs | wall, s | processor, s | times real time |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for jobs in map(int, arguments.jobs.split(",")):
            shared = ("--nj", jobs, "--cmd", arguments.cmd)
            own = copy_of(data, work / f"data{jobs}")
            conf = arguments.conf
            options = ("--conf", conf / "fbank.conf", "--delta-conf", conf / "delta.conf")
            took = {"features": cost("make_feats.sh", *shared, *options, own, work / f"f{jobs}")}
            for kind, model in models.items():
                where = (f"decode_{kind}.py", model, data, work / f"{kind}{jobs}")
                took[f"{kind}, beam 10"] = cost("decode.sh", *shared, "--options", BEAM, *where)
            for step, (wall, busy) in took.items():
                rate = hours * 3600 / wall
                print(f"| {step} | {jobs} | {wall:.1f} | {busy:.1f} | {rate:.0f} |", flush=True)
        (work / "one.scp").write_text((data / "feats.scp").read_text().splitlines()[0] + "\n")
        cmvn = []
        if (data / "cmvn.scp").exists():
            cmvn = [f"--cmvn=scp:{data}/cmvn.scp", f"--utt2spk=ark:{data}/utt2spk"]
        for kind, model in models.items():
            words = (f"decode_{kind}.py", "--resume", "--device=cpu", *cmvn, model)
            words = (*words, f"scp:{work}/one.scp", f"ark,t:{work}/hyp.{kind}")
            wall, busy = sorted(cost(*words) for _ in range(6))[2]
            print(f"| start of a job, {kind} | 1 | {wall:.2f} | {busy:.2f} | |")


if __name__ == "__main__":
    main()
