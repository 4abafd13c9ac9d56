"""Names in pictures: cut where they are long, in a font that has their characters.

matplotlib's own font knows Latin, Greek, Cyrillic and a few scripts more. What it lacks is looked
for in the fonts that are installed; what none has is written as its number, U+97F3, since one empty
box looks like another.
"""

import logging
import unicodedata
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("pipeline")

FONT = "DejaVu Sans"  # comes with matplotlib
MOST = 20.0  # columns of a name
WIDE = 1.7  # columns of a Chinese character
# Families whose characters are boxes, or stand at other numbers than Unicode's.
NO_LETTERS = ("lastresort", "adobeblank", "cmb", "cme", "cmm", "cmr", "cms", "cmt", "stixnon")


def columns(text: str) -> float:
    """About how wide a text is, in letters; marks over others have no width."""
    return sum(_column(char) for char in text)


def _column(char: str) -> float:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0.0
    return WIDE if unicodedata.east_asian_width(char) in "WF" else 1.0


def shown(name: str, most: float = MOST) -> str:
    """A name as a picture shows it: at most about ``most`` columns wide, or cut with ``…``."""
    text = written(name)
    if columns(text) <= most:
        return text
    end, width = 0, 1.0  # of the dots
    while width + _column(text[end]) <= most:
        width += _column(text[end])
        end += 1
    return text[:end] + "…"


def written(text: str) -> str:
    """A text with numbers for characters that no font has, for several in a row U+97F3+697D.

    A warning tells of the first in a process. Blanks other than the usual one, which a token may
    hold too, are numbers as well: nobody would see them.
    """
    if text.isascii() and text.isprintable():
        return text
    parts = []
    for visible, chars in groupby(text, key=_is_visible):
        found = "".join(chars)
        parts.append(found if visible else "U+" + "+".join(f"{ord(char):04X}" for char in found))
    return "".join(parts)


def _is_visible(char: str) -> bool:
    if char in " \n":
        return True
    if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Zs"):
        return False
    if _family_of(char) is None:
        _warn()
        return False
    return True


def complete(figure: "Figure") -> None:
    """Give each text of a figure the fonts that its characters need."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        said = text.get_text()
        if said.isascii() and said.isprintable():
            continue
        told = written(said)
        if told != said:
            text.set_text(told)
        families = {family for char in {*told} - {"\n"} if (family := _family_of(char))} - {FONT}
        if families:
            text.set_fontfamily([FONT, *sorted(families)])


@cache
def _warn() -> None:
    """Once for all: what one can do is the same for each character."""
    log.warning(
        "characters that no installed font has are drawn as their numbers, such as U+97F3; "
        "install a font of their script"
    )


@cache
def _family_of(char: str) -> str | None:
    """The family that a character is drawn in, `FONT` if that has it; None: no font has it."""
    return next((name for name in _families() if ord(char) in _characters(name)), None)


@cache
def _families() -> list[str]:
    """Installed families that have an upright face of normal weight, `FONT` first, then by name."""
    from matplotlib.font_manager import fontManager

    upright = [entry for entry in fontManager.ttflist if entry.style == "normal"]
    names = {entry.name for entry in upright if entry.weight in (400, "normal", "regular")} - {FONT}
    plain = {name: name.lower().replace(" ", "").lstrip(".") for name in names}
    return [FONT, *sorted(name for name in names if not plain[name].startswith(NO_LETTERS))]


@cache
def _characters(family: str) -> frozenset[int]:
    """The code points that a family has; none of one that cannot be read."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        path = findfont(FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
