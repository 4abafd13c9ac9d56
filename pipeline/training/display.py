"""Progress of a training: a bar on a terminal, else a log line every 30 s; TensorBoard events."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.scoring.asynchronous import Asynchronous, Staleness, asynchronous_of

log = logging.getLogger("pipeline")

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_DRAWINGS = 0.2
BAR_WIDTH = 24


class Display:
    """Shows the progress within an epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.on_terminal = sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
        self.last = time.monotonic()

    def show(
        self, epoch: int, share: float, *, loss: float, rate: float, speed: float, left: float
    ) -> None:
        """Show the progress, unless it was shown a moment ago.

        Args:
            epoch: the number of the current epoch, from 1.
            share: the finished share of it, 0 … 1.
            loss: its loss so far, in nats per token.
            rate: the learning rate.
            speed: frames per second.
            left: the estimated time to the end of the last epoch, in s.
        """
        pause = SECONDS_BETWEEN_DRAWINGS if self.on_terminal else SECONDS_BETWEEN_LINES
        if time.monotonic() - self.last < pause:
            return
        self.last = time.monotonic()
        facts = (
            f"loss {loss:.3f} per token, learning rate {rate:.2g}, {speed:,.0f} frames/s, "
            f"{duration(left)} left"
        )
        if not self.on_terminal:
            log.info("epoch %d of %d: %.0f %%, %s", epoch, self.epochs, 100 * share, facts)
            return
        filled = round(BAR_WIDTH * share)
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        print(f"\r\033[Kepoch {epoch}/{self.epochs} {bar} {facts}", end="", file=sys.stderr)
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the bar, to make room for a log line."""
        if self.on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time in seconds as minutes or hours: 3:07, 2:03:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Events:
    """Writes the numbers of each epoch for TensorBoard, if tensorboardX is installed."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self.writer: Any = None
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            log.info("no events for TensorBoard: tensorboardX is not installed")
            return
        # Events that an interrupted training wrote for this and later epochs are hidden.
        self.writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def write(self, epoch: int, values: dict[str, Any]) -> None:
        """Write those values of an epoch that are floating-point numbers, and ``asynchronous``."""
        if self.writer is None:
            return
        for name, value in values.items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, epoch)
        if "asynchronous" in values:
            self._write_asynchronous(epoch, asynchronous_of(values["asynchronous"]))
        self.writer.flush()

    def _write_asynchronous(self, epoch: int, found: Asynchronous) -> None:
        """Write the staleness of each shard, and what each worker did."""
        for number, seen in enumerate(found.staleness, start=1):
            if seen.pushes:
                buckets = _buckets(seen)
                self.writer.add_histogram_raw(
                    f"staleness/shard{number}", **buckets, global_step=epoch
                )
                self.writer.add_scalar(f"mean_staleness/shard{number}", seen.mean, epoch)
        for name, share in found.workers.items():
            for what, value in (
                ("steps_per_second", share.speed),
                ("megabytes", share.megabytes),
                ("waiting_seconds", share.waiting),
                ("utterances", share.utterances),
            ):
                self.writer.add_scalar(f"workers/{what}/{name}", value, epoch)

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


def _buckets(seen: Staleness) -> dict[str, Any]:
    """A histogram for TensorBoard: a bucket of width 1 around each staleness, empty ones between.

    A bucket reaches from the limit of the one before, the first from ``min``; hence ``min`` and
    ``max`` are those of the buckets.
    """
    limits: list[float] = []
    counts: list[int] = []
    for late, count in sorted(seen.counts.items()):
        if limits and limits[-1] < late - 0.5:
            limits.append(late - 0.5)
            counts.append(0)
        limits.append(late + 0.5)
        counts.append(count)
    return {
        "min": min(seen.counts) - 0.5,
        "max": limits[-1],
        "num": seen.pushes,
        "sum": seen.sum(),
        "sum_squares": seen.sum(power=2),
        "bucket_limits": limits,
        "bucket_counts": counts,
    }
