#!/usr/bin/env python3
"""Make a corpus of synthetic Mandarin, for trying the recipe without a corpus.

Usage: make_demo_corpus.py [options] OUT_DIR

espeak-ng speaks generated sentences of about a hundred characters, with one voice for each speaker;
rooms and noise are added. The corpus has the form that prepare_data.py reads: sentences.tsv with
the name, the characters and the pinyin of each sentence, sentences/NAME.wav, and speakers.tsv with
the speaker and the set of each. Train, dev and test have different speakers and sentences. The same
options give the same files. Error rates on this corpus say nothing about real speech.

--text gives sentences of your own. A line with Latin letters is an error, because they switch the
Mandarin voice of espeak-ng to English.

The package espeakng-loader is needed: pip install 'espeakng-loader' (the extra `synth`). espeak-ng
is free software under the GPL, version 3 or later, and the audio contains its recorded consonants,
so make the corpus on your own machine and do not add it to a repository.

A second call with the same options returns at once; the same command continues an interrupted run.

e.g.: make_demo_corpus.py demo/corpus
e.g.: make_demo_corpus.py --size=2,1,1 --per-speaker=3 small

See also: prepare_data.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import hashlib
import os
from pathlib import Path
from typing import Annotated

from demo_speakers import SpeakerPlan, plan_speakers
from typer import Argument, Option

from pipeline.cli import Tally, log, progress, run
from pipeline.errors import UsageError
from pipeline.frontend.audio import audio_duration_s
from pipeline.synth.building import (
    SpeakerJob,
    built_corpus,
    is_made,
    missing_speakers,
    record_speakers,
)
from pipeline.synth.espeak import library_and_data
from pipeline.text.mandarin import to_pinyin

FORMAT = 1  # to be raised when the same options give another corpus
SIZES = {"full": "40,8,8", "smoke": "12,3,3"}  # numbers of speakers of train, dev and test
_WORKER = Path(__file__).with_name("demo_speaker.py")


def main(
    out_dir: Annotated[
        Path, Argument(metavar="OUT_DIR", help="directory of the corpus, made if it is missing")
    ],
    seed: Annotated[int, Option(min=0, help="seed of voices, sentences, rooms and noise")] = 0,
    size: Annotated[
        str,
        Option(help="speakers of train, dev and test, such as 2,1,1; full: 40,8,8; smoke: 12,3,3"),
    ] = "full",
    per_speaker: Annotated[int, Option(min=1, help="number of sentences of a speaker")] = 12,
    text: Annotated[
        str, Option(metavar="FILE", help="text to say, a sentence a line; empty: made-up sentences")
    ] = "",
    jobs: Annotated[
        int, Option(min=0, help="number of speakers to record in parallel; 0: one per core")
    ] = 0,
) -> int:
    sizes = SIZES.get(size, size)
    plans = plan_speakers(seed, _counts(sizes), per_speaker, text)
    said = "\n".join(line for plan in plans for line in plan.sentences.values())
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    options = {"format": FORMAT, "seed": seed, "size": sizes, "sentences": digest}
    if is_made(out_dir, options):
        log.info("%s: already exists, with the same options", out_dir)
        return _finish(out_dir, plans)
    library_and_data()
    whole = str(Path(text).resolve()) if text else ""
    speakers = [
        SpeakerJob(p.voice.speaker, f"by/{p.voice.speaker}", (seed, sizes, per_speaker, whole, n))
        for n, p in enumerate(plans)
    ]
    with built_corpus(out_dir, options) as building:
        if building:
            missing = missing_speakers(building, speakers)
            done = record_speakers(_WORKER, missing, building, jobs or os.cpu_count() or 1)
            for _ in progress(done, total=len(missing), what="speakers"):
                pass
            _write_corpus(building, plans)
    return _finish(out_dir, plans)


def _counts(sizes: str) -> tuple[int, ...]:
    fields = sizes.split(",")
    if len(fields) != 3 or not all(f.isdecimal() and f.isascii() and int(f) for f in fields):
        raise UsageError(
            f"--size must be full, smoke or three numbers above 0, such as 2,1,1, not {sizes!r}"
        )
    return tuple(int(field) for field in fields)


def _write_corpus(building: Path, plans: list[SpeakerPlan]) -> None:
    """Put the recordings of all speakers into one folder, and write the tables."""
    rows, speakers = [], []
    folder = building / "sentences"
    folder.mkdir(exist_ok=True)
    for plan in plans:
        for name, line in plan.sentences.items():
            rows.append(f"{name}\t{line}\t{' '.join(to_pinyin(line))}\n")
            speakers.append(f"{name}\t{plan.voice.speaker}\t{plan.set}\n")
            recording = building / "by" / plan.voice.speaker / f"{name}.wav"
            if recording.exists():
                os.replace(recording, folder / recording.name)
    for name, lines in (("sentences.tsv", rows), ("speakers.tsv", speakers)):
        (building / name).write_text("".join(lines), encoding="utf-8")
    for plan in plans:
        (building / "by" / plan.voice.speaker).rmdir()
    (building / "by").rmdir()


def _finish(corpus: Path, plans: list[SpeakerPlan]) -> int:
    """Log the size of the corpus and return the exit status."""
    tally, seconds = Tally(), 0.0
    for path in (corpus / "sentences").glob("*.wav"):
        seconds += audio_duration_s(str(path))
        tally.ok()
    return tally.finish(f"{len(plans)} speakers, {seconds / 3600:.2f} h, synthetic")


if __name__ == "__main__":
    run(main)
