"""The confusion matrix of alignments: which token was recognised in place of which."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, UsageError
from pipeline.plots.figures import colour_bar, new_figure, style
from pipeline.plots.lettering import shown
from pipeline.tables import TextReader, is_specifier

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# TIMIT's 61 phones and the phones that they fold to, by the classes of its documentation. The
# closures of stops count as silences, because scoring folds them to silence.
CLASSES = {
    "vowels": "iy ih ix eh ae aa ao ah ax ax-h uh uw ux er axr ey ay oy aw ow",
    "semivowels": "l el r w y hh hv",
    "nasals": "m em n en nx ng eng",
    "fricatives": "s z sh zh f v th dh",
    "affricates": "ch jh",
    "stops": "p b t d k g dx q",
    "silence": "pcl bcl tcl dcl kcl gcl cl vcl epi pau h# #h sil spn",
}
NAMES = {phone: name for name, phones in CLASSES.items() for phone in phones.split()}
ORDER = {phone: place for place, phone in enumerate(NAMES)}
KNOWN = 0.9  # share of tokens that must be phones for an order by class
REST = "others"
FONT = 7.0
GAP = 3.0  # points between the name of a row, its count and the matrix
SMALLEST = 2.5  # smallest percentage that is written into its cell


@dataclass(frozen=True)
class Confusions:
    """The counts of a confusion matrix."""

    tokens: list[str]  # K tokens in the order of rows and columns
    counts: NDArray[np.int64]  # (K + 1, K + 1), reference by hypothesis; the last is no token
    classes: list[tuple[str, int]]  # names and sizes of the classes; empty if there are none

    @property
    def percent(self) -> NDArray[np.float64]:
        """(K + 1, K + 1), percentages of each row: of a reference token, or of all insertions."""
        totals = self.counts.sum(axis=1, keepdims=True)
        percent: NDArray[np.float64] = 100.0 * self.counts / np.maximum(totals, 1)
        return percent


def read_pairs(
    alignments: str, *, special_symbol: str = "<eps>", separator: str = ";"
) -> Counter[tuple[str, str]]:
    """Count the pairs in alignments that align_text.py has written.

    Args:
        alignments: a file or an rspecifier with lines ``utt a a ; b <eps> ; <eps> c``.
        special_symbol: the symbol where a token has no partner.
        separator: the symbol between two pairs.

    Returns:
        Counts of (reference, hypothesis); a missing partner is the empty string.

    Raises:
        DataError: the alignments cannot be read, have a line of another form, or no pairs.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    reader = TextReader(alignments if is_specifier(alignments) else f"ark:{alignments}")
    for utt_id, line in reader:
        fields = line.split(" ") if line else []  # a token may hold non-ASCII blanks
        for start in range(0, len(fields), 3):
            pair, between = fields[start : start + 2], fields[start + 2 : start + 3]
            if between not in ([], [separator]):
                what = f'{alignments}: {utt_id}: "{between[0][:60]}" stands between two pairs'
                raise DataError(f"{what}, not {separator!r}; give --separator as it is there")
            if len(pair) != 2 or pair == [special_symbol] * 2:
                part = " ".join([*pair, *between])
                raise DataError(
                    f'{alignments}: {utt_id}: "{part[:60]}" is not a pair of tokens; give the '
                    "output of align_text.py, UTT a a ; b <eps>"
                )
            ref, hyp = ("" if token == special_symbol else token for token in pair)
            pairs[ref, hyp] += 1
    if not pairs:
        raise DataError(f"{alignments}: has no aligned tokens; make it with align_text.py")
    return pairs


def count_confusions(pairs: Counter[tuple[str, str]], *, most: int = 62) -> Confusions:
    """Order the tokens and fill the matrix.

    Args:
        pairs: the result of `read_pairs`.
        most: number of most frequent tokens that get a row of their own; the others share one.

    Raises:
        UsageError: ``most`` is below 1.
    """
    if most < 1:
        raise UsageError(f"--most must be 1 or more, not {most}")
    frequency: Counter[str] = Counter()
    for (ref, hyp), count in pairs.items():
        frequency[ref] += count
        frequency[hyp] += 0 if ref else count
    del frequency[""]
    kept = sorted(frequency, key=lambda token: (-frequency[token], token))[:most]
    tokens, classes = _ordered(kept)
    if len(kept) < len(frequency):
        tokens.append(REST)
    place = {token: n for n, token in enumerate(tokens)} | {"": len(tokens)}
    counts = np.zeros((len(tokens) + 1, len(tokens) + 1), dtype=np.int64)
    for (ref, hyp), count in pairs.items():
        counts[place.get(ref, len(tokens) - 1), place.get(hyp, len(tokens) - 1)] += count
    return Confusions(tokens, counts, classes)


def phone_of(token: str) -> str:
    """The phone of a token in the spelling of the classes: small letters, without stress marks."""
    return token.lower().rstrip("012") or token


def _ordered(tokens: Iterable[str]) -> tuple[list[str], list[tuple[str, int]]]:
    """The tokens in order, and the sizes of their classes.

    The order is by class if nearly all tokens are phones, otherwise alphabetical.
    """
    alphabetical = sorted(tokens)
    known = [token for token in alphabetical if phone_of(token) in ORDER]
    if len(known) < KNOWN * len(alphabetical):
        return alphabetical, []
    strange = [token for token in alphabetical if phone_of(token) not in ORDER]
    by_class = sorted(known, key=lambda token: (ORDER[phone_of(token)], token))
    sizes = Counter(NAMES[phone_of(token)] for token in by_class)
    classes = [(name, sizes[name]) for name in CLASSES if sizes[name]]
    return by_class + strange, classes + [("other", len(strange))] * bool(strange)


# ---- drawing -------------------------------------------------------------------------------------


@style()
def draw_confusions(found: Confusions, *, title: str = "") -> "Figure":
    """Draw a confusion matrix with references as rows and hypotheses as columns.

    The last row shows insertions, the last column deletions. The colour follows the square root of
    the percentage.

    Args:
        found: the counts.
        title: the title above the picture.
    """
    from matplotlib.colors import PowerNorm

    count = len(found.tokens) + 1
    size = min(20.0, max(7.0, 0.235 * count))
    figure = new_figure(size + 1.6, size + 0.7, title)
    axes = figure.subplots()
    percent = np.ma.masked_equal(found.percent, 0.0)
    image = axes.imshow(percent, cmap="magma_r", norm=PowerNorm(0.5, 0.0, 100.0), aspect="equal")
    unit = "of the times that a token was said (%); last row: of all insertions (%)"
    colour_bar(axes, image, unit, slimness=45.0)
    bar = image.colorbar
    assert bar is not None
    bar.set_ticks([0, 1, 5, 10, 25, 50, 100])
    names = [shown(token) for token in found.tokens]
    axes.set_yticks(range(count), [*names, "inserted"], fontsize=FONT)
    axes.set_xticks(range(count), [*names, "deleted"], fontsize=FONT, rotation=90)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    _draw_counts(axes, found)
    axes.set_ylabel("reference and how often it was said")
    axes.set_xlabel("recognised")
    axes.xaxis.set_label_position("bottom")
    _draw_numbers(axes, found)
    _draw_classes(axes, found)
    return figure


def _draw_counts(axes: "Axes", found: Confusions) -> None:
    """Write the count of each reference token in a column of its own.

    The count is not a part of the name, because a name may be written from right to left.
    """
    totals = found.counts.sum(axis=1)
    for row, total in enumerate(totals):
        axes.annotate(
            str(total),
            (0.0, row),
            xytext=(-GAP, 0.0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=FONT,
            ha="right",
            va="center_baseline",
        )
    axes.tick_params(axis="y", pad=3 * GAP + 0.64 * FONT * len(str(totals.max())))


def _draw_numbers(axes: "Axes", found: Confusions) -> None:
    percent = found.percent
    for row, column in np.argwhere(percent >= SMALLEST):
        value = percent[row, column]
        colour = "white" if value > 30.0 else "black"
        text = f"{value:.0f}"
        axes.text(column, row, text, color=colour, fontsize=5.5, ha="center", va="center")


def _draw_classes(axes: "Axes", found: Confusions) -> None:
    """Draw lines between the classes, and write their names on the right."""
    sizes: Sequence[tuple[str, int]] = found.classes or [("", len(found.tokens))]
    edge = -0.5
    for name, size in sizes:
        middle = edge + size / 2
        edge += size
        for line in (axes.axvline, axes.axhline):
            line(edge, color="black", linewidth=0.5)
        axes.text(len(found.tokens) + 0.8, middle, name, rotation=270, va="center", fontsize=7.5)
