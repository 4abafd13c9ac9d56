"""SIGTERM and Ctrl-C wait until what is under way is whole and saved."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn

EXIT_TERMINATED = 143


class Interrupts:
    """Within the block signals are noted; a second one acts at once, as outside."""

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            self.__exit__(None, None, None)
            signal.raise_signal(signum)
        self.signum = signum

    def leave(self) -> NoReturn:
        """End as the signal would have: exit status 130 or 143."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_TERMINATED)
