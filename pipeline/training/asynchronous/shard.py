"""A part of the weights with its optimiser: gradients come in, weights go out.

The algorithm is Downpour SGD: J. Dean et al., "Large Scale Distributed Deep Networks", 2012. With
asynchronous SGD H. Sak, A. Senior and F. Beaufays train LSTMP in arXiv 1402.1128, 2014.
"""

import math
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.models.weights import load_state, save_state
from pipeline.training.asynchronous.messages import APPLIED, KNOWN, REFUSED, Pulled, Push
from pipeline.training.checkpoint import check_optimizer
from pipeline.training.optimizer import make_optimizer, set_learning_rate
from pipeline.training.train_options import TrainOptions
from pipeline.training.weight_average import WeightAverage


def split_by_size(tensors: Mapping[str, Tensor], count: int) -> list[list[str]]:
    """The names of tensors in ``count`` parts of about the same size, each in the given order.

    The largest tensors first, each goes to the part that is smallest so far.
    """
    parts: list[set[str]] = [set() for _ in range(count)]
    sizes = [0] * count
    for name in sorted(tensors, key=lambda n: (-tensors[n].numel(), n)):
        smallest = sizes.index(min(sizes))
        parts[smallest].add(name)
        sizes[smallest] += tensors[name].numel()
    return [[name for name in tensors if name in part] for part in parts]


class Shard:
    """Weights of one shard. All methods may be called from several threads.

    Attributes:
        version: the number of updates so far.
        staleness: for each open epoch, how often each staleness was seen: the number of updates
            between the pull of the weights and the push of the gradients.
    """

    def __init__(
        self,
        number: int,
        weights: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        options: TrainOptions,
        *,
        divide_by_staleness: bool = False,
    ) -> None:
        """Take over some tensors, which are changed in place.

        Args:
            number: of the shard, from 1.
            weights: by name; those of the model begin with ``model.``.
            buffers: by name; running averages that training changes.
            options: optimiser and average.
            divide_by_staleness: whether a step is divided by 1 + staleness.
        """
        self.number, self.weights, self.buffers = number, dict(weights), dict(buffers)
        self.divide_by_staleness = divide_by_staleness
        self.optimizer = make_optimizer(list(self.weights.values()), options)
        self._averaged = [
            *(name for name in self.weights if name.startswith("model.")),
            *(name for name, buffer in self.buffers.items() if buffer.is_floating_point()),
        ]
        tensors = {**self.weights, **self.buffers}
        self.average = WeightAverage([tensors[name] for name in self._averaged], options.average)
        self.version = 0
        self.staleness: dict[int, Counter[int]] = {}
        self._applied: dict[int, set[int]] = {}  # numbers of items, by epoch
        self._serials: dict[int, int] = {}  # of the last push of each worker
        self._first_open = 0
        self._held: list[tuple[Push, Any]] | None = None  # pushes that wait; None: none need to
        self._snapshot: dict[str, Any] = {}
        self._lock = threading.RLock()

    # ---- for the workers -------------------------------------------------------------------------

    def pull(self) -> Pulled:
        """Copies of all weights."""
        with self._lock, torch.no_grad():
            return Pulled(
                self.version,
                [weight.detach().clone() for weight in self.weights.values()],
                [buffer.clone() for buffer in self.buffers.values()],
            )

    def push(self, push: Push) -> Any:
        """Make an update by a worker's gradients.

        Returns:
            APPLIED; KNOWN if the gradients of these examples have been applied before; REFUSED if
            they are not finite: nothing has changed then. While the shard holds still, a Future.
        """
        with self._lock:
            if self._held is not None:
                future: Any = torch.futures.Future()
                self._held.append((push, future))
                return future
            return self._take(push)

    def peek(self) -> Pulled:
        """The version alone, for those who share the memory."""
        return Pulled(self.version, [], [])

    def ping(self) -> None:
        """Show that this process is there."""

    def _take(self, push: Push) -> str:
        self._serials[push.worker] = push.serial
        item = push.item
        if item is not None and (
            item.epoch < self._first_open or item.number in self._applied.get(item.epoch, ())
        ):
            return KNOWN
        finite = (g is None or bool(torch.isfinite(g).all()) for g in push.gradients)
        if not (math.isfinite(push.norm) and all(finite)):
            return REFUSED
        late = self.version - push.version
        for weight, gradient in zip(self.weights.values(), push.gradients, strict=True):
            weight.grad = gradient
        set_learning_rate(
            self.optimizer, push.rate / (1 + late) if self.divide_by_staleness else push.rate
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._take_buffers(push, late)
        self.average.update()
        self.version += 1
        self.staleness.setdefault(push.epoch, Counter())[late] += 1
        if item is not None:
            self._applied.setdefault(item.epoch, set()).add(item.number)
        return APPLIED

    def _take_buffers(self, push: Push, late: int) -> None:
        for mine, after, before in zip(self.buffers.values(), *push.buffers, strict=False):
            if late == 0:
                mine.copy_(after)
            else:  # others have changed it since
                mine.add_(after - before)

    # ---- for the coordinator ---------------------------------------------------------------------

    def hold(self) -> dict[int, int]:
        """Hold still: let pushes wait. Returns the serial of each worker's last push."""
        with self._lock:
            self._held = [] if self._held is None else self._held
            return dict(self._serials)

    def advance(self, serials: Mapping[int, int]) -> bool:
        """Take those waiting pushes that other shards have taken; False if one is not here yet."""
        with self._lock:
            assert self._held is not None
            still: list[tuple[Push, Any]] = []
            for push, future in self._held:
                if push.serial <= serials.get(push.worker, -1):
                    future.set_result(self._take(push))
                else:
                    still.append((push, future))
            self._held = still
            return all(self._serials.get(w, -1) >= serial for w, serial in serials.items())

    def release(self) -> None:
        """Take all waiting pushes, and go on."""
        with self._lock:
            held, self._held = self._held or [], None
            for push, future in held:
                future.set_result(self._take(push))

    def snapshot(self, first_open: int) -> None:
        """Keep a copy of the state, for `copies` and `write`.

        Args:
            first_open: the oldest epoch that is not closed; what is known of older ones is dropped
                after it.
        """
        with self._lock, torch.no_grad():
            self._first_open = first_open
            self._applied = {e: found for e, found in self._applied.items() if e >= first_open}
            self._snapshot = {
                "weights": {name: w.detach().clone() for name, w in self.weights.items()},
                "buffers": {name: b.clone() for name, b in self.buffers.items()},
                "optimizer": _copied(self.optimizer.state_dict()),
                "average": _copied(self.average.state()),
                "shard_version": self.version,
                "applied": {epoch: sorted(numbers) for epoch, numbers in self._applied.items()},
                "staleness": {epoch: dict(seen) for epoch, seen in self.staleness.items()},
            }
            self.staleness = {e: seen for e, seen in self.staleness.items() if e >= first_open}

    def copies(self) -> dict[str, Tensor]:
        """The weights and buffers of the snapshot by name, averaged if averages are asked for."""
        found = {**self._snapshot["weights"], **self._snapshot["buffers"]}
        averages = self._snapshot["average"]["weights"]
        return {**found, **dict(zip(self._averaged, averages, strict=False))}

    def seen(self) -> tuple[dict[int, dict[int, int]], dict[int, list[int]]]:
        """Of the snapshot: how often each staleness was seen, and which items, by epoch."""
        return self._snapshot["staleness"], self._snapshot["applied"]

    def write(self, path: str) -> None:
        """Write the snapshot. Raises OutputError."""
        save_state(self._snapshot, Path(path))

    def load(self, path: str) -> None:
        """Take over what `write` wrote.

        Raises:
            ModelError: the file is damaged.
            Exception: it belongs to another training.
        """
        state = load_state(Path(path))
        with self._lock, torch.no_grad():
            for kept, own in (("weights", self.weights), ("buffers", self.buffers)):
                if state[kept].keys() != own.keys():
                    raise ValueError(f"it has other {kept}")
                for name, tensor in own.items():
                    if state[kept][name].shape != tensor.shape:
                        raise ValueError(f"{name} is of another shape")
            _take_over(self.optimizer, state["optimizer"])
            self.average.load(state["average"])
            for kept, own in (("weights", self.weights), ("buffers", self.buffers)):
                for name, tensor in own.items():
                    tensor.copy_(state[kept][name])
            self.version = int(state["shard_version"])
            self._applied = {int(e): set(numbers) for e, numbers in state["applied"].items()}
            self.staleness = {int(e): Counter(seen) for e, seen in state["staleness"].items()}


def _copied(state: Any) -> Any:
    """Nested dictionaries and lists with copies of their tensors."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state


def _take_over(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimiser; into the tensors that it has, which may be shared."""
    before = {p: dict(values) for p, values in optimizer.state.items()}
    optimizer.load_state_dict(state)
    check_optimizer(optimizer)
    for parameter, values in before.items():
        for name, mine in values.items():
            if isinstance(mine, Tensor):
                optimizer.state[parameter][name] = mine.copy_(optimizer.state[parameter][name])


def trained(
    model: torch.nn.Module, auxiliary: torch.nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights that a training changes, and the buffers of the model, by name."""
    weights: dict[str, Tensor] = {f"model.{name}": w for name, w in model.named_parameters()}
    weights |= {f"auxiliary.{name}": w for name, w in auxiliary.named_parameters()}
    return weights, {f"model.{name}": b for name, b in model.named_buffers()}
