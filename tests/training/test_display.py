"""The progress that a training shows."""

import io
import logging
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.training import display as display_module
from pipeline.training.display import Display, Events, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (7, "0:07"), (187, "3:07"), (7387.2, "2:03:07")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display_module, "time", clock)
    return clock


def show(display: Display) -> None:
    display.show(3, 0.25, loss=1.5, rate=2e-3, speed=12345.6, left=187.0)


FACTS = "loss 1.500 per token, learning rate 0.002, 12,346 frames/s, 3:07 left"


def test_a_line_every_30_seconds(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pipeline"):
        display = Display(28)
        for now in (1010.0, 1029.0, 1031.0, 1050.0, 1062.0):
            clock.now = now
            show(display)
    assert [record.message for record in caplog.records] == [f"epoch 3 of 28: 25 %, {FACTS}"] * 2


def test_a_bar_on_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    display = Display(28)
    clock.now += 1
    show(display)
    show(display)  # too soon to draw again
    assert terminal.getvalue() == f"\r\033[Kepoch 3/28 {'█' * 6}{'░' * 18} {FACTS}"
    display.clear()
    assert terminal.getvalue().endswith("\r\033[K")


def events_in(folder: Path) -> list[bytes]:
    """The records of TensorBoard's files: length, check sum, data, check sum."""
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(data[12 : 12 + size])
            data = data[16 + size :]
    return found


def test_events_are_what_tensorboard_reads(tmp_path: Path) -> None:
    from tensorboardX.proto import event_pb2

    events = Events(tmp_path, first_epoch=1)
    events.write(1, {"epoch": 1, "dev_loss": 2.5, "best": True})
    events.write(2, {"epoch": 2, "dev_loss": 1.5, "best": False})
    events.close()
    read = [event_pb2.Event.FromString(data) for data in events_in(tmp_path)]
    values = [(e.step, v.tag, v.simple_value) for e in read for v in e.summary.value]
    assert values == [(1, "dev_loss", 2.5), (2, "dev_loss", 1.5)]


def test_events_of_an_asynchronous_training(
    tmp_path: Path, asynchronous_epoch: Callable[..., dict[str, object]]
) -> None:
    from tensorboardX.proto import event_pb2

    events = Events(tmp_path, first_epoch=1)
    line = asynchronous_epoch(3, staleness=[{"0": 6, "1": 2, "4": 1}, {"2": 3}, {}])
    events.write(3, line)
    events.close()
    read = [event_pb2.Event.FromString(data) for data in events_in(tmp_path)]
    values = {v.tag: v for e in read for v in e.summary.value if e.step == 3}
    seen = values["staleness/shard1"].histo
    # A bucket reaches from the limit of the one before: 2 and 3 are empty.
    assert list(zip(seen.bucket_limit, seen.bucket, strict=True)) == [
        (0.5, 6),
        (1.5, 2),
        (3.5, 0),
        (4.5, 1),
    ]
    assert (seen.min, seen.max, seen.num, seen.sum, seen.sum_squares) == (-0.5, 4.5, 9, 6, 18)
    only = values["staleness/shard2"].histo
    assert (only.min, list(only.bucket_limit), list(only.bucket)) == (1.5, [2.5], [3])
    assert "staleness/shard3" not in values  # which got nothing
    scalars = {
        "mean_staleness/shard1": 6 / 9,
        "mean_staleness/shard2": 2.0,
        "workers/steps_per_second/worker1": 2.0,
        "workers/megabytes/worker1": 1.5,
        "workers/waiting_seconds/worker2": 1.0,
        "workers/utterances/worker2": 8.0,
    }
    for tag, value in scalars.items():
        assert values[tag].simple_value == pytest.approx(value)


def test_a_missing_tensorboardx_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with caplog.at_level(logging.INFO, logger="pipeline"):
        events = Events(tmp_path / "events", first_epoch=1)
        events.write(1, {"dev_loss": 2.5})
        events.close()
    assert "tensorboardX is not installed" in caplog.text
    assert not (tmp_path / "events").exists()
