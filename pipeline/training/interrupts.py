"""SIGTERM and Ctrl-C wait until what is under way is whole and saved."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
SAME_SIGNAL = 2.0


class Interrupts:
    """Within the block signals are noted; one that comes later again acts at once, as outside.

    Schedulers send the same signal to a process group and to its members, so what comes within
    `SAME_SIGNAL` seconds is one.
    """

    def __init__(self) -> None:
        self.signum, self._noted = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(signum) == signal.SIG_IGN:
                    continue  # a script's background job
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
        """1 for a Ctrl-C, 1 for a SIGTERM, to be summed over processes."""
        return float(self.signum == signal.SIGINT), float(self.signum == signal.SIGTERM)

    def agree(self, interrupted: float, terminated: float) -> bool:
        """Take over what came to any process; whether anything did."""
        if not (interrupted or terminated):
            return False  # what has come since to this one alone is for the next time
        if not self.signum:
            self._noted = time.monotonic()
        self.signum = signal.SIGTERM if terminated else signal.SIGINT
        return True

    def leave(self, *, silently: bool = False) -> NoReturn:
        """End as the signal would have: exit status 130 or 143."""
        if self.signum == signal.SIGINT and not silently:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_INTERRUPTED if self.signum == signal.SIGINT else EXIT_TERMINATED)
