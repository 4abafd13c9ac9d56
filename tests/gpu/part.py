"""What the parts of the GPU script share: the device, the report, and the errors that it names."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.files import write_text

ROOT = Path(__file__).resolve().parents[2]
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
OURS = "interpreted" if IS_INTERPRETED else "ours"


def chosen(full: object, tiny: object) -> object:
    """A size: one for a GPU, one for Triton's interpreter."""
    return tiny if IS_INTERPRETED else full


def settle() -> None:
    """Wait until the device is idle."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def mean_seconds(run: Callable[[], object], times: int) -> float:
    """Mean of a number of runs one after the other, from an idle device to an idle device."""
    settle()
    begun = time.perf_counter()
    for _ in range(times):
        run()
    settle()
    return (time.perf_counter() - begun) / times


class Part:
    """Writes a part of the report, line by line as its results come, and its numbers as JSON.

    Lines are appended to ``report.md``; ``NAME.json`` is written anew, whole, with each number. So
    a part that is stopped leaves all that it had found.
    """

    def __init__(self, name: str, title: str, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._report, self._json = folder / "report.md", folder / f"{name}.json"
        self._values: dict[str, object] = {}
        self._failures: list[str] = []
        self.say(f"\n## {title}\n")

    def say(self, text: str) -> None:
        """Add a line to the report."""
        with open(self._report, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")
        print(text, flush=True)

    def head(self, *columns: str) -> None:
        """Begin a table."""
        self.say("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")

    def row(self, *cells: str) -> None:
        """Add a row to the table that was begun last."""
        self.say("| " + " | ".join(cells) + " |")

    def record(self, name: str, value: object) -> None:
        """Keep a number, or what JSON can hold, under a name."""
        self._values[name] = value
        failures = {"failures": self._failures} if self._failures else {}
        write_text(self._json, json.dumps({**self._values, **failures}, indent=1) + "\n")

    def fail(self, what: str) -> None:
        """Say that something is wrong; the part goes on, and `end` returns 1."""
        self._failures.append(what)
        self.say(f"\n**WRONG: {what}**\n")

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """An error inside is reported, and what comes after is done all the same."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            lines = str(error).splitlines() or [""]
            self.fail(f"{what}: {type(error).__name__}: {lines[0]}")

    def end(self) -> int:
        """The exit status; also records whether all was well."""
        self.record("is_right", not self._failures)
        return 1 if self._failures else 0


def run_part(name: str, title: str, parts: list[tuple[str, Callable[[Part], None]]]) -> None:
    """Do the sections of a part, each whatever becomes of the others, and exit with its status."""
    part = Part(name, title, Path(sys.argv[1]))
    for what, section in parts:
        with part.attempt(what):
            section(part)
    sys.exit(part.end())


def describe_machine() -> str:
    """Card and versions, or that there is no card."""
    python = ".".join(map(str, sys.version_info[:3]))
    try:
        import triton

        versions = f"torch {torch.__version__}, Triton {triton.__version__}, Python {python}"
    except ImportError:
        versions = f"torch {torch.__version__}, no Triton, Python {python}"
    if IS_INTERPRETED:
        return f"Triton's interpreter on a CPU, tiny shapes: no speed here is a GPU's. {versions}"
    card = torch.cuda.get_device_properties(0)
    memory = f"{card.total_memory / 2**30:.0f} GiB"
    return f"{card.name}, {card.multi_processor_count} multiprocessors, {memory}. {versions}"


if __name__ == "__main__":
    print(describe_machine())
