"""Batch normalisation over the whole of every batch, of which each process computes a part."""

from torch import Tensor, nn

from pipeline.nn.sequence_norm import SequenceNorm
from pipeline.training.distributed.processes import World


class NormSums:
    """Lets the norms of a model add up their sums over the processes.

    The norms exchange their sums in the order of the network, and in the opposite order on the way
    back. A process that has no utterance of a batch, or no memory for its part, takes part with
    sums of nothing, so that the others need not wait for it.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.norms = [part for part in model.modules() if isinstance(part, SequenceNorm)]
        self.world, self.done = world, 0
        self.has_failed = False  # an exchange has, and with it the training
        if world.size > 1:
            for norm in self.norms:
                norm.add_up = self._add_up

    def begin(self) -> None:
        """Begin with another batch."""
        self.done = 0

    def finish(self) -> None:
        """Take part in all exchanges of a batch to which this process has not come."""
        if self.world.size == 1:
            return
        forward = [norm.take_part for norm in self.norms]
        back = [norm.take_part_back for norm in reversed(self.norms)]
        for take_part in [*forward, *back][self.done :]:
            take_part()

    def _add_up(self, sums: Tensor) -> Tensor:
        try:
            whole = self.world.summed(sums)
        except BaseException:
            self.has_failed = True
            raise
        self.done += 1
        return whole
