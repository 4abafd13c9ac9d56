#!/usr/bin/env python3
"""Compute log power spectra of recordings; the first column is the log energy.

Usage: compute_spectrogram_feats.py [options] WAV_RSPECIFIER FEATS_WSPECIFIER

Recordings may be WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3 or NIST SPHERE files; no pipe is needed.
Where ffmpeg is installed, M4A, AAC, WMA, AMR and others are read, too. --resample=true resamples.
The options and their defaults are those of Kaldi's compute-spectrogram-feats, except that --dither
is 0.

e.g.: compute_spectrogram_feats.py scp:wav.scp ark,scp:spectrogram.ark,spectrogram.scp

See also: compute_fbank_feats.py, compute_mfcc_feats.py, add_deltas.py, compute_cmvn_stats.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, options_from_fields, progress, run
from pipeline.frontend.audio import WavReader
from pipeline.frontend.extraction import ExtractionOptions, extract
from pipeline.frontend.feature_options import SpectrogramOptions


@options_from_fields
def main(
    wav_rspecifier: Annotated[
        str,
        Argument(metavar="WAV_RSPECIFIER", help="recordings: scp: of files, ark: of RIFF data"),
    ],
    feats_wspecifier: Annotated[
        str, Argument(metavar="FEATS_WSPECIFIER", help="features to write")
    ],
    options: SpectrogramOptions,
    extraction: ExtractionOptions,
) -> int:
    """Write the features of each recording."""
    wavs = WavReader(wav_rspecifier, allow_pipes=extraction.allow_pipes)
    tally = Tally(
        permissive=wavs.permissive, allow_empty=extraction.allow_empty, source=wav_rspecifier
    )
    left_out = extract(progress(wavs), feats_wspecifier, options, extraction, tally)
    return tally.finish(f"{left_out} shorter than --min-duration" if left_out else "")


if __name__ == "__main__":
    run(main)
