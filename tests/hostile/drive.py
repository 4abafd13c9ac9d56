#!/usr/bin/env python3
"""Try many damaged files and odd option values on every command, and count how each try ended.

Usage: drive.py [--count 10000] [--seed 0] [--jobs 2] [--share files|options|arguments]

A file of every kind that a command reads is damaged (mutations.py), or an option or an argument is
given a value that nobody expects (option_values.py). Each command runs in a process of its own,
with limits. Good endings: the command has worked, or it has refused and its message names the file
or the option. Bad ones are listed with what to type to try them again: a signal, a hang, a
traceback, "unexpected …", a message that names neither, and a damage that passed in a file that a
later step trusts.
"""

import argparse
import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutations import mutated
from option_values import argument_cases, option_cases
from specimens import Specimen, make_specimens
from trials import BAD, GOOD, MEMORY_DISK, Ending, Trials

TEXTS = {".txt", ".scp", ".conf", ".toml", ".json", ".jsonl", ".arpa", ".ctm", ".partial", ""}
SHOWN = 25  # examples of each bad kind


@dataclass(frozen=True)
class Try:
    """One try and how it ended."""

    seed: int
    command: str
    what: str  # which damage of which file, or which option
    kind: str
    ending: Ending


class Driver:
    """Makes the specimens once, then tries case after case.

    Args:
        folder: where the specimens are made.
    """

    def __init__(self, folder: Path) -> None:
        self.trials = Trials(folder)
        self.undamaged = make_specimens(folder, self.trials.run)
        specimens = list(self.undamaged)
        self.options, self.arguments = option_cases(specimens), argument_cases(specimens)
        self.pairs = [(s, name) for s in specimens for name in s.files]

    def try_file(self, seed: int) -> Try:
        """Damage a file that a command reads."""
        specimen, name = self.pairs[seed % len(self.pairs)]
        with self.trials.folder() as folder:
            path = folder / name
            is_text = path.suffix in TEXTS
            damage, data = mutated(seed, path.read_bytes(), is_text)
            path.write_bytes(data)
            ending = self.trials.run(specimen.program, *specimen.arguments, folder=folder)
            is_same = specimen.made(folder, ending) == self.undamaged[specimen]
        kind = ending.kind((path.name, name, *specimen.known_by))
        passes = kind == "done" and path.name not in ending.said
        if specimen.trusted_for and passes and not is_same:
            kind = "silent"
        return Try(seed, _line(specimen), f"{damage} of {name}", kind, ending)

    def try_option(self, seed: int) -> Try:
        """Give an option an odd value."""
        case = self.options[seed % len(self.options)]
        value = case.value(seed)
        with self.trials.folder() as folder:
            words = (f"{case.name}={value}", *case.specimen.arguments)
            ending = self.trials.run(case.specimen.program, *words, folder=folder)
        kind = ending.kind((case.name, *spellings(value), *case.specimen.files))
        return Try(seed, f"{case.specimen.program} {case.name}={value[:60]!r} …", "", kind, ending)

    def try_argument(self, seed: int) -> Try:
        """Give a command an odd argument."""
        case = self.arguments[seed % len(self.arguments)]
        value, words = case.words(seed)
        with self.trials.folder() as folder:
            ending = self.trials.run(case.specimen.program, *words, folder=folder)
        names = (*spellings(value), "Invalid value for '") if value.strip() else ("empty",)
        if value.endswith("-"):
            names = (*names, "nothing was done", "standard input", "stdin:")
        kind = ending.kind(names)
        return Try(seed, _line(case.specimen), f"argument {value[:60]!r}", kind, ending)


def spellings(value: str) -> tuple[str, ...]:
    """How a message may write a value."""
    written = (value[:60], repr(value), ascii(value), value.partition(":")[2], value.strip(" |"))
    return tuple(text for text in written if text)


def _line(specimen: Specimen) -> str:
    return " ".join((specimen.program, *specimen.arguments))


def seeds(count: int, share: str | None) -> list[tuple[str, int]]:
    """Which tries make up a run: of ten, six are of files, three of options, one of arguments."""
    if share:
        return [(share, n) for n in range(count)]
    parts = {"files": count * 6 // 10, "options": count * 3 // 10}
    parts["arguments"] = count - sum(parts.values())
    return [(what, number) for what, size in parts.items() for number in range(size)]


def drive(driver: Driver, wanted: list[tuple[str, int]], first: int) -> Iterator[Try]:
    """Try after try; ``first`` is added to each seed times a prime, for other damages."""
    kinds = {
        "files": driver.try_file,
        "options": driver.try_option,
        "arguments": driver.try_argument,
    }
    for what, number in wanted:
        yield kinds[what](number + 1_000_003 * first)


def drive_all(folder: Path, wanted: list[tuple[str, int]], first: int, jobs: int) -> list[Try]:
    """All tries, shared among processes."""
    driver = Driver(folder)
    places, children = [], []
    for job in range(jobs):
        place = folder.with_name(f"{folder.name}.{job}.tries")
        places.append(place)
        child = os.fork()
        if child == 0:
            try:
                tries = list(drive(driver, wanted[job::jobs], first))
                place.write_bytes(pickle.dumps(tries))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise RuntimeError("a process of the driver has failed")
    tries = [one for place in places for one in pickle.loads(place.read_bytes())]
    for place in places:
        place.unlink()
    return tries


def table(tries: list[Try]) -> str:
    """Counts of each ending, by command, as Markdown."""
    kinds = [*BAD, *GOOD]
    counts: dict[str, Counter[str]] = {}
    for one in tries:
        counts.setdefault(one.command.split()[0], Counter())[one.kind] += 1
    rows = [*sorted(counts.items()), ("all", Counter(one.kind for one in tries))]
    lines = ["| command | tries | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for name, found in rows:
        cells = [str(found[kind]) for kind in kinds]
        lines.append(f"| {name} | {found.total()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def examples(tries: list[Try]) -> Iterator[str]:
    """The bad ones, some of each kind."""
    for kind in BAD:
        for one in [t for t in tries if t.kind == kind][:SHOWN]:
            said = one.ending.said.strip().splitlines()[-4:]
            lines = "".join(f"\n    {line[:300]}" for line in said)
            yield f"{kind}: {one.command} [{one.what}, seed {one.seed}]{lines}"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="number of tries")
    parser.add_argument("--seed", type=int, default=0, help="another number, other damages")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--share", choices=("files", "options", "arguments"), help="only these")
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="specimens", dir=MEMORY_DISK) as place:
        wanted = seeds(arguments.count, arguments.share)
        tries = drive_all(Path(place).resolve(), wanted, arguments.seed, arguments.jobs)
    for line in examples(tries):
        print(line)
    for device in map(Path, ("/dev/null", "/dev/full")):
        if not device.is_char_device():
            print(f"{device} was replaced: make it again with mknod")
            return 1
    print(table(tries))
    print(f"{len(tries)} tries in {time.monotonic() - begun:.0f} s")
    return any(one.kind in BAD for one in tries)


if __name__ == "__main__":
    sys.exit(main())
