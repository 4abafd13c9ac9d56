#!/usr/bin/env python3
"""Convert utt2spk (lines UTT SPK) to spk2utt (lines SPK UTT UTT ...).

Usage: utt2spk_to_spk2utt.py [UTT2SPK] > SPK2UTT

Speakers and their utterances keep the order of their first occurrence. Without a file, standard
input is read.

e.g.: utt2spk_to_spk2utt.py data/train/utt2spk > data/train/spk2utt

See also: spk2utt_to_utt2spk.py, fix_data_dir.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from typing import Annotated

from typer import Argument

from pipeline.cli import run
from pipeline.data.data_dir import invert
from pipeline.errors import DataDirError
from pipeline.plain_text import decode_text, fault_of_name, shown


def main(
    utt2spk: Annotated[
        str, Argument(metavar="[UTT2SPK]", help="table of utterances to read; - is stdin")
    ] = "-",
) -> int:
    table: dict[str, str] = {}
    source = "stdin" if utt2spk == "-" else utt2spk
    with open(0 if utt2spk == "-" else utt2spk, "rb") as stream:
        text = decode_text(stream.read(), source, DataDirError)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        fields = line.split()
        where = f"{source}:{number}"
        if len(fields) != 2:
            what = f"expected UTT SPK, not {shown(line.strip())!r}; correct it"
            raise DataDirError(f"{where}: {what}")
        fault = fault_of_name(fields[0]) or fault_of_name(fields[1])
        if fault:
            raise DataDirError(f"{where}: {fault}")
        if fields[0] in table:
            raise DataDirError(f'{where}: "{fields[0]}" occurs twice; keep one of the lines')
        table[fields[0]] = fields[1]
    if not table:
        raise DataDirError(f"{source}: is empty; give lines UTT SPK")
    for spk_id, utt_ids in invert(table).items():
        print(spk_id, *utt_ids)
    return 0


if __name__ == "__main__":
    run(main)
