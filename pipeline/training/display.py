"""What a person sees of a training: a bar on a terminal, else a line every 30 s; TensorBoard."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

log = logging.getLogger("pipeline")

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_DRAWINGS = 0.2
BAR_WIDTH = 24


class Display:
    """Shows where an epoch stands."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.on_terminal = sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
        self.last = time.monotonic()

    def show(
        self, epoch: int, share: float, *, loss: float, rate: float, speed: float, left: float
    ) -> None:
        """Draw, if it is time to.

        Args:
            epoch: the epoch under way, from 1.
            share: how much of it is done, 0 … 1.
            loss: nats a token in it so far.
            rate: learning rate.
            speed: frames a second.
            left: seconds to the end of all epochs, by what they took so far.
        """
        pause = SECONDS_BETWEEN_DRAWINGS if self.on_terminal else SECONDS_BETWEEN_LINES
        if time.monotonic() - self.last < pause:
            return
        self.last = time.monotonic()
        facts = (
            f"loss {loss:.3f} a token, learning rate {rate:.2g}, {speed:,.0f} frames/s, "
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
        """Remove the bar, so that a log line can stand there."""
        if self.on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Such as 3:07 or 2:03:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Events:
    """Numbers of each epoch as TensorBoard reads them, where its writer is installed."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self.writer: Any = None
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            log.info("no events for TensorBoard: tensorboardX is not installed")
            return
        # What a training that was stopped wrote of epochs that are now done again is hidden.
        self.writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def write(self, epoch: int, values: dict[str, Any]) -> None:
        """Write the numbers among the values of an epoch."""
        if self.writer is None:
            return
        for name, value in values.items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
