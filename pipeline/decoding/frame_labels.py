"""The label of every frame: from the spans of an alignment, or from times of phones.

Between two labels the boundary lies in the middle of what belongs to neither: the blanks between
two tokens of an alignment, or a gap between two phones. What comes before the first label or after
the last one is given to it. Each label gets at least one frame.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Spans = Sequence[tuple[float, float]]  # begin and end of each label


def labels_of_frames(labels: Sequence[int], spans: Spans, frames: int) -> NDArray[np.int32]:
    """The label of each of a number of frames, (T,).

    Args:
        labels: the labels in their order, (U,).
        spans: begin and end of each in frames, where frame t reaches from t to t + 1; a frame
            belongs to the label in which its middle lies.
        frames: the number T.

    Raises:
        ValueError: there is no label, or there are fewer frames than labels.
    """
    if not labels:
        raise ValueError("there is no label for its frames")
    if frames < len(labels):
        raise ValueError(f"{frames} frames are too few for {len(labels)} labels")
    begins, ends = np.array(spans, dtype=np.float64).T
    wanted = np.ceil((ends[:-1] + begins[1:]) / 2.0 - 0.5).astype(np.int64)
    bounds, before = [], 0
    for left, bound in zip(range(len(labels) - 1, 0, -1), wanted.tolist(), strict=True):
        before = min(max(bound, before + 1), frames - left)
        bounds.append(before)
    counts = np.diff([0, *bounds, frames])
    return np.repeat(np.array(labels, dtype=np.int32), counts)
