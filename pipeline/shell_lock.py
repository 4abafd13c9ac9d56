"""The lock that a shell script holds on a folder::

    python3 -m pipeline.shell_lock NAME FD FOLDER

FD is the descriptor of ``FOLDER/.lock``, which the script has opened and keeps open, so that the
lock holds until the script has ended. What killed processes left in FOLDER and FOLDER/log is
removed. ``utils/files.sh`` is the only caller.
"""

import contextlib
import logging
import os
import sys
from pathlib import Path

from pipeline.files import WAITING, hold
from pipeline.leftovers import is_leftover, remove

AGAIN = 3  # the exit status if the lock file was removed by the script that had it


def lock(descriptor: int, folder: Path) -> int:
    """Lock an open file in a folder, and remove leftovers there; the exit status."""
    if not hold(descriptor, folder / ".lock", f"{folder}: {WAITING}"):
        return AGAIN
    for place in (folder, folder / "log"):
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                if is_leftover(place / name):
                    with contextlib.suppress(OSError):
                        remove(place / name)
    return 0


if __name__ == "__main__":
    logging.basicConfig(format=f"%(levelname)s ({sys.argv[1]}) %(message)s")
    sys.exit(lock(int(sys.argv[2]), Path(sys.argv[3])))
