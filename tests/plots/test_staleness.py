"""The picture of an asynchronous training."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from pipeline.errors import ModelError
from pipeline.plots.figures import render
from pipeline.plots.staleness import (
    draw_staleness,
    panels_of,
    read_asynchronous,
    rows_for,
    shares,
)
from pipeline.scoring.asynchronous import Asynchronous, Staleness

Read = Callable[..., dict[int, Asynchronous]]


@pytest.fixture
def read(asynchronous_epoch: Callable[..., dict[str, object]], tmp_path: Path) -> Read:
    """What a training with such entries leaves, an entry an epoch."""

    def make(*entries: dict[str, object]) -> dict[int, Asynchronous]:
        lines = [asynchronous_epoch(n, **entry) for n, entry in enumerate(entries, start=1)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "metrics.jsonl").write_text(text)
        return read_asynchronous(tmp_path)

    return make


def shown(figure: object) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_rows_get_wider_where_gradients_are_very_stale() -> None:
    assert rows_for(0) == [(0, 0), (1, 1), (2, 2)]
    assert rows_for(11)[-1] == (11, 11)
    assert rows_for(12) == [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    wide = rows_for(1000)
    assert [low for low, _ in wide[1:]] == [high + 1 for _, high in wide[:-1]]
    assert wide[-1] == (513, 1024)


def test_shares_are_percent_of_an_epoch() -> None:
    panel = {3: Staleness({0: 3, 4: 1}), 5: Staleness({1: 2}), 6: Staleness()}
    values = shares(panel, [(0, 0), (1, 2), (3, 4)])
    assert values[:, 0].tolist() == [75.0, 0.0, 25.0]
    assert values[:, 2].tolist() == [0.0, 100.0, 0.0]
    assert np.isnan(values[:, [1, 3]]).all()


def test_at_most_four_panels(read: Read) -> None:
    four = read({"staleness": [{"0": n} for n in range(4)]})
    assert list(panels_of(four)) == ["shard 1", "shard 2", "shard 3", "shard 4"]
    panels = panels_of(read({"staleness": [{"0": 1, str(n): 2} for n in range(1, 7)]}))
    assert list(panels) == ["shard 1", "shard 2", "shard 3", "shards 4–6"]
    assert panels["shards 4–6"][1] == Staleness({0: 3, 4: 2, 5: 2, 6: 2})


def test_what_the_picture_shows(read: Read) -> None:
    epochs = read({}, {"lost": ["worker2"], "staleness": [{"20": 8}, {"0": 8}]})
    figure = draw_staleness(epochs, title="a training")
    shard1, shard2, _, speed, time = figure.axes
    assert [shard1.get_title(), shard2.get_title()] == ["shard 1: mean 10.12", "shard 2: mean 0.75"]
    (mean,) = shard1.lines
    rows = [text.get_text() for text in shard1.get_yticklabels()]
    assert rows == ["0", "1", "2", "3–4", "5–8", "9–16", "17–32"]
    assert mean.get_xdata().tolist() == [1, 2]
    assert mean.get_ydata() == pytest.approx([0.25, 5.5 + 3.5 / 16])  # in the row of 17 … 32
    assert [bar.get_width() for bar in speed.patches] == [2.0, 2.0]
    assert [bar.get_width() for bar in time.patches] == [25.0, 50.0, 75.0, 50.0]
    texts = shown(figure)
    assert {"a training", "worker1", "worker2, lost", "25 %", "50 %", "2.0"} <= {*texts}


def test_many_workers_have_no_names(read: Read) -> None:
    texts = shown(draw_staleness(read({"workers": {}}, {}, {"team": 1})))
    assert "worker1" in texts
    share = {"steps": 4, "utterances": 8, "steps_per_second": 2, "megabytes": 0}
    crowd = {f"worker{n}": {**share, "waiting_seconds": 2} for n in range(1, 101)}
    texts = shown(draw_staleness(read({"workers": crowd})))
    assert "100 workers" in texts
    assert "worker1" not in texts


def test_the_same_training_is_the_same_bytes(read: Read) -> None:
    for kind, count in (("png", 3), ("svg", 45)):
        epochs = read(*[{} for _ in range(count)])
        one, other = (render(draw_staleness(epochs), kind) for _ in range(2))
        assert one == other


def test_nothing_to_draw_is_drawn(read: Read) -> None:
    """One epoch that is without pushes and workers, as after a restart at its very end."""
    figure = draw_staleness(read({"staleness": [{}, {}], "workers": {}}))
    assert figure.axes[0].get_title() == "shard 1"
    assert render(figure, "png").startswith(b"\x89PNG")


def test_a_synchronous_training_has_no_staleness(tmp_path: Path) -> None:
    line = {"epoch": 1, "train_loss": 2, "dev_loss": 1, "dev_error_rate": 3, "metric": "PER"}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**line, "best": True}) + "\n")
    with pytest.raises(ModelError, match=r"jsonl: has no staleness; give a model .* by --async"):
        read_asynchronous(tmp_path)
