"""Files of pictures, tokens with their times, learning curves."""

import json
import struct
from pathlib import Path

import matplotlib
import pytest
from matplotlib.text import Text

from pipeline.errors import DataError, ModelError, TableError, UsageError
from pipeline.plots.figures import new_figure, power_of_ten, render, save
from pipeline.plots.lattice import compute_lattice, draw_lattice
from pipeline.plots.learning_curves import draw_training, read_run
from pipeline.plots.segments import Segment, read_ctm, read_phn, read_times
from pipeline.plots.sensitivity import compute_sensitivity, draw_sensitivity
from pipeline.plots.sweep import SweepPoint, draw_sweeps

# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_picture_is_the_same_bytes(utterance, kind: str) -> None:
    """The bytes do not depend on settings in this process, or on earlier pictures."""
    one = utterance("tanh")
    lattice = compute_lattice(one.model, one.inputs, [3, 1])
    first = render(draw_lattice(one, lattice, [3, 1], title="$\\frac"), kind)
    with matplotlib.rc_context({"font.size": 30.0, "svg.hashsalt": "other"}):
        again = render(draw_lattice(one, lattice, [3, 1], title="$\\frac"), kind)
    assert first == again
    assert b"matplotlib" not in first.lower() or kind == "svg"
    if kind == "png":
        assert struct.unpack(">I", first[16:20])[0] >= 1200
    else:
        assert b"dc:date" not in first


def test_a_picture_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    figure = new_figure(8.0, 2.0)
    with pytest.raises(UsageError, match=r"must end in \.png or \.svg"):
        save(figure, tmp_path / "x.pdf")
    with pytest.raises(TableError, match="create its directory"):
        save(figure, tmp_path / "none" / "x.png")
    save(figure, tmp_path / "x.png")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_no_label_is_a_formula(utterance) -> None:
    """Texts are shown as they are, so matplotlib's own labels must not need typesetting."""
    one = utterance("tanh")
    points = [
        SweepPoint(1, "CER", 30.0, 1.0, 9.0, 1e-5),
        SweepPoint(10, "CER", 25.0, 2.0, 8.0, 1e-3),
    ]
    figures = [
        draw_sweeps({"a": points}, frame_shift_ms=10.0),
        draw_sensitivity(one, compute_sensitivity(one, [1, 2])),
    ]
    assert figures[0].axes[0].get_ylabel() == "CER (%)"
    for figure in figures:
        render(figure, "png")
        assert not [t for t in figure.findobj(Text) if "mathdefault" in t.get_text()]


def test_powers_of_ten() -> None:
    assert [power_of_ten(v) for v in (1e-3, 1.0, 10.0, 1e12, 20.0)] == [
        "10⁻³",
        "1",
        "10¹",
        "10¹²",
        "",
    ]


# ---- times ---------------------------------------------------------------------------------------


def test_a_hand_segmentation(tmp_path: Path) -> None:
    path = tmp_path / "SI1.PHN"
    path.write_text("0 800 h#\n800 1600 ah\n")
    assert read_phn(path, 16000) == [Segment(0.0, 0.05, "h#"), Segment(0.05, 0.1, "ah")]
    assert read_times(str(path), "", "u", 8000)[0][1] == Segment(0.1, 0.2, "ah")
    assert read_times("", "", "u", 8000) == ([], "")


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no segments"), ("0 8 a\n8 x b\n", ":2: expected"), ("8 8 a\n", "ends before")],
)
def test_a_damaged_hand_segmentation(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "SI1.PHN"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_phn(path, 16000)
    with pytest.raises(DataError, match=r"none: .*: No such file or directory; give a \.PHN file"):
        read_phn(tmp_path / "none", 16000)
    path.write_bytes(b"\xff\xfe0\0")
    with pytest.raises(DataError, match="is UTF-16; convert it"):
        read_phn(path, 16000)


def test_a_ctm(tmp_path: Path) -> None:
    path = tmp_path / "a.ctm"
    path.write_text("u 1 0.5 0.25 ah 0.9\nv 1 0 1 b\n")
    assert read_ctm(path, "u") == [Segment(0.5, 0.75, "ah")]
    with pytest.raises(DataError, match="lacks utterance w"):
        read_ctm(path, "w")
    with pytest.raises(DataError, match=r"give a file of decode_\*.py --write-ctm"):
        read_ctm(tmp_path / "none", "u")
    path.write_text("u 1 0.5 0.25 a\u00a0b\u2028c\u3000 1\n", encoding="utf-8")
    assert read_ctm(path, "u") == [Segment(0.5, 0.75, "a\u00a0b\u2028c\u3000")]
    path.write_text("u 1 0.5\n")
    with pytest.raises(DataError, match=":1: expected utterance channel"):
        read_ctm(path, "u")


# ---- learning curves -----------------------------------------------------------------------------


def write_run(
    path: Path, kind: str, losses: list[float], best: int, *, metric: str = "PER"
) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"kind": kind}))
    lines = [
        json.dumps(
            {
                "epoch": n,
                "train_loss": loss + 0.1,
                "dev_loss": loss,
                "dev_error_rate": 10 * loss,
                "metric": "next-token error" if kind == "predictor" else metric,
                "best": n <= best,
            }
        )
        for n, loss in enumerate(losses, start=1)
    ]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return path


def test_learning_curves(tmp_path: Path) -> None:
    ctc = read_run(write_run(tmp_path / "ctc", "ctc", [3.0, 2.0, 2.5], 2))
    predictor = read_run(write_run(tmp_path / "lm", "predictor", [0.693147, 0.5], 2))
    assert ctc.best.number == 2
    figure = draw_training({"a": ctc, "b": predictor}, title="two")
    loss, error, bits, wrong = figure.axes
    assert loss.lines[1].get_ydata().tolist() == [3.0, 2.0, 2.5]
    assert loss.lines[2].get_xdata().tolist() == [2]
    assert error.lines[0].get_ydata().tolist() == [30.0, 20.0, 25.0]
    assert bits.lines[1].get_ydata()[0] == pytest.approx(1.0, abs=1e-5)
    assert "bits" in bits.get_ylabel()
    assert wrong.get_ylabel() == "next-token error, dev (%)"
    assert error.get_ylabel() == "PER, dev (%)"
    assert len(draw_training({"a": ctc}).axes) == 2


def test_each_metric_has_its_panels(tmp_path: Path) -> None:
    runs = {
        name: read_run(write_run(tmp_path / name, kind, [3.0, 2.0], 2, metric=metric))
        for name, kind, metric in (
            ("phones", "ctc", "PER"),
            ("words", "ctc", "WER"),
            ("more phones", "transducer", "PER"),
            ("lm", "predictor", ""),
        )
    }
    figure = draw_training(runs)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[1::2] == ["PER, dev (%)", "WER, dev (%)", "next-token error, dev (%)"]
    assert ["bits" in label for label in labels[::2]] == [False, False, True]
    assert len(figure.axes[1].get_legend().get_texts()) == 2


def test_an_epoch_done_twice_counts_once(tmp_path: Path) -> None:
    path = write_run(tmp_path / "ctc", "ctc", [3.0, 2.0], 2)
    lines = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(lines + lines.splitlines()[1].replace("2.0,", "1.5,"))
    assert [epoch.dev_loss for epoch in read_run(path).epochs] == [3.0, 1.5]


def test_damaged_metrics(tmp_path: Path) -> None:
    path = write_run(tmp_path / "ctc", "ctc", [3.0], 1)
    for text, said in (
        ("", "empty"),
        ('{"epoch": 1}\n', r'jsonl:1: not a line of train_\*.py, it lacks "train_loss"'),
        ("x", r":1: not a line of train_\*.py, it is not JSON"),
        ("[]", r":1: not a line of train_\*.py, a value is of the wrong type"),
    ):
        (path / "metrics.jsonl").write_text(text)
        with pytest.raises((ModelError, DataError), match=said):
            read_run(path)
    (path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"config\.json: damaged"):
        read_run(path)


def test_what_a_run_lacks_is_told_apart(tmp_path: Path) -> None:
    path = write_run(tmp_path / "ctc", "ctc", [3.0], 1)
    (path / "metrics.jsonl").unlink()
    with pytest.raises(ModelError, match=r"metrics\.jsonl: no such file; wait for the first epoch"):
        read_run(path)
    (path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: missing; give a directory of train_"):
        read_run(path)
    with pytest.raises(ModelError, match="none: no such directory; give a directory of train_"):
        read_run(tmp_path / "none")


def test_a_training_that_diverged_is_drawn(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "ctc", "ctc", [float("nan")], 0))
    assert render(draw_training({"a": run}), "png").startswith(b"\x89PNG")
