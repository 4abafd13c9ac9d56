"""Names in pictures: long names are cut, and a font with their characters is chosen.

matplotlib's own font has Latin, Greek, Cyrillic and a few other scripts. Characters that it lacks
are looked up in the installed fonts. A character that no font has is written as its number, such as
U+97F3, since empty boxes cannot be distinguished.
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
MOST = 20.0  # largest width of a name, in columns
WIDE = 1.7  # width of a Chinese character, in columns
# Families in which characters are boxes, or have other numbers than in Unicode.
NO_LETTERS = ("lastresort", "adobeblank", "cmb", "cme", "cmm", "cmr", "cms", "cmt", "stixnon")


def columns(text: str) -> float:
    """The approximate width of a text in letters; combining marks have no width."""
    return sum(_column(char) for char in text)


def _column(char: str) -> float:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0.0
    return WIDE if unicodedata.east_asian_width(char) in "WF" else 1.0


def shown(name: str, most: float = MOST) -> str:
    """A name as it is drawn: cut with ``…`` if it is wider than about ``most`` columns."""
    text = written(name)
    if columns(text) <= most:
        return text
    end, width = 0, 1.0  # the width of the dots
    while width + _column(text[end]) <= most:
        width += _column(text[end])
        end += 1
    return text[:end] + "…"


def written(text: str) -> str:
    """A text with numbers in place of characters that no font has, such as U+97F3+697D.

    The first one in a process is reported by a warning. Blanks other than the usual one are
    replaced by their numbers as well, since they are invisible.
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
    """Give each text of a figure the fonts that its characters need.

    Characters that no font has are replaced by their numbers, see `written`.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        original = text.get_text()
        if original.isascii() and original.isprintable():
            continue
        drawn = written(original)
        if drawn != original:
            text.set_text(drawn)
        families = {family for char in {*drawn} - {"\n"} if (family := _family_of(char))} - {FONT}
        if families:
            text.set_fontfamily([FONT, *sorted(families)])


@cache
def _warn() -> None:
    """Log the warning once, because the remedy is the same for all characters."""
    log.warning(
        "characters that no installed font has are drawn as their numbers, such as U+97F3; "
        "install a font for their script"
    )


@cache
def _family_of(char: str) -> str | None:
    """The font family of a character, preferably `FONT`; None if no font has the character."""
    return next((name for name in _families() if ord(char) in _characters(name)), None)


@cache
def _families() -> list[str]:
    """Installed families with an upright face of normal weight: `FONT`, then the others by name."""
    from matplotlib.font_manager import fontManager

    upright = [entry for entry in fontManager.ttflist if entry.style == "normal"]
    names = {entry.name for entry in upright if entry.weight in (400, "normal", "regular")} - {FONT}
    plain = {name: name.lower().replace(" ", "").lstrip(".") for name in names}
    return [FONT, *sorted(name for name in names if not plain[name].startswith(NO_LETTERS))]


@cache
def _characters(family: str) -> frozenset[int]:
    """The code points of the characters of a family; empty if its font cannot be read."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        path = findfont(FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
