"""SIGTERM and Ctrl-C: a training finishes the current update and saves its state before it ends."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
SAME_SIGNAL = 2.0


class Interrupts:
    """Within the block, a first signal is only noted; a second one acts at once, as outside.

    Schedulers send the same signal to a process group and to its members, so all signals within
    `SAME_SIGNAL` seconds count as one.
    """

    def __init__(self) -> None:
        self.signum, self._noted = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(signum) == signal.SIG_IGN:
                    continue  # the background job of a script
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            if time.monotonic() - self._noted < SAME_SIGNAL:
                return
            self.__exit__(None, None, None)
            signal.raise_signal(signum)
        self.signum, self._noted = signum, time.monotonic()

    @property
    def noted(self) -> tuple[float, float]:
        """Two numbers to sum over the processes: 1 after Ctrl-C, and 1 after SIGTERM; else 0."""
        return float(self.signum == signal.SIGINT), float(self.signum == signal.SIGTERM)

    def agree(self, interrupted: float, terminated: float) -> bool:
        """Take over a signal that any process got.

        Args:
            interrupted: how many processes got Ctrl-C.
            terminated: how many processes got SIGTERM.

        Returns:
            Whether there was a signal.
        """
        if not (interrupted or terminated):
            return False  # a signal that only this process has got since counts at the next call
        if not self.signum:
            self._noted = time.monotonic()
        self.signum = signal.SIGTERM if terminated else signal.SIGINT
        return True

    def leave(self, *, silently: bool = False) -> NoReturn:
        """End as the signal would have ended the process, with exit status 130 or 143."""
        if self.signum == signal.SIGINT and not silently:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_INTERRUPTED if self.signum == signal.SIGINT else EXIT_TERMINATED)
