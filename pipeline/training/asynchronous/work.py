"""Which examples of the epochs are left, and which worker has them: each is done once an epoch."""

from collections import deque
from collections.abc import Callable, Iterable

from pipeline.training.asynchronous.messages import Item


class WorkQueue:
    """Hands out the items of one epoch after the other.

    No worker waits for another one's last item: when all items of an epoch are handed out, those of
    the next follow. Items of a worker that is lost are handed out again, before all others.

    Attributes:
        epoch: the oldest epoch that is not closed.
        given_back: how often an item was taken from one worker and given to the next.
    """

    def __init__(self, count_of: Callable[[int], int], *, epoch: int = 1) -> None:
        self._count_of, self.epoch = count_of, epoch
        self._next: dict[int, int] = {}
        self._owner: dict[Item, int] = {}
        self._returned: deque[Item] = deque()
        self.done: dict[int, set[int]] = {}
        self.given_back = 0

    def take(self, worker: int, *, newest: int) -> Item | None:
        """An item for a worker, of no later epoch than ``newest``; None if there is none now."""
        for item in self._returned:
            if item.epoch <= newest:
                self._returned.remove(item)
                self._owner[item] = worker
                return item
        for epoch in range(self.epoch, newest + 1):
            done, number = self.done.setdefault(epoch, set()), self._next.get(epoch, 0)
            while number in done:
                number += 1
            if number < self._count_of(epoch):
                self._next[epoch] = number + 1
                item = Item(epoch, number)
                self._owner[item] = worker
                return item
        return None

    def finish(self, item: Item) -> bool:
        """Count an item as done; False if it was already, or if its epoch is closed."""
        self._owner.pop(item, None)
        if item in self._returned:
            self._returned.remove(item)
        done = self.done.setdefault(item.epoch, set())
        if item.epoch < self.epoch or item.number in done:
            return False
        done.add(item.number)
        return True

    def give_back(self, worker: int, items: Iterable[Item] | None = None) -> list[Item]:
        """Take all items, or only some, from a worker; they are handed out again."""
        mine = sorted(item for item, owner in self._owner.items() if owner == worker)
        taken = [item for item in mine if items is None or item in set(items)]
        for item in taken:
            del self._owner[item]
        self._returned.extend(taken)
        self.given_back += len(taken)
        return taken

    @property
    def is_complete(self) -> bool:
        """Whether all items of the oldest epoch are done."""
        return len(self.done.get(self.epoch, ())) >= self._count_of(self.epoch)

    def close(self) -> None:
        """Go on to the next epoch."""
        self.done.pop(self.epoch, None)
        self._next.pop(self.epoch, None)
        self.epoch += 1

    def resume(self, done: dict[int, list[int]]) -> None:
        """Begin with some items of the open epochs done."""
        self.done = {epoch: set(numbers) for epoch, numbers in done.items()}
