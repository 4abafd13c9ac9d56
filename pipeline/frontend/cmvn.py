"""Cepstral mean and variance normalisation (CMVN) with statistics in the layout of Kaldi."""

from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, FeatureError
from pipeline.frontend.spectra import check_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

VARIANCE_FLOOR = 1e-20  # smallest variance to divide by, as in Kaldi


class CmvnStats:
    """Statistics for normalising features: sums over frames.

    Args:
        matrix: ``(2, F + 1)``: the first row holds the sums and the number of frames, the second
            the sums of squares and 0.

    Raises:
        FeatureError: ``matrix`` has another shape or holds NaN.
    """

    def __init__(self, matrix: "NDArray[Any]") -> None:
        import numpy as np

        if matrix.ndim != 2 or matrix.shape[0] != 2 or matrix.shape[1] < 2:
            raise FeatureError(
                f"the shape {matrix.shape} is not that of CMVN statistics, 2 x (columns + 1); "
                "make them with compute_cmvn_stats.py"
            )
        if not np.isfinite(matrix).all():
            raise FeatureError("the CMVN statistics hold NaN or infinity; compute them again")
        self.matrix = matrix.astype(np.float64)

    @classmethod
    def zeros(cls, dim: int) -> "CmvnStats":
        """Empty statistics for features with ``dim`` columns."""
        import numpy as np

        return cls(np.zeros((2, dim + 1)))

    @property
    def dim(self) -> int:
        """The number F of columns of the features."""
        return int(self.matrix.shape[1]) - 1

    @property
    def count(self) -> float:
        """The number of frames."""
        return float(self.matrix[0, -1])

    def accumulate(self, feats: "NDArray[Any]", weights: "NDArray[Any] | None" = None) -> None:
        """Add the frames of ``feats (T, F)``, each as often as its weight says.

        Args:
            feats: ``(T, F)``.
            weights: ``(T,)``; None: each frame once.

        Raises:
            FeatureError: the features have another F or hold NaN, or there are not as many weights
                as frames, or one is not finite; then nothing is added.
        """
        import numpy as np

        check_features(feats, self.dim)
        single = feats.astype(np.float32)  # squared in float32 and summed in float64, as Kaldi does
        if weights is not None:
            self._accumulate_weighted(single, weights.astype(np.float32))
            return
        self.matrix[0, :-1] += single.sum(axis=0, dtype=np.float64)
        self.matrix[1, :-1] += np.square(single).sum(axis=0, dtype=np.float64)
        self.matrix[0, -1] += len(feats)

    def _accumulate_weighted(self, feats: "NDArray[Any]", weights: "NDArray[Any]") -> None:
        import numpy as np

        if len(weights) != len(feats):
            what = f"has {len(weights)} weights, but {len(feats)} frames"
            raise FeatureError(f"{what}; make the weights again")
        if not np.isfinite(weights).all():
            raise FeatureError("a weight is NaN or infinite; make the weights again")
        column = weights[:, None]
        self.matrix[0, :-1] += (feats * column).sum(axis=0, dtype=np.float64)
        self.matrix[1, :-1] += (np.square(feats) * column).sum(axis=0, dtype=np.float64)
        self.matrix[0, -1] += weights.sum(dtype=np.float64)

    def without(self, dims: "tuple[int, ...]") -> "CmvnStats":
        """Statistics that leave some columns (counted from 0) as they are.

        Raises:
            FeatureError: there is no such column.
        """
        stats = CmvnStats(self.matrix)
        for dim in dims:
            if not 0 <= dim < self.dim:
                raise FeatureError(
                    f"--skip-dims: there is no column {dim}, only 0 to {self.dim - 1}; give others"
                )
            stats.matrix[:, dim] = 0.0, self.count
        return stats

    def apply(
        self,
        feats: "NDArray[Any]",
        *,
        norm_means: bool = True,
        norm_vars: bool = False,
        reverse: bool = False,
    ) -> "NDArray[Any]":
        """Normalise ``feats (T, F)`` to mean 0 and, with ``norm_vars``, variance 1.

        Args:
            feats: ``(T, F)``.
            norm_means: subtract the mean.
            norm_vars: divide by the (biased) standard deviation, the variance being at least 1e-20.
            reverse: undo the normalisation instead.

        Raises:
            FeatureError: the features have another F or hold NaN, or the statistics have less than
                one frame.
            ConfigError: ``norm_vars`` without ``norm_means``.
        """
        import numpy as np

        if norm_vars and not norm_means:
            raise ConfigError("--norm-vars needs --norm-means; leave off --norm-means=false")
        check_features(feats, self.dim)
        if not norm_means:
            return feats
        if self.count < 1.0:
            raise FeatureError(
                f"the CMVN statistics have {self.count:g} frames; compute them again"
            )
        mean = self.matrix[0, :-1] / self.count
        variance = self.matrix[1, :-1] / self.count - np.square(mean)
        scale = np.sqrt(np.maximum(variance, VARIANCE_FLOOR)) if norm_vars else np.ones_like(mean)
        out = feats * scale + mean if reverse else (feats - mean) / scale
        return out.astype(feats.dtype)
