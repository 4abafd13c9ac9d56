"""Normalisation of features before a network reads them: by global statistics or a speaker's."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pipeline.data.data_dir import DataDir
from pipeline.errors import DataDirError, DataError, FeatureError, UsageError
from pipeline.frontend.cmvn import CmvnStats
from pipeline.tables import MatrixReader, TextReader, read_matrix

SPEAKER = "speaker"  # instead of global statistics: those of each speaker


def normalise_features(
    features: np.ndarray, utt_id: str, dim: int, cmvn: CmvnStats | None
) -> np.ndarray:
    """Features of one utterance as a network reads them, (T, F) float32.

    Args:
        features: (T, F), not normalised.
        utt_id: for messages.
        dim: F, what the network reads.
        cmvn: statistics to normalise mean and variance by; None: the features stay as they are.

    Raises:
        FeatureError: another dimension, no frames, or values that are not finite.
    """
    if features.ndim != 2 or features.shape[1] != dim:
        raise FeatureError(
            f"{utt_id}: features of shape {features.shape}, but the model reads {dim} a frame; "
            "compute them as for its training data, or train another model"
        )
    if not len(features):
        raise FeatureError(f"{utt_id}: no frames")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        features = features.astype(np.float32, copy=False)
    if not np.isfinite(features).all():
        row = int(np.argwhere(~np.isfinite(features))[0][0])
        raise FeatureError(
            f"{utt_id}: frame {row} is not finite (NaN, infinite or beyond float32); compute "
            "these features again"
        )
    if cmvn is not None:
        features = cmvn.apply(features, norm_means=True, norm_vars=True)
    return np.ascontiguousarray(features)


# ---- statistics ----------------------------------------------------------------------------------


def own_statistics(features: np.ndarray) -> CmvnStats | None:
    """Statistics of one utterance alone; None for one that `normalise_features` will refuse."""
    if features.ndim != 2 or not features.size or not np.isfinite(features).all():
        return None
    stats = CmvnStats.zeros(features.shape[1])
    stats.accumulate(features)
    return stats


def read_cmvn(path: Path | str, dim: int) -> CmvnStats:
    """Global statistics of features with ``dim`` columns. Raises FeatureError naming the file."""
    try:
        stats = CmvnStats(read_matrix(str(path)))
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error
    if stats.dim != dim:
        raise FeatureError(
            f"{path}: statistics of {stats.dim} columns, but the model reads {dim} features a "
            "frame; make them with compute_cmvn_stats.py from such features"
        )
    return stats


def read_speaker_cmvn(data: DataDir, allow_pipes: bool = False) -> dict[str, CmvnStats]:
    """Statistics by speaker, from ``cmvn.scp``. Raises FeatureError naming file and speaker."""
    found = {}
    for speaker, rxfilename in data.cmvn_scp.items():
        try:
            found[speaker] = CmvnStats(read_matrix(rxfilename, allow_pipes=allow_pipes))
            if found[speaker].count < 1:
                raise FeatureError("statistics of no frames; make them again")
        except FeatureError as error:
            raise FeatureError(f"{data.path}/cmvn.scp: {speaker}: {error}") from error
    return found


def speaker_cmvn(
    data: DataDir, utt_ids: Iterable[str], allow_pipes: bool = False
) -> dict[str, CmvnStats]:
    """Each utterance's statistics in a data directory: those of its speaker in ``cmvn.scp``.

    Raises:
        DataDirError: a file is missing, an utterance has no speaker, or a speaker no statistics.
    """
    if not data.has("cmvn.scp"):
        raise DataDirError(
            f"{data.path}/cmvn.scp: missing; make it with compute_cmvn_stats.py "
            f"--spk2utt=ark:{data.path}/spk2utt scp:{data.path}/feats.scp "
            f"ark,scp:{data.path}/cmvn_spk.ark,{data.path}/cmvn.scp"
        )
    stats = read_speaker_cmvn(data, allow_pipes)
    speaker_of = data.utt2spk
    for utt in utt_ids:
        if speaker_of.get(utt) not in stats:
            raise DataDirError(
                f"{data.path}/cmvn.scp: no statistics of the speaker of {utt}; make it again with "
                "compute_cmvn_stats.py --spk2utt"
            )
    return {utt: stats[speaker_of[utt]] for utt in utt_ids}


def find_statistics(
    cmvn: str, utt2spk: str, *, model: Path, allow_pipes: bool = False
) -> Callable[[str], CmvnStats]:
    """From an utterance to its speaker's statistics, as ``--cmvn`` and ``--utt2spk`` name them.

    Args:
        cmvn: rspecifier of statistics by speaker.
        utt2spk: rspecifier of each utterance's speaker; empty: ``cmvn`` is by utterance.
        model: the model directory that needs them, for messages.
        allow_pipes: whether an scp may name commands.

    Raises:
        UsageError: there is no ``cmvn``.
        DataError: a table cannot be read; from the function also: an utterance without statistics.
    """
    if not cmvn:
        raise UsageError(
            f"{model} normalises by speaker: give --cmvn=scp:DATA_DIR/cmvn.scp "
            "--utt2spk=ark:DATA_DIR/utt2spk"
        )
    stats = {key: CmvnStats(m) for key, m in MatrixReader(cmvn, allow_pipes=allow_pipes)}
    speaker_of = dict(TextReader(utt2spk)) if utt2spk else {u: u for u in stats}

    def find(utt_id: str) -> CmvnStats:
        if speaker_of.get(utt_id) not in stats:
            raise DataError(f"{utt_id}: no statistics of its speaker in {cmvn}")
        return stats[speaker_of[utt_id]]

    return find
