"""Writing a table in a given order, whatever the order in which its entries are made."""

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def in_order(
    keys: Iterable[str], write: Callable[[str, bytes], None]
) -> Iterator[Callable[[str, bytes | None], None]]:
    """Yield a function that passes entries on to ``write`` in the order of ``keys``.

    The function takes a key and its bytes, or None for a key that has failed. Each key is given
    once. What comes before its turn waits in a temporary file, so that memory stays bounded.

    Args:
        keys: all keys, in the order to write.
        write: writes an entry.
    """
    left = deque(keys)
    waiting: dict[str, tuple[int, int] | None] = {}  # place and size in the file

    with tempfile.TemporaryFile() as spool:

        def put(key: str, data: bytes | None) -> None:
            if left and key == left[0] and data is not None:
                write(key, data)
                left.popleft()
            elif data is None:
                waiting[key] = None
            else:
                waiting[key] = spool.seek(0, 2), len(data)
                spool.write(data)
            while left and left[0] in waiting:
                place = waiting.pop(left[0])
                if place is not None:
                    spool.seek(place[0])
                    write(left[0], spool.read(place[1]))
                left.popleft()
            if not waiting:
                spool.truncate(0)

        yield put
