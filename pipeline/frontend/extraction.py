"""The loop of the programs that turn a table of recordings into a table of features."""

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
    """Options of the extraction that are independent of the kind of features."""

    channel: int = option(-1, "channel to read, from 0; -1: recordings must have only one")
    min_duration: float = option(0.0, "shortest recording to accept, in s")
    allow_pipes: bool = option(False, "run the commands of scp entries that end in |")
    write_utt2dur: str = option("", "wspecifier for the durations in s; empty: not written")
    write_num_frames: str = option("", "wspecifier for the lengths in frames; empty: not written")


class Counter(Protocol):
    """The counter that ``extract`` reports to, such as ``pipeline.cli.Tally``."""

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
    from pipeline.frontend.resampling import to_rate
    from pipeline.frontend.spectra import compute_features
    from pipeline.tables import MatrixWriter, NumberWriter

    left_out = 0
    with ExitStack() as stack:
        feats_writer = stack.enter_context(MatrixWriter(feats_wspecifier))
        durations, counts = (
            stack.enter_context(NumberWriter(wspecifier)) if wspecifier else None
            for wspecifier in (extraction.write_utt2dur, extraction.write_num_frames)
        )
        rate = round(options.sample_frequency)
        for utt_id, recording in wavs:
            try:
                any_rate = options.allow_downsample or options.allow_upsample
                samples, own_rate = recording.read(
                    sample_rate=None if any_rate else rate, channel=extraction.channel
                )
                duration_s = len(samples) / own_rate
                samples = to_rate(
                    samples,
                    own_rate,
                    rate,
                    down=options.allow_downsample,
                    up=options.allow_upsample,
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
        tally.require_some()
    return left_out
