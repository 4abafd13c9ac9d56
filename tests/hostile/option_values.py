"""Odd values for every option and every argument of every command."""

import random
import runpy
from dataclasses import dataclass
from typing import Any

from specimens import Specimen
from trials import find

NUMBERS = [
    *("nan", "inf", "-inf", "-1", "0", "1", "1e309", "-1e309", "1e-320", "²", "٣", "1_0", "0x10"),
    *(str(10**20), "9" * 400, str(2**31 - 1), str(2**31), str(2**63), "99999999999", "1.5", "1e10"),
]
TEXTS = [
    *("", " ", "/", ".", "..", "-", "--help", "none", "nan", "a" * 5000, "é", "e\u0301", "\u200b"),
    *(
        "\ufeff",
        "<script>",
        "$HOME",
        "`id`",
        "x y",
        "ark:-",
        "scp:-",
        "ark,t:-",
        "ark:",
        "|",
        "cat |",
    ),
    *("| cat", "/dev/null", "/dev/full", "/nonexistent/x", "dev/text", "dev", "tokens.txt", "map"),
    *("a,b", "*", "?", "'", '"', "\\", "\n", "\t", "%s", "{}", "true", "ark:dev/text", "file:x"),
]
# Values that are right and take long, or for which there need be no end.
LEFT_OUT = {"--epochs", "--timeout", "--device"}


@dataclass(frozen=True)
class OptionCase:
    """An option of a command that works without it."""

    specimen: Specimen
    name: str
    takes: str  # integer, float or text

    def value(self, seed: int) -> str:
        """An odd value."""
        source = random.Random(seed)
        if self.takes in ("integer", "float") and source.randrange(5):
            return source.choice(NUMBERS)
        return source.choice([*NUMBERS, *TEXTS] if self.takes != "text" else TEXTS)


@dataclass(frozen=True)
class ArgumentCase:
    """A command that works, and the place of one of its arguments."""

    specimen: Specimen
    place: int

    def words(self, seed: int) -> tuple[str, tuple[str, ...]]:
        """An odd argument, and all with it. Never "/": outputs would be written there."""
        value = random.Random(seed).choice([text for text in TEXTS if text != "/"])
        before, after = self.specimen.arguments[: self.place], self.specimen.arguments[self.place :]
        return value, (*before, value, *after[1:])


def argument_cases(specimens: list[Specimen]) -> list[ArgumentCase]:
    """Every argument that is no option, of every specimen but those that begin other programs."""
    return [
        ArgumentCase(specimen, place)
        for specimen in specimens
        if specimen.program not in ("slurm.py", "run.py")
        for place, word in enumerate(specimen.arguments)
        if not word.startswith("--")
    ]


def option_cases(specimens: list[Specimen]) -> list[OptionCase]:
    """Every option of every command that there is a specimen of."""
    cases, seen = [], set()
    for specimen in specimens:
        if specimen.program in seen or specimen.program in ("slurm.py", "run.py"):
            continue
        seen.add(specimen.program)
        for parameter in parameters(specimen.program):
            name = next((n for n in getattr(parameter, "opts", []) if n.startswith("--")), None)
            if name is not None and name not in LEFT_OUT and name != "--help":
                cases.append(OptionCase(specimen, name, _takes(parameter)))
    return cases


def parameters(program: str) -> list[Any]:
    """The options and arguments of a program, as its parser has them."""
    import pipeline.cli

    caught: list[Any] = []
    run, pipeline.cli.run = pipeline.cli.run, caught.append
    try:
        runpy.run_path(str(find(program)), run_name="__main__")
    finally:
        pipeline.cli.run = run
    return list(pipeline.cli._typer_command(caught[0]).params)


def _takes(parameter: Any) -> str:
    return {"int": "integer", "float": "float"}.get(str(parameter.bare_type()), "text")
