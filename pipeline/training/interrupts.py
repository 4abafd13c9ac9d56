"""SIGTERM and Ctrl-C wait until what is under way is whole and saved."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

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

    def leave(self) -> NoReturn:
        """End as the signal would have: exit status 130 or 143."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_TERMINATED)
