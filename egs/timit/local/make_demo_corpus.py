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

import pipeline.environment  # isort: skip  # noqa: F401

import logging
import os
from pathlib import Path
from typing import Annotated

from demo_voices import SpeakerPlan, plan_speakers
from typer import Argument, Option

from pipeline.cli import Tally, progress, run
from pipeline.errors import UsageError
from pipeline.synth.acoustics import RATE
from pipeline.synth.building import (
    SpeakerJob,
    built_corpus,
    is_made,
    missing_speakers,
    record_speakers,
)
from pipeline.synth.espeak import library_and_data

log = logging.getLogger("pipeline")

FORMAT = 1  # to be raised when the same options give another corpus
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
    if is_made(out_dir, options):
        log.info("%s: already exists, with the same options", out_dir)
        return _finish(out_dir)
    library_and_data()
    numbers = options_of_plan(options)
    plans = plan_speakers(*numbers)
    speakers = [
        SpeakerJob(plan.voice.speaker, plan.directory, (*numbers, index))
        for index, plan in enumerate(plans)
    ]
    with built_corpus(out_dir, options) as building:
        if building:
            missing = missing_speakers(building, speakers)
            done = record_speakers(_WORKER, missing, building, jobs or os.cpu_count() or 1)
            for _ in progress(done, total=len(missing), what="speakers"):
                pass
            _write_documents(building / "DOC", plans)
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


def _write_documents(directory: Path, plans: list[SpeakerPlan]) -> None:
    """Write SPKRINFO.TXT and the lists of speakers, as in DOC of TIMIT and in Kaldi's recipe."""
    directory.mkdir(exist_ok=True)
    lines = ["; Speakers of a synthetic corpus: no persons", "; ID  Sex  DR  Use  Noise  SNR"]
    for plan in plans:
        channel, voice = plan.voice.channel, plan.voice
        noise = f"{channel.noise:6s}  {channel.snr_db:.0f} dB"
        lines.append(f"{voice.speaker[1:]}  {voice.sex}  {plan.dialect}  {plan.use}  {noise}")
    (directory / "SPKRINFO.TXT").write_text("\n".join(lines) + "\n", encoding="ascii")
    for part in ("dev", "test"):
        speakers = [plan.voice.speaker.lower() for plan in plans if plan.part == part]
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
