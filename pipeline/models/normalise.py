"""Normalisation of features before a network reads them, with global or speaker statistics."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pipeline.data.data_dir import DataDir
from pipeline.errors import DataDirError, DataError, FeatureError, UsageError
from pipeline.frontend.cmvn import CmvnStats
from pipeline.tables import MatrixReader, TextReader, read_matrix

SPEAKER = "speaker"  # the value of --cmvn for the statistics of each speaker


def normalise_features(
    features: np.ndarray, utt_id: str, dim: int, cmvn: CmvnStats | None
) -> np.ndarray:
    """Check and normalise the features of one utterance for a network, (T, F) float32.

    Args:
        features: (T, F), not normalised.
        utt_id: the id of the utterance, for error messages.
        dim: the number F of features per frame that the network reads.
        cmvn: the statistics for normalising mean and variance; None: no normalisation.

    Raises:
        FeatureError: the dimension is wrong, there are no frames, or a value is not finite.
    """
    if features.ndim != 2 or features.shape[1] != dim:
        raise FeatureError(
            f"{utt_id}: features of shape {features.shape}, but the model reads {dim} per frame; "
            "compute them as for its training data, or train another model"
        )
    if not len(features):
        raise FeatureError(f"{utt_id}: no frames")
    with np.errstate(over="ignore"):  # values that are too large become infinite
        features = features.astype(np.float32, copy=False)
    if not np.isfinite(features).all():
        row = int(np.argwhere(~np.isfinite(features))[0][0])
        raise FeatureError(
            f"{utt_id}: frame {row} is not finite (NaN, infinite or too large for float32); "
            "compute these features again"
        )
    if cmvn is not None:
        features = cmvn.apply(features, norm_means=True, norm_vars=True)
    return np.ascontiguousarray(features)


# ---- statistics ----------------------------------------------------------------------------------


def own_statistics(features: np.ndarray) -> CmvnStats | None:
    """The statistics of one utterance; None for features that `normalise_features` refuses."""
    if features.ndim != 2 or not features.size or not np.isfinite(features).all():
        return None
    stats = CmvnStats.zeros(features.shape[1])
    stats.accumulate(features)
    return stats


def read_cmvn(path: Path | str, dim: int) -> CmvnStats:
    """Read global statistics of features with ``dim`` columns.

    Raises:
        FeatureError: the file holds no such statistics; it is named.
    """
    try:
        stats = CmvnStats(read_matrix(str(path)))
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error
    if stats.dim != dim:
        raise FeatureError(
            f"{path}: statistics of {stats.dim} columns, but the model reads {dim} features per "
            "frame; make them with compute_cmvn_stats.py from such features"
        )
    if stats.count < 1:
        raise FeatureError(f"{path}: statistics of {stats.count:g} frames; compute them again")
    return stats


def read_speaker_cmvn(data: DataDir, allow_pipes: bool = False) -> dict[str, CmvnStats]:
    """Read the statistics of each speaker from ``cmvn.scp``.

    Raises:
        FeatureError: an entry holds no statistics; the file and the speaker are named.
    """
    found = {}
    for speaker, rxfilename in data.cmvn_scp.items():
        try:
            found[speaker] = CmvnStats(read_matrix(rxfilename, allow_pipes=allow_pipes))
            if found[speaker].count < 1:
                raise FeatureError("the statistics have no frames; make them again")
        except FeatureError as error:
            raise FeatureError(f"{data.path}/cmvn.scp: {speaker}: {error}") from error
    return found


def speaker_cmvn(
    data: DataDir, utt_ids: Iterable[str], allow_pipes: bool = False
) -> dict[str, CmvnStats]:
    """Read the statistics for each utterance: those of its speaker in ``cmvn.scp``.

    Raises:
        DataDirError: a file is missing, an utterance has no speaker, or a speaker no statistics.
    """
    if not data.has("cmvn.scp"):
        raise DataDirError(
            f"{data.path}/cmvn.scp: no such file; make it with compute_cmvn_stats.py "
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
    """A function from an utterance id to the statistics that ``--cmvn`` and ``--utt2spk`` give.

    It raises DataError for an utterance without statistics.

    Args:
        cmvn: rspecifier of the statistics by speaker.
        utt2spk: rspecifier of each utterance's speaker; empty: ``cmvn`` is by utterance.
        model: the model directory that needs them, for error messages.
        allow_pipes: whether an scp file may name commands to run.

    Raises:
        UsageError: ``cmvn`` is empty.
        DataError: a table cannot be read.
    """
    if not cmvn:
        raise UsageError(
            f"{model} normalises features by speaker: give --cmvn=scp:DATA_DIR/cmvn.scp "
            "--utt2spk=ark:DATA_DIR/utt2spk"
        )
    stats = {key: CmvnStats(m) for key, m in MatrixReader(cmvn, allow_pipes=allow_pipes)}
    speaker_of = dict(TextReader(utt2spk)) if utt2spk else {u: u for u in stats}

    def find(utt_id: str) -> CmvnStats:
        if speaker_of.get(utt_id) not in stats:
            raise DataError(f"{utt_id}: no statistics of its speaker in {cmvn}")
        return stats[speaker_of[utt_id]]

    return find
