#!/usr/bin/env python3
"""Print the tokens that a model recognises in recordings.

Usage: recognize.py [options] MODEL_DIR RECORDING…

e.g.: recognize.py exp/transducer a.wav b.flac
      arecord -t raw -f S16_LE -r 16000 | recognize.py --stream --raw-rate=16000 exp/lstm -

MODEL_DIR holds all that is needed: the front end, the normalisation, the weights and the tokens.
Recordings may be WAV, FLAC, Ogg, MP3 or NIST SPHERE files, and where ffmpeg is installed whatever
it reads (M4A, AAC, WMA, AMR …). They must have one channel (or --channel) and the sample rate of
the model (or --resample). Each line of the output is a file name, a tab and the tokens.

With --stream recordings are read in chunks, and what is recognised so far is printed on standard
error; - is standard input, WAV or raw samples. The model must read forwards only. Ctrl-C ends the
recording, and prints its result.

See also: decode_ctc.py, decode_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import AnySearchOptions
from pipeline.decoding.stream_options import StreamOptions
from pipeline.errors import DataError


def main(
    model_dir: Annotated[
        Path,
        Argument(help="directory of a CTC model, a transducer or a frame-wise model"),
    ],
    recordings: Annotated[list[str], Argument(metavar="RECORDING…", help="audio files")],
    options: AnySearchOptions,
    streaming: StreamOptions,
    channel: Annotated[
        int, Option(min=-1, help="channel to read, from 0; -1: recordings must have only one")
    ] = -1,
    resample: Annotated[
        bool,
        Option("--resample/--no-resample", help="resample recordings of another rate"),
    ] = False,
    device: Annotated[str, Option(help="device to compute on: cpu, cuda or auto")] = "auto",
) -> int:
    from pipeline.decoding.recogniser import Recogniser
    from pipeline.decoding.stream_files import recognise_stream
    from pipeline.decoding.streaming import StreamingRecogniser
    from pipeline.models.device import choose_device
    from pipeline.models.model_dir import ModelDir

    directory = ModelDir.open(model_dir)
    kind = StreamingRecogniser if streaming.stream else Recogniser
    recogniser = kind(directory, choose_device(device), options)
    _ = recogniser.front_end  # a model without one cannot read recordings: fail at once
    tally, is_interrupted = Tally("recordings"), False
    reading = {"channel": channel, "resampled": resample}
    for recording in recordings:
        try:
            if streaming.stream:
                found, is_interrupted = recognise_stream(
                    recogniser, recording, streaming, **reading
                )
            else:
                found = recogniser.recognise_file(recording, **reading)
        except DataError as error:
            tally.fail(recording, str(error).removeprefix(f"{recording}: "))
            continue
        print(recording, recogniser.symbols(found.hyps[0]), sep="\t", flush=True)
        tally.ok()
        if is_interrupted:
            raise KeyboardInterrupt
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
