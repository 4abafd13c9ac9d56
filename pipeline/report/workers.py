"""Models that were trained asynchronously: what their workers did, and how stale gradients were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.plots.staleness import read_asynchronous
from pipeline.report.pictures import Gallery, Picture
from pipeline.report.views import MANY_ROWS
from pipeline.scoring.asynchronous import Asynchronous, together, total


@dataclass(frozen=True)
class Teamwork:
    """One model; ``found`` is of its whole training."""

    label: str
    found: Asynchronous
    pictures: list[Picture]

    @property
    def tall(self) -> bool:
        """Whether the table of workers would push the rest of the page away."""
        return len(self.found.workers) > MANY_ROWS

    @property
    def staleness(self) -> str:
        """How stale the gradients were, a sentence."""
        seen = together(self.found.staleness)
        if not seen.pushes:
            return ""
        return (
            f"When a gradient arrived, its shard’s weights were {seen.mean:.2f} updates newer, on "
            f"average, than those that it was computed with; at most {seen.largest:,}."
        )

    @property
    def troubles(self) -> str:
        """What went wrong, a sentence."""
        found = self.found
        lost = " and ".join(found.lost) or "no worker"
        return (
            f"In the training {lost} {'were' if len(found.lost) > 1 else 'was'} lost, "
            f"{_many(found.refused, 'gradient', 'gradients')} refused by a shard as not finite, "
            f"and {_many(found.given_back, 'batch', 'batches')} given back and trained by others."
        )


def read_teamwork(
    models: Sequence[Path], names: Mapping[Path, str], gallery: Gallery | None
) -> list[Teamwork]:
    """Those of the models that were trained asynchronously.

    Args:
        models: model directories; what cannot be read is left out, the learning curves say why.
        names: of the models.
        gallery: draws the pictures; None: there are none.
    """
    done = []
    for model in models:
        try:
            epochs = read_asynchronous(model)
        except PipelineError:
            continue
        pictures = [gallery.staleness(model, epochs)] if gallery else []
        done.append(Teamwork(names[model], total(list(epochs.values())), pictures))
    return done


def _many(count: int, one: str, several: str) -> str:
    """No batch was, 1 batch was, 2 batches were."""
    if count < 2:
        return f"{count or 'no'} {one} was"
    return f"{count:,} {several} were"
