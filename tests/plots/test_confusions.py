"""The confusion matrix of an alignment."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.plots.confusions import (
    NAMES,
    REST,
    Confusions,
    count_confusions,
    draw_confusions,
    phone_of,
    read_pairs,
)
from pipeline.plots.figures import render


@pytest.fixture
def count(tmp_path: Path):
    def run(text: str, **options: int) -> Confusions:
        path = tmp_path / "alignments"
        path.write_text(text)
        return count_confusions(read_pairs(str(path)), **options)

    return run


def test_counts_by_class(count) -> None:
    found = count(
        "u1 s z ; iy iy ; <eps> t \nu2 iy <eps> ; n n ; sil sil \nu3 \nu4 iy ih ; iy iy \n"
    )
    assert found.tokens == ["iy", "ih", "n", "s", "z", "t", "sil"]
    assert found.classes == [
        ("vowels", 2),
        ("nasals", 1),
        ("fricatives", 2),
        ("stops", 1),
        ("silence", 1),
    ]
    iy, ih, t, none = 0, 1, 5, 7
    assert found.counts.sum() == 8
    assert found.counts[iy, [iy, ih, none]].tolist() == [2, 1, 1]
    assert found.counts[none, t] == 1
    assert found.counts[none, none] == 0
    assert found.percent[iy, [iy, ih, none]].tolist() == [50.0, 25.0, 25.0]
    assert found.percent[none, t] == 100.0
    assert not found.percent[t].any()  # not in the references


def test_all_timit_phones_have_a_class(golden: Path) -> None:
    from pipeline.text.phones import load_phone_map

    conf = golden.parents[1] / "egs" / "timit" / "conf" / "phones.60-48-39.map"
    phones = load_phone_map(conf)
    for size in (61, 48, 39):
        assert set(phones.phones(size)) <= set(NAMES)


def test_spellings_of_phones(count) -> None:
    assert [phone_of(p) for p in ("AH0", "ah", "ZH", "2", "ER1")] == ["ah", "ah", "zh", "2", "er"]
    found = count("u AH0 AH1 ; AH1 AH1 ; S S \n")
    assert found.tokens == ["AH0", "AH1", "S"]
    assert [name for name, _ in found.classes] == ["vowels", "fricatives"]


def test_other_tokens_stand_by_the_alphabet(count) -> None:
    found = count("u zebra a ; a a ; s t \n")
    assert found.tokens == ["a", "s", "t", "zebra"]
    assert found.classes == []


def test_a_stray_token_among_phones_comes_last(count) -> None:
    phones = ["iy", "ih", "eh", "ae", "aa", "ah", "uw", "er", "ey", "ay", "s", "z"]
    found = count("u " + " ; ".join(f"{p} {p}" for p in [*phones, "~"]) + " \n")
    assert found.tokens[-1] == "~"
    assert found.classes[-1] == ("other", 1)


def test_rare_tokens_share_a_row(count) -> None:
    found = count("u q1 q2 ; q1 q1 ; q1 q1 ; q3 q4 ; q3 <eps> ; <eps> q4 \n", most=1)
    assert found.tokens == ["q1", REST]
    np.testing.assert_array_equal(found.counts, [[2, 1, 0], [0, 1, 1], [0, 1, 0]])
    with pytest.raises(UsageError, match="--most"):
        count("u a a \n", most=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("u a a ; b\n", 'u: "b" is not a pair'),
        ("u a a b\n", '"b" stands between two pairs'),
        ("u <eps> <eps>\n", "is not a pair"),
        ("u \n", "no aligned tokens"),
        ("", "no aligned tokens"),
    ],
)
def test_what_is_not_an_alignment(count, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        count(text)


def test_the_symbols_of_an_alignment(tmp_path: Path) -> None:
    path = tmp_path / "al"
    path.write_text("u a * | * ; \n")
    pairs = read_pairs(f"ark:{path}", special_symbol="*", separator="|")
    assert pairs == {("a", ""): 1, ("", ";"): 1}


def test_a_token_may_hold_blanks_that_are_not_asciis(count) -> None:
    odd = ["x\u00a0y", "l\u2028m", "z\u3000q", "n\x85", ";"]
    found = count("u " + " ; ".join(f"{token} {token}" for token in odd) + " \n")
    assert found.tokens == sorted(odd)


def test_a_name_written_from_the_right_keeps_its_count_apart(count) -> None:
    """If name and count were one text, a Hebrew name would move the count to its other side."""
    figure = draw_confusions(count("u שלום שלום ; שלום שלום ; ab ab \n"))
    (hebrew,) = [t for t in figure.axes[0].get_yticklabels() if "ש" in t.get_text()]
    assert hebrew.get_text() == "שלום"
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text() == "2"]
    assert all(hebrew.get_window_extent().x1 < box.x0 for box in boxes)
    assert boxes


def test_a_long_name_is_cut(count) -> None:
    name = "n" * 400
    figure = draw_confusions(count(f"u {name} {name} ; b b \n"), title=name)
    assert figure.axes[0].get_yticklabels()[1].get_text() == "n" * 19 + "…"
    figure.draw_without_rendering()  # a layout without room is a warning, so an error here
    edges = figure.axes[0].get_tightbbox().extents.tolist()
    width, height = figure.canvas.get_width_height()
    assert min(edges) >= 0.0
    assert edges[2] <= width
    assert edges[3] < figure._suptitle.get_window_extent().y0 <= height


def test_the_picture(count) -> None:
    found = count("u iy iy ; iy ih ; s$ s$ ; n n ; n n ; n m ; <eps> m \n")
    figure = draw_confusions(found, title="a & b")
    axes = figure.axes[0]
    image = axes.images[0].get_array()
    ih, iy = found.tokens.index("ih"), found.tokens.index("iy")
    assert image[iy, [ih, iy]].tolist() == [50.0, 50.0]
    assert bool(image.mask[ih, iy])  # never: white
    assert axes.get_yticklabels()[-1].get_text() == "inserted"
    assert axes.get_xticklabels()[-1].get_text() == "deleted"
    counts = [text.get_text() for text in axes.texts if text.get_horizontalalignment() == "right"]
    assert counts == [str(total) for total in found.counts.sum(axis=1)]
    assert counts[-1] == "1"
    assert render(figure, "png") == render(draw_confusions(found, title="a & b"), "png")
