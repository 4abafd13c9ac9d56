"""The loop of the programs that turn a table of recordings into a table of features."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import DataError
from pipeline.frontend.audio import Recording
from pipeline.frontend.feature_options import FeatureOptions
from pipeline.options import Options, option

ALLOW_EMPTY = "succeed if no utterance can be read (for parts of a table, with ,p)"


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(Options):
    """Options of reading a table of recordings."""

    channel: int = option(-1, "channel to read, from 0; -1: recordings must have only one", low=-1)
    allow_pipes: bool = option(False, "run the commands of scp entries that end in |")
    allow_empty: bool = option(False, ALLOW_EMPTY)


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(ReadingOptions):
    """Options of cutting recordings into utterances."""

    min_segment_length: float = option(0.1, "shortest segment to accept, in s", low=0)
    max_overshoot: float = option(
        0.5, "time that an end may exceed the recording's, in s", low=0, high=1e9
    )


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions(ReadingOptions):
    """Options of the extraction that are independent of the kind of features."""

    resample: bool = option(False, "resample recordings of another rate to --sample-frequency")
    min_duration: float = option(0.0, "shortest recording to accept, in s", low=0)
    write_utt2dur: str = option("", "wspecifier for the durations in s; empty: not written")
    write_num_frames: str = option("", "wspecifier for the lengths in frames; empty: not written")


class Counter(Protocol):
    """The counter that ``extract`` reports to, such as ``pipeline.cli.Tally``."""

    done: int

    def ok(self) -> None:
        """Count a success."""

    def fail(self, key: str, error: object) -> None:
        """Count a failure."""

    def require_some(self) -> None:
        """Raise DataError if nothing was done."""


def extract(
    wavs: Iterable[tuple[str, Recording]],
    feats_wspecifier: str,
    options: FeatureOptions,
    extraction: ExtractionOptions,
    tally: Counter,
) -> int:
    """Write the features of each recording; a failure is counted and does not stop the others.

    Args:
        wavs: (utterance, recording).
        feats_wspecifier: the table to write.
        options: how the features are computed.
        extraction: what else to read and write.
        tally: counts successes and failures.

    Returns:
        The number of recordings that are shorter than ``min_duration``.

    Raises:
        PipelineError: a table cannot be read or written.
    """
    from pipeline.frontend.resample import to_rate
    from pipeline.frontend.spectra import compute_features
    from pipeline.tables import MatrixWriter, NumberWriter

    left_out = 0
    with ExitStack() as stack:
        feats_writer = stack.enter_context(MatrixWriter(feats_wspecifier))
        durations, counts = (
            stack.enter_context(NumberWriter(wspecifier)) if wspecifier else None
            for wspecifier in (extraction.write_utt2dur, extraction.write_num_frames)
        )
        for utt_id, recording in wavs:
            try:
                samples, own_rate = recording.read(sample_rate=None, channel=extraction.channel)
                duration_s = len(samples) / own_rate
                samples = to_rate(
                    samples,
                    own_rate,
                    options,
                    resampled=extraction.resample,
                    name=recording.name,
                    whose="--sample-frequency is",
                    remedy="--resample, --allow-downsample or --allow-upsample",
                )
                if duration_s < extraction.min_duration:
                    left_out += 1
                    continue
                feats = compute_features(samples, options)
            except DataError as error:
                tally.fail(utt_id, error)
                continue
            feats_writer.write(utt_id, feats)
            if durations:
                durations.write(utt_id, f"{duration_s:.7g}")
            if counts:
                counts.write(utt_id, str(len(feats)))
            tally.ok()
        if left_out and tally.done == 0:
            raise DataError(
                f"--min-duration={extraction.min_duration:g} leaves out {left_out} recordings, and "
                "no others were read; give a smaller one"
            )
        tally.require_some()
    return left_out
