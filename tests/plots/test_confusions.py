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
    assert not found.percent[t].any()  # never said


def test_all_timit_phones_have_a_class(golden: Path) -> None:
    from pipeline.phones import load_phone_map

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
        ("u a a ; b\n", 'u: "b" is no pair'),
        ("u a a b\n", '"a a b" is no pair'),
        ("u <eps> <eps>\n", "is no pair"),
        ("u \n", "no aligned tokens"),
        ("", "no aligned tokens"),
    ],
)
def test_what_is_no_alignment(count, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        count(text)


def test_the_symbols_of_an_alignment(tmp_path: Path) -> None:
    path = tmp_path / "al"
    path.write_text("u a * | * ; \n")
    pairs = read_pairs(f"ark:{path}", special_symbol="*", separator="|")
    assert pairs == {("a", ""): 1, ("", ";"): 1}


def test_the_picture(count) -> None:
    found = count("u iy iy ; iy ih ; s$ s$ ; n n ; n n ; n m ; <eps> m \n")
    figure = draw_confusions(found, title="a & b")
    axes = figure.axes[0]
    image = axes.images[0].get_array()
    ih, iy = found.tokens.index("ih"), found.tokens.index("iy")
    assert image[iy, [ih, iy]].tolist() == [50.0, 50.0]
    assert bool(image.mask[ih, iy])  # never: white
    assert axes.get_yticklabels()[-1].get_text() == "inserted  1"
    assert axes.get_xticklabels()[-1].get_text() == "deleted"
    assert render(figure, "png") == render(draw_confusions(found, title="a & b"), "png")
