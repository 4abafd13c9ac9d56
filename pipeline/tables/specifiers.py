"""Kaldi's names for tables and files: rspecifiers, wspecifiers, extended file names, ranges.

The grammar is Kaldi's (``src/util/kaldi-table.cc``, ``kaldi-io.cc``, ``kaldi-holder.cc``):

==================================  ==============================================================
``ark[,options]:FILE``              one archive, read or written
``scp[,options]:FILE``              a list of ``key file`` lines, read
``ark,scp[,options]:A.ark,A.scp``   an archive and the list that points into it, written
``-``                               standard input or output (an empty name means the same)
``command |`` and ``| command``     a pipe, read from or written to
``path:OFFSET``                     a file, read from byte OFFSET on
``path[r0:r1,c0:c1]``               rows r0 to r1 and columns c0 to c1, both ends included
==================================  ==============================================================

Options of an rspecifier: ``o`` or ``no`` (each key is requested at most once), ``s`` or ``ns``
(keys are sorted), ``cs`` or ``ncs`` (keys are requested in sorted order), ``p`` or ``np`` (bad
entries are skipped); ``bg``, ``b`` and ``t`` are ignored. Options of a wspecifier: ``b`` or ``t``
(binary or text), ``f`` or ``nf`` (flush after each entry), ``p`` or ``np`` (keys that the scp lacks
are left out).
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.errors import SpecifierError

ROW_TOLERANCE = 3  # a range may end fewer rows than this after the last (Kaldi's length tolerance)

_READ_FLAGS: dict[str, dict[str, Any]] = {
    "o": {"once": True},
    "no": {"once": False},
    "s": {"sorted": True},
    "ns": {"sorted": False},
    "cs": {"called_sorted": True},
    "ncs": {"called_sorted": False},
    "p": {"permissive": True},
    "np": {"permissive": False},
    "bg": {},
    "b": {},
    "t": {},
}
_WRITE_FLAGS: dict[str, dict[str, Any]] = {
    "b": {"text": False},
    "t": {"text": True},
    "f": {"flush": True},
    "nf": {"flush": False},
    "p": {"permissive": True},
    "np": {"permissive": False},
}


@dataclass(frozen=True)
class Rspecifier:
    """The parts of an rspecifier such as ``ark,s,cs:feats.ark``."""

    kind: Literal["ark", "scp"]
    rxfilename: str
    once: bool = False  # o: each key is requested at most once
    sorted: bool = False  # s: the keys are in the order of LC_ALL=C
    called_sorted: bool = False  # cs: keys are requested in that order
    permissive: bool = False  # p: bad entries are skipped


@dataclass(frozen=True)
class Wspecifier:
    """The parts of a wspecifier such as ``ark,scp,t:feats.ark,feats.scp``; None: no such name."""

    ark: str | None
    scp: str | None
    text: bool = False
    flush: bool = False
    permissive: bool = False


@dataclass(frozen=True)
class Range:
    """Rows and columns of a matrix, both ends included; None means all."""

    text: str
    rows: tuple[int, int] | None
    columns: tuple[int, int] | None


def is_specifier(text: str) -> bool:
    """Whether ``text`` names a table (``ark:…``, ``scp,p:…``) rather than a plain file."""
    prefix, colon, _ = text.partition(":")
    return bool(colon) and bool({"ark", "scp"} & set(_split_options(prefix)))


def parse_rspecifier(text: str) -> Rspecifier:
    """Parse ``ark[,options]:rxfilename`` or ``scp[,options]:rxfilename``; ``-`` means ``ark:-``.

    Raises:
        SpecifierError: the text has another form, has an unknown option, or ends in a blank.
    """
    if text == "-":
        text = "ark:-"
    kinds, flags, name = _split_specifier(text, _READ_FLAGS, "rspecifier", "ark:feats.ark")
    if len(kinds) != 1:
        raise SpecifierError(
            f"{text}: an rspecifier has either ark or scp, not {' and '.join(kinds) or 'none'}; "
            "write for example scp:feats.scp"
        )
    check_rxfilename(name)
    if kinds[0] == "ark":
        return replace(Rspecifier("ark", name), **flags)
    return replace(Rspecifier("scp", name), **flags)


def parse_wspecifier(text: str) -> Wspecifier:
    """Parse ``ark[,options]:wxfilename`` or ``ark,scp[,options]:ark_name,scp_name``.

    ``scp[,options]:rxfilename`` writes each entry to the file that the scp file names for its key;
    ``-`` means ``ark:-``.

    Raises:
        SpecifierError: the text has another form or an unknown option.
    """
    if text == "-":
        text = "ark:-"
    kinds, flags, name = _split_specifier(text, _WRITE_FLAGS, "wspecifier", "ark:feats.ark")
    if kinds == ["ark"]:
        check_wxfilename(name)
        return replace(Wspecifier(name, None), **flags)
    if kinds == ["scp"]:
        check_rxfilename(name)
        return replace(Wspecifier(None, name), **flags)
    if kinds != ["ark", "scp"]:
        raise SpecifierError(f"{text}: expected ark or ark,scp (each once, in this order)")
    ark, comma, scp = name.partition(",")
    if not comma or not ark or not scp:
        raise SpecifierError(f"{text}: ark,scp needs two names: ark,scp:FILE.ark,FILE.scp")
    check_wxfilename(ark)
    check_wxfilename(scp)
    if ark == "-" or ark.startswith("|"):
        raise SpecifierError(f"{text}: an scp file can only refer to a file, not to {ark!r}")
    if ark == scp:
        raise SpecifierError(f"{text}: the archive and the scp need different names")
    return replace(Wspecifier(ark, scp), **flags)


def _split_options(prefix: str) -> list[str]:
    return re.split("[, ]", prefix)


def _split_specifier(
    text: str, known: dict[str, dict[str, Any]], what: str, example: str
) -> tuple[list[str], dict[str, Any], str]:
    """``ark,t:x`` -> ([``ark``], {``text``: True}, ``x``)."""
    prefix, colon, name = text.partition(":")
    if not colon or text != text.strip():
        why = "begins or ends with a blank" if colon else "has no colon"
        raise SpecifierError(f"{text!r}: not a {what}: it {why}; write for example {example}")
    kinds: list[str] = []
    flags: dict[str, Any] = {}
    for option in _split_options(prefix):
        if option in ("ark", "scp"):
            kinds.append(option)
        elif option in known:
            flags.update(known[option])
        else:
            raise SpecifierError(
                f"{text}: unknown {what} option {option!r}; choose from {', '.join(known)}"
            )
    return kinds, flags, name


# ---- extended file names -----------------------------------------------------------------------


def check_rxfilename(name: str) -> None:
    """Raise SpecifierError unless ``name`` is a file, ``path:OFFSET``, ``-`` or ``command |``."""
    if name != name.strip():
        raise SpecifierError(f"{name!r}: begins or ends with a blank")
    if "\0" in name:
        raise SpecifierError(f"{name!r}: holds a NUL character")
    if name.startswith("|"):
        raise SpecifierError(f"{name!r}: a pipe to read from must end with |, not begin with it")
    if name.endswith("|"):
        if not name[:-1].strip():
            raise SpecifierError(f"{name!r}: there is no command before the |")
    elif "|" in name:
        raise SpecifierError(f"{name!r}: has a | inside; end the name with | to make it a pipe")


def check_wxfilename(name: str) -> None:
    """Raise SpecifierError unless ``name`` is a file, ``-`` or ``| command``."""
    if name != name.strip():
        raise SpecifierError(f"{name!r}: begins or ends with a blank")
    if "\0" in name:
        raise SpecifierError(f"{name!r}: holds a NUL character")
    if name.endswith("|"):
        raise SpecifierError(f"{name!r}: a pipe to write to must begin with |, not end with it")
    if name.startswith("|"):
        if not name[1:].strip():
            raise SpecifierError(f"{name!r}: there is no command after the |")
    elif "|" in name:
        raise SpecifierError(f"{name!r}: has a | inside; begin the name with | to make it a pipe")
    elif split_offset(name)[1] is not None:
        raise SpecifierError(f"{name!r}: writing at an offset is impossible; leave off the number")


def is_read_pipe(name: str) -> bool:
    """Whether an rxfilename is ``command |``."""
    return name.endswith("|")


def split_offset(name: str) -> tuple[str, int | None]:
    """``feats.ark:17`` -> (``feats.ark``, 17); without an offset the second is None."""
    match = re.fullmatch(r"(.+):([0-9]{1,18})", name, re.DOTALL)
    return (match[1], int(match[2])) if match else (name, None)


def split_range(name: str) -> tuple[str, Range | None]:
    """``feats.ark:17[0:9]`` -> (``feats.ark:17``, rows 0 to 9); the second is None without a range.

    Raises:
        SpecifierError: the text in the brackets is not a range.
    """
    if not name.endswith("]"):
        return name, None
    base, bracket, inside = name[:-1].rpartition("[")
    parts = inside.split(",")
    if not base or not bracket or len(parts) > 2:
        raise SpecifierError(f"{name}: expected FILE[r0:r1] or FILE[r0:r1,c0:c1]")
    columns = _parse_ends(name, parts[1]) if len(parts) == 2 else None
    return base, Range(f"[{inside}]", _parse_ends(name, parts[0]), columns)


def _parse_ends(name: str, text: str) -> tuple[int, int] | None:
    if text == ":":
        return None
    match = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
    if not match or int(match[1]) > int(match[2]):
        raise SpecifierError(
            f"{name}: {text!r} is not a range; write first:last (both included), or : for all"
        )
    return int(match[1]), int(match[2])
