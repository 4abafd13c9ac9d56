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

    if len(feats) == 0:
        raise FeatureError("the features have no frames; leave this utterance out")
    reach = order * window
    padded = np.pad(feats, ((reach, reach), (0, 0)), mode="edge")
    return _of_padded(padded, order, window)


def _of_padded(padded: "FloatArray", order: int, window: int) -> "FloatArray":
    """Features and deltas of all frames but the first and last ``order`` · ``window``."""
    import numpy as np

    offsets = np.arange(-window, window + 1)
    ramp = offsets / np.sum(offsets**2)
    reach = order * window
    frames = len(padded) - 2 * reach
    scales, blocks = np.ones(1), [padded[reach : reach + frames]]
    for _ in range(order):
        scales = np.convolve(scales, ramp)
        block = np.zeros_like(blocks[0])
        # np.convolve reverses neither window here: weight k belongs to frame t - half + k
        half = len(scales) // 2
        for k, scale in enumerate(scales.astype(padded.dtype)):
            start = reach - half + k
            block += scale * padded[start : start + frames]
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


class DeltaStream:
    """`add_deltas` for features that come in chunks: a frame waits for those of its window."""

    def __init__(self, *, order: int, window: int) -> None:
        self.order, self.window, self.reach = order, window, order * window
        self.kept: FloatArray | None = None  # frames that deltas to come depend on; None: no frame

    def accept(self, feats: "FloatArray") -> "FloatArray":
        """What is known after more frames ``(n, F)``: ``(m, F * (order + 1))``."""
        import numpy as np

        if not len(feats):
            return np.zeros((0, feats.shape[1] * (self.order + 1)), feats.dtype)
        first = feats[:1].repeat(self.reach, axis=0) if self.kept is None else self.kept
        frames = np.concatenate([first, feats])
        self.kept = frames[max(0, len(frames) - 2 * self.reach) :]
        if len(frames) <= 2 * self.reach:
            return self.accept(feats[:0])
        return _of_padded(frames, self.order, self.window)

    def finish(self, dim: int) -> "FloatArray":
        """What is left after the last frame, ``(m, dim * (order + 1))``."""
        import numpy as np

        last = np.zeros((0, dim), np.float32) if self.kept is None else self.kept[-1:]
        return self.accept(last.repeat(self.reach, axis=0))
