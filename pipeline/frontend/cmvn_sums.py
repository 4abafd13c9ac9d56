"""The sums of compute_cmvn_stats.py: of all utterances, of each, or of each speaker."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import FeatureError, TableError

if TYPE_CHECKING:
    from pipeline.frontend.cmvn import CmvnStats


class Counter(Protocol):
    """Counts successes and failures, such as ``pipeline.cli.Tally``."""

    def ok(self) -> None:
        """Count a success."""

    def fail(self, key: str, error: object) -> None:
        """Count a failure."""


def read_speakers(spk2utt: str) -> dict[str, str]:
    """The speaker of each utterance, in the order of the table ``spk2utt``, an rspecifier.

    Raises:
        TableError: an utterance occurs twice.
    """
    from pipeline.tables import TextReader

    speaker_of: dict[str, str] = {}
    for speaker, utterances in TextReader(spk2utt):
        for utt_id in utterances.split():
            if utt_id in speaker_of:
                raise TableError(f"{spk2utt}: {utt_id} occurs twice; keep it once")
            speaker_of[utt_id] = speaker
    return speaker_of


def sum_features(
    features: Iterable[tuple[str, Any]],
    speaker_of: dict[str, str] | None,
    tally: Counter,
    each: Any = None,
    weight_of: Any = None,
) -> "dict[str, CmvnStats]":
    """Statistics by speaker, or of all utterances under the name "".

    Args:
        features: (utterance, features (T, F)).
        speaker_of: the speaker of each utterance; others are left out. None: one sum of all.
        tally: counts successes and failures; an utterance that fails is left out.
        each: a writer to which the statistics of every utterance are written instead.
        weight_of: a table with the weights of the frames of each utterance, (T,); None: 1.
    """
    from pipeline.frontend.cmvn import CmvnStats

    sums: dict[str, CmvnStats] = {}
    missing = dict(speaker_of or {})
    dim = 0
    for utt_id, feats in features:
        group = "" if speaker_of is None else missing.pop(utt_id, None)
        if group is None:
            continue  # spk2utt does not have this utterance
        dim = dim or feats.shape[1]
        total = CmvnStats.zeros(dim) if each or group not in sums else sums[group]
        try:
            if weight_of is not None and utt_id not in weight_of:
                raise FeatureError("has no weights in --weights; add them, or leave it off")
            total.accumulate(feats, None if weight_of is None else weight_of[utt_id])
        except FeatureError as error:
            tally.fail(utt_id, error)
            continue
        if each:
            each.write(utt_id, total.matrix)
        else:
            sums[group] = total
        tally.ok()
    for utt_id in missing:
        tally.fail(utt_id, "is in spk2utt but has no features; compute them, or correct spk2utt")
    return sums
