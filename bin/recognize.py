#!/usr/bin/env python3
"""Print the tokens that a model hears in recordings.

Usage: recognize.py [options] MODEL_DIR RECORDING…

e.g.: recognize.py exp/transducer a.wav b.flac

A model directory is enough: it holds the front end, the normalisation, the weights and the
tokens. WAV, FLAC, Ogg and NIST SPHERE are read, of one channel and the model's sample rate. Each
line of output is a file name, a tab and the tokens.

See also: decode_ctc.py, decode_transducer.py
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import Tally, options_from_fields, run
from pipeline.decoding.decode_options import SearchOptions
from pipeline.errors import DataError


def main(
    model_dir: Annotated[Path, Argument(help="directory of a CTC model or a transducer")],
    recordings: Annotated[list[str], Argument(metavar="RECORDING…", help="sound files")],
    options: SearchOptions,
    channel: Annotated[int, Option(help="of a recording with several; -1: only one allowed")] = -1,
    device: Annotated[str, Option(help="cpu, cuda or auto")] = "auto",
) -> int:
    from pipeline.decoding.recogniser import Recogniser
    from pipeline.models.device import choose_device
    from pipeline.models.model_dir import ModelDir

    directory = ModelDir.open(model_dir)
    recogniser = Recogniser(directory, choose_device(device), options)
    _ = recogniser.front_end  # a model without one cannot read recordings: say so once
    tally = Tally("recordings")
    for recording in recordings:
        try:
            best = recogniser.recognise_file(recording, channel=channel).hyps[0]
        except DataError as error:
            tally.fail(recording, str(error).removeprefix(f"{recording}: "))
            continue
        print(recording, recogniser.symbols(best), sep="\t", flush=True)
        tally.ok()
    return tally.finish()


if __name__ == "__main__":
    run(options_from_fields(main))
