"""Building a demo corpus: in a folder of its own until it is whole, a process for each speaker.

espeak-ng reproduces the same samples only in a new process. An interrupted corpus is continued by
the same command, and two commands at once build one corpus.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError, PipelineError, UsageError
from pipeline.files import locked

MARKER = ".demo_corpus.json"  # file in the root with the options of the corpus

Options = Mapping[str, int | str]


@dataclass(frozen=True)
class SpeakerJob:
    """A speaker to record.

    Attributes:
        speaker: the name, for messages.
        directory: the directory of the recordings, relative to the root of the corpus.
        arguments: what the worker gets before the path of the directory.
    """

    speaker: str
    directory: str
    arguments: tuple[object, ...]


def is_made(out_dir: Path, options: Options) -> bool:
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


def _read_marker(directory: Path) -> dict[str, int | str] | None:
    try:
        return dict(json.loads((directory / MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def built_corpus(out_dir: Path, options: Options) -> Iterator[Path | None]:
    """The directory under construction, locked for this process, which becomes ``out_dir``.

    It is None if another process, for which this one has waited, has made the corpus.
    """
    building = out_dir.with_name(out_dir.name + ".tmp")
    if building.exists() and _read_marker(building) is None and any(building.iterdir()):
        raise UsageError(f"{building}: exists and was not made by this program; move it away")
    building.parent.mkdir(parents=True, exist_ok=True)
    with locked(building.with_name(building.name + ".lock"), where=building):
        if is_made(out_dir, options):
            yield None
            return
        if _read_marker(building) != options:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            (building / MARKER).write_text(json.dumps(options) + "\n", encoding="utf-8")
        yield building
        os.rename(building, out_dir)


def missing_speakers(building: Path, jobs: Sequence[SpeakerJob]) -> list[SpeakerJob]:
    """The speakers that are not recorded yet."""
    return [job for job in jobs if not (building / job.directory).is_dir()]


def record_speakers(
    worker: Path, jobs: Sequence[SpeakerJob], building: Path, processes: int
) -> Iterator[str]:
    """Run ``worker ARGUMENTS… DIRECTORY`` for every speaker; gives the names as they end.

    Raises:
        DataError: a worker failed.
    """
    with ThreadPoolExecutor(processes) as pool:
        tasks = [pool.submit(_record, worker, job, building) for job in jobs]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _record(worker: Path, job: SpeakerJob, building: Path) -> str:
    target = building / job.directory
    shutil.rmtree(target.with_name(target.name + ".part"), ignore_errors=True)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(worker), *map(str, job.arguments), str(target)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        what = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DataError(
            f"{job.speaker}: recording failed (status {done.returncode}): {what[-1]}; "
            "run the same command again to continue"
        )
    return job.speaker


def record_into(target: Path, record: Callable[[Path], None]) -> int:
    """Record into a directory that gets its name when it is complete; returns the exit status."""
    partial = target.with_name(target.name + ".part")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        record(partial)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    os.rename(partial, target)
    return 0
