#!/usr/bin/env python3
"""Copy the data directories of this recipe with words in place of phones as their text.

Usage: use_words.py DATA WORDS

e.g.: local/use_words.py data data_char

Each of train, dev and test of DATA, as far as it is there, is copied to WORDS without the parts of
split_data.py. text_words becomes text; the features and statistics are those of DATA.

See also: prepare_data.py, train_tokenizer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import shutil
from pathlib import Path
from typing import Annotated

from typer import Argument

from pipeline.cli import Tally, run
from pipeline.data.data_dir import read_map
from pipeline.errors import DataDirError
from pipeline.files import replaced_directory


def main(
    data: Annotated[Path, Argument(metavar="DATA", help="folder of data directories with phones")],
    words: Annotated[Path, Argument(metavar="WORDS", help="folder for those with words")],
) -> int:
    found = [data / name for name in ("train", "dev", "test") if (data / name).is_dir()]
    if not found:
        raise DataDirError(f"{data}: no data directories; run prepare_data.py")
    tally = Tally()
    for source in found:
        if not (source / "text_words").is_file():
            raise DataDirError(f"{source / 'text_words'}: no such file; run prepare_data.py again")
        tally.ok(len(read_map(source / "text_words")))
        with replaced_directory(words / source.name) as partial:
            for path in sorted(source.iterdir()):
                if path.is_dir() and path.name == "conf":
                    shutil.copytree(path, partial / path.name)
                elif path.is_file() and path.name not in ("text", "text_words"):
                    shutil.copyfile(path, partial / path.name)
            shutil.copyfile(source / "text_words", partial / "text")
    return tally.finish(f"in {words}")


if __name__ == "__main__":
    run(main)
