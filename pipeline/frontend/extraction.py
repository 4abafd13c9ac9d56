"""A table of recordings to a table of features: the loop of the three programs that do it."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import DataError
from pipeline.frontend.audio import Recording
from pipeline.frontend.feature_options import FeatureOptions
from pipeline.options import option


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions:
    """What is read and written beside the features."""

    channel: int = option(-1, "-1: recordings must have one channel; 0: the left, 1: the right")
    min_duration: float = option(0.0, "leave out recordings shorter than this, in s")
    allow_pipes: bool = option(False, "run the commands of a wav.scp whose entries end in |")
    write_utt2dur: str = option("", "also write the durations in s to this wspecifier")
    write_num_frames: str = option("", "also write the counts of frames to this wspecifier")


class Counter(Protocol):
    """What ``extract`` reports to: ``pipeline.cli.Tally``."""

    def ok(self) -> None:
        """One utterance is done."""

    def fail(self, key: str, error: object) -> None:
        """One utterance failed."""

    def require_some(self) -> None:
        """Raise DataError if nothing was done."""


def extract(
    wavs: Iterable[tuple[str, Recording]],
    feats_wspecifier: str,
    options: FeatureOptions,
    extraction: ExtractionOptions,
    tally: Counter,
) -> int:
    """Write the features of each recording; one that fails is counted and the others go on.

    Returns:
        How many recordings ``min_duration`` left out.

    Raises:
        PipelineError: a whole table cannot be read or written.
    """
    from pipeline.frontend.spectra import compute_features
    from pipeline.tables import MatrixWriter, TextWriter

    left_out = 0
    with ExitStack() as stack:
        feats_writer = stack.enter_context(MatrixWriter(feats_wspecifier))
        durations, counts = (
            stack.enter_context(TextWriter(wspecifier)) if wspecifier else None
            for wspecifier in (extraction.write_utt2dur, extraction.write_num_frames)
        )
        rate = round(options.sample_frequency)
        for utt_id, recording in wavs:
            try:
                samples, _ = recording.read(sample_rate=rate, channel=extraction.channel)
                if len(samples) < extraction.min_duration * rate:
                    left_out += 1
                    continue
                feats = compute_features(samples, options)
            except DataError as error:
                tally.fail(utt_id, error)
                continue
            feats_writer.write(utt_id, feats)
            if durations:
                durations.write(utt_id, f"{len(samples) / rate:.7g}")
            if counts:
                counts.write(utt_id, str(len(feats)))
            tally.ok()
        tally.require_some()
    return left_out
