#!/usr/bin/env python3
"""Make a synthetic corpus in the layout of TIMIT, for trying the recipe without TIMIT.

Usage: make_demo_corpus.py [options] OUT_DIR

espeak-ng speaks generated sentences, with one voice for each speaker; rooms and noise are added.
The files are laid out as in TIMIT: TRAIN and TEST, DR1 to DR8, and a directory for each speaker
with SA, SX and SI sentences as .WAV (SPHERE), .PHN, .WRD and .TXT; DOC has the lists of the dev and
test speakers. The same options give the same files. Results on this corpus cannot be compared with
results on TIMIT.

The package espeakng-loader is needed: pip install 'espeakng-loader' (the extra `synth`). espeak-ng
is free software under the GPL, version 3 or later, and the audio contains its recorded consonants,
so make the corpus on your own machine and do not add it to a repository.

A second call with the same options returns at once; the same command continues an interrupted run.

e.g.: make_demo_corpus.py data/demo_corpus
e.g.: make_demo_corpus.py --size=smoke --jobs=2 data/demo_smoke

See also: prepare_data.py
"""

import pipeline.environment  # isort: skip

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from demo_acoustics import RATE
from demo_espeak import library_and_data
from demo_voices import SpeakerPlan, plan_speakers
from typer import Argument, Option

import pipeline
from pipeline.cli import Tally, progress, run
from pipeline.errors import DataError, UsageError
from pipeline.files import locked

log = logging.getLogger("pipeline")

FORMAT = 1  # to be raised when the same options give another corpus
MARKER = ".demo_corpus.json"  # file in the root with the options of the corpus
SIZES = {"full": (40, 8, 8), "smoke": (16, 4, 4)}  # numbers of speakers of train, dev and test
_WORKER = Path(__file__).with_name("demo_speaker.py")
_NO_NUMBER = -1

Options = dict[str, int]


def main(
    out_dir: Annotated[
        Path, Argument(metavar="OUT_DIR", help="directory of the corpus, made if it is missing")
    ],
    seed: Annotated[int, Option(min=0, help="seed of voices, sentences, rooms and noise")] = 0,
    size: Annotated[
        str,
        Option(help="size in speakers for train, dev and test: full: 40, 8, 8; smoke: 16, 4, 4"),
    ] = "full",
    num_train: Annotated[
        int, Option(help="number of training speakers; -1: by --size")
    ] = _NO_NUMBER,
    num_dev: Annotated[
        int, Option(help="number of development speakers; -1: by --size")
    ] = _NO_NUMBER,
    num_test: Annotated[int, Option(help="number of test speakers; -1: by --size")] = _NO_NUMBER,
    jobs: Annotated[
        int, Option(min=0, help="number of speakers to record in parallel; 0: one per core")
    ] = 0,
) -> int:
    options = _options(seed, size, (num_train, num_dev, num_test))
    if _is_made(out_dir, options):
        log.info("%s: already exists, with the same options", out_dir)
        return _finish(out_dir)
    library_and_data()
    plans = plan_speakers(*options_of_plan(options))
    building = out_dir.with_name(out_dir.name + ".tmp")
    with _only_builder(building, options):
        if _is_made(out_dir, options):  # by the process that this one has waited for
            shutil.rmtree(building)
            return _finish(out_dir)
        _record_all(plans, options, building, jobs or os.cpu_count() or 1)
        _write_documents(building / "DOC", plans)
        os.rename(building, out_dir)
    return _finish(out_dir)


def options_of_plan(options: Options) -> tuple[int, int, int, int]:
    """The seed and the numbers of speakers, in the order of the arguments of other functions."""
    return options["seed"], options["num_train"], options["num_dev"], options["num_test"]


def _options(seed: int, size: str, given: tuple[int, int, int]) -> Options:
    if size not in SIZES:
        raise UsageError(f"--size must be full or smoke, not {size!r}")
    counts = [SIZES[size][k] if n == _NO_NUMBER else n for k, n in enumerate(given)]
    for name, count in zip(("train", "dev", "test"), counts, strict=True):
        if count < 1:
            raise UsageError(f"--num-{name} must be 1 or more, not {count}")
    names = ("num_train", "num_dev", "num_test")
    return {"format": FORMAT, "seed": seed, **dict(zip(names, counts, strict=True))}


def _is_made(out_dir: Path, options: Options) -> bool:
    """Whether the corpus exists.

    Raises:
        UsageError: the directory holds something else, or a corpus with other options.
    """
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    made_with = _read_marker(out_dir)
    if made_with is None:
        raise UsageError(f"{out_dir}: exists and is not a demo corpus; give another directory")
    if made_with != options:
        shown = " ".join(f"{name}={value}" for name, value in made_with.items())
        raise UsageError(
            f"{out_dir}: holds a demo corpus made with other options ({shown}); "
            "remove it, or give another directory"
        )
    return True


def _read_marker(directory: Path) -> Options | None:
    try:
        return dict(json.loads((directory / MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _only_builder(building: Path, options: Options) -> Iterator[None]:
    """Make or take over the directory under construction, and lock it for this process."""
    if building.exists() and _read_marker(building) is None and any(building.iterdir()):
        raise UsageError(f"{building}: exists and was not made by this program; move it away")
    building.parent.mkdir(parents=True, exist_ok=True)
    with locked(building.with_name(building.name + ".lock"), where=building):
        if _read_marker(building) != options:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            (building / MARKER).write_text(json.dumps(options) + "\n", encoding="utf-8")
        yield


def _record_all(plans: list[SpeakerPlan], options: Options, building: Path, jobs: int) -> None:
    """Record every speaker that is still missing, each in a process of its own."""
    with ThreadPoolExecutor(jobs) as pool:
        tasks = [
            pool.submit(_record, index, plan, options, building)
            for index, plan in enumerate(plans)
            if not (building / plan.directory).is_dir()
        ]
        try:
            for task in progress(as_completed(tasks), total=len(tasks), what="speakers"):
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _record(index: int, plan: SpeakerPlan, options: Options, building: Path) -> None:
    target = building / plan.directory
    shutil.rmtree(target.with_name(target.name + ".part"), ignore_errors=True)
    numbers = [str(number) for number in (*options_of_plan(options), index)]
    root = str(Path(pipeline.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(_WORKER), *numbers, str(target)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        what = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DataError(
            f"{plan.speaker}: recording failed (status {done.returncode}): {what[-1]}; "
            "run the same command again to continue"
        )


def _write_documents(directory: Path, plans: list[SpeakerPlan]) -> None:
    """Write SPKRINFO.TXT and the lists of speakers, as in DOC of TIMIT and in Kaldi's recipe."""
    directory.mkdir(exist_ok=True)
    lines = ["; Speakers of a synthetic corpus: no persons", "; ID  Sex  DR  Use  Noise  SNR"]
    for plan in plans:
        noise = f"{plan.channel.noise:6s}  {plan.channel.snr_db:.0f} dB"
        lines.append(f"{plan.speaker[1:]}  {plan.sex}  {plan.dialect}  {plan.use}  {noise}")
    (directory / "SPKRINFO.TXT").write_text("\n".join(lines) + "\n", encoding="ascii")
    for part in ("dev", "test"):
        speakers = [plan.speaker.lower() for plan in plans if plan.part == part]
        path = directory / f"{part}_spk.list"
        path.write_text("".join(f"{name}\n" for name in speakers), encoding="ascii")


def _finish(corpus: Path) -> int:
    """Log the size of the corpus and return the exit status."""
    tally, samples, phones, speakers = Tally(), 0, 0, set()
    for path in corpus.glob("*/*/*/*.PHN"):
        lines = path.read_text(encoding="ascii").splitlines()
        samples += int(lines[-1].split()[1])
        phones += len(lines)
        speakers.add(path.parent.name)
        tally.ok()
    hours = samples / RATE / 3600
    return tally.finish(f"{len(speakers)} speakers, {hours:.2f} h, {phones} phones, synthetic")


if __name__ == "__main__":
    run(main)
