"""What the coordinator counts of an epoch, for its log and for ``metrics.jsonl``."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.training.step import Counts

log = logging.getLogger("pipeline")


@dataclass
class Share:
    """What one worker did in an epoch."""

    steps: int = 0
    utterances: int = 0
    megabytes: float = 0.0
    waiting: float = 0.0
    seconds: float = 0.0

    def facts(self) -> dict[str, float]:
        """For ``metrics.jsonl``."""
        return {
            "steps": self.steps,
            "utterances": self.utterances,
            "steps_per_second": round(self.steps / max(self.seconds, 1e-9), 3),
            "megabytes": round(self.megabytes, 3),
            "waiting_seconds": round(self.waiting, 3),
        }


@dataclass
class Open:
    """The counts of an epoch that is not closed."""

    counts: Counts = field(default_factory=Counts)
    utterances: int = 0
    updates: int = 0
    refused: int = 0
    shares: dict[int, Share] = field(default_factory=dict)


@dataclass
class Closed:
    """An epoch all of whose items are done, before it is evaluated."""

    epoch: int
    weights: dict[str, Tensor]
    counts: Open
    staleness: list[dict[int, int]]
    given_back: int
    done: dict[int, list[int]]

    def facts(self, names: Mapping[int, str], lost: Sequence[str]) -> dict[str, Any]:
        """The numbers for ``metrics.jsonl``; they are logged too.

        Args:
            names: of the workers.
            lost: the names of those that have ended.
        """
        shares = {names[n]: share.facts() for n, share in sorted(self.counts.shares.items())}
        log.info(
            "epoch %d: %d utterances trained, %s; staleness %s",
            self.epoch,
            self.counts.utterances,
            ", ".join(
                f"{n} {share['steps_per_second']:.1f} steps/s" for n, share in shares.items()
            ),
            "; ".join(_mean(seen) for seen in self.staleness),
        )
        return {
            "updates": self.counts.updates,
            "utterances": self.counts.utterances,
            "staleness": [
                {str(late): count for late, count in sorted(seen.items())}
                for seen in self.staleness
            ],
            "workers": shares,
            "items_given_back": self.given_back,
            "refused": self.counts.refused,
            "lost": list(lost),
        }


def _mean(seen: dict[int, int]) -> str:
    """The mean of a histogram in words."""
    total = sum(seen.values())
    return f"{sum(late * n for late, n in seen.items()) / total:.2f}" if total else "none"
