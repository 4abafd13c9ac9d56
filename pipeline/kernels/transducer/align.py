"""When each token of a string is emitted: the most probable alignment with a transducer."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.search.model import SearchModel

CELLS = 1 << 17  # distributions that are made at a time


def transducer_align(
    frames: Tensor, model: SearchModel, tokens: Sequence[int], *, blank: int = 0
) -> list[int]:
    """The frames, from 0, at which the most probable path through the lattice emits its labels.

    Where two paths are alike, labels are emitted later.

    Args:
        frames: the joiner's encoder projections, (T, J), at least one.
        model: predictor and joiner.
        tokens: y, (U,).
        blank: id of ∅.

    Raises:
        ValueError: no path emits these tokens.
    """
    null, label = _arrows(frames, model, list(tokens), blank)
    return best_alignment(null, label)


def best_alignment(null: NDArray[np.float64], label: NDArray[np.float64]) -> list[int]:
    """As `transducer_align`, of log Pr(∅|t,u), (T, U+1), and log Pr(y_{u+1}|t,u), (T, U)."""
    num_frames, width = null.shape
    best = np.full((num_frames, width), -np.inf)
    emits = np.zeros((num_frames, width), dtype=bool)  # whether the best path arrives by a label
    best[0, 0] = 0.0
    for diagonal in range(1, num_frames + width - 1):
        u = np.arange(max(0, diagonal - num_frames + 1), min(width, diagonal + 1))
        t = diagonal - u
        by_null = np.where(t > 0, best[t - 1, u] + null[t - 1, u], -np.inf)
        by_label = np.full(len(u), -np.inf)
        by_label[u > 0] = best[t[u > 0], u[u > 0] - 1] + label[t[u > 0], u[u > 0] - 1]
        best[t, u] = np.maximum(by_null, by_label)
        emits[t, u] = by_label >= by_null
    if not np.isfinite(best[-1, -1] + null[-1, -1]):
        raise ValueError("no alignment of these tokens is possible")
    found, t, u = [], num_frames - 1, width - 1
    while u:
        if emits[t, u]:
            found.append(t)
            u -= 1
        else:
            t -= 1
    return found[::-1]


def _arrows(
    frames: Tensor, model: SearchModel, tokens: list[int], blank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log Pr(∅|t,u) and log Pr(y_{u+1}|t,u), a stretch of frames at a time."""
    columns = _columns(model, tokens, frames.device)
    width = len(columns)
    targets = torch.tensor(tokens, dtype=torch.int64, device=frames.device)
    nulls, labels = [], []
    for part in frames.split(max(1, CELLS // width)):
        rows = part.repeat_interleave(width, dim=0)
        log_probs = model.log_probs(rows, columns.repeat(len(part), 1)).double()
        lattice = log_probs.view(len(part), width, -1)
        nulls.append(lattice[:, :, blank])
        places = targets[None, :, None].expand(len(part), -1, 1)
        labels.append(lattice[:, :-1].gather(2, places)[:, :, 0])
    return torch.cat(nulls).cpu().numpy(), torch.cat(labels).cpu().numpy()


def _columns(model: SearchModel, tokens: list[int], device: torch.device) -> Tensor:
    """The predictor's projections along y, (U+1, J)."""
    state, projected = model.start(1)
    found = [projected]
    for token in tokens:
        state, projected = model.step(state, torch.tensor([token], device=device))
        found.append(projected)
    return torch.cat(found)
