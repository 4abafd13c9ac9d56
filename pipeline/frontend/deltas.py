"""Time derivatives (deltas) of features, as Kaldi's add-deltas computes them."""

from typing import TYPE_CHECKING, TypeAlias

from pipeline.errors import FeatureError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float32]


def truncated(feats: "FloatArray", columns: int) -> "FloatArray":
    """The first columns of features ``(T, F)``; all of them for 0.

    Raises:
        FeatureError: there are fewer columns.
    """
    if columns > feats.shape[1]:
        raise FeatureError(
            f"the features have {feats.shape[1]} columns, fewer than --truncate={columns}; "
            "give a smaller one"
        )
    return feats[:, :columns] if columns else feats


def add_deltas(feats: "FloatArray", *, order: int = 2, window: int = 2) -> "FloatArray":
    """Append time derivatives, as Kaldi's add-deltas does.

    The windows of all orders are composed first and applied once, with the first and the last frame
    repeated beyond the edges. (Taking deltas of deltas, each padded again, gives other values in
    the first and last ``window`` frames.)

    Args:
        feats: ``(T, F)``.
        order: the highest order of derivatives.
        window: frames on each side that a derivative of first order is computed from.

    Returns:
        ``(T, F * (order + 1))``: the features, their deltas, the deltas of these, …

    Raises:
        FeatureError: there are no frames.
    """
    import numpy as np

    frames = len(feats)
    if frames == 0:
        raise FeatureError("the features have no frames; leave this utterance out")
    offsets = np.arange(-window, window + 1)
    ramp = offsets / np.sum(offsets**2)
    reach = order * window
    padded = np.pad(feats, ((reach, reach), (0, 0)), mode="edge")
    scales, blocks = np.ones(1), [feats]
    for _ in range(order):
        scales = np.convolve(scales, ramp)
        block = np.zeros_like(feats)
        # np.convolve reverses neither window here: weight k belongs to frame t - half + k
        half = len(scales) // 2
        for k, scale in enumerate(scales.astype(feats.dtype)):
            start = reach - half + k
            block += scale * padded[start : start + frames]
        blocks.append(block)
    return np.concatenate(blocks, axis=1)
