#!/usr/bin/env python3
"""Convert spk2utt (lines SPK UTT UTT ...) to utt2spk (lines UTT SPK).

Usage: spk2utt_to_utt2spk.py [SPK2UTT] > UTT2SPK

Utterances keep their order. Without a file, standard input is read.

e.g.: spk2utt_to_utt2spk.py data/train/spk2utt > data/train/utt2spk

See also: utt2spk_to_spk2utt.py, fix_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument

from pipeline.cli import run
from pipeline.errors import DataDirError
from pipeline.plain_text import decode_text, fault_of_name, shown


def main(
    spk2utt: Annotated[
        str, Argument(metavar="[SPK2UTT]", help="table of speakers to read; - is stdin")
    ] = "-",
) -> int:
    table: dict[str, str] = {}
    source = "stdin" if spk2utt == "-" else spk2utt
    with open(0 if spk2utt == "-" else spk2utt, "rb") as stream:
        text = decode_text(stream.read(), source, DataDirError)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        spk_id, *utt_ids = line.split() or [""]
        where = f"{source}:{number}"
        if not utt_ids:
            what = f"expected SPK UTT ..., not {shown(line.strip())!r}; correct it"
            raise DataDirError(f"{where}: {what}")
        fault = next(filter(None, map(fault_of_name, [spk_id, *utt_ids])), "")
        if fault:
            raise DataDirError(f"{where}: {fault}")
        for utt_id in utt_ids:
            if utt_id in table:
                raise DataDirError(f'{where}: "{utt_id}" occurs twice; keep it once')
            table[utt_id] = spk_id
    if not table:
        raise DataDirError(f"{source}: is empty; give lines SPK UTT ...")
    for utt_id, spk_id in table.items():
        print(utt_id, spk_id)
    return 0


if __name__ == "__main__":
    run(main)
