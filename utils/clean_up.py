#!/usr/bin/env python3
"""Remove what killed commands have left: temporary files and folders, and locks that nobody holds.

Usage: clean_up.py [options] FOLDER …

Each command removes what an earlier run of it has left, if it writes the same files again. This one
looks in all of FOLDER and below it. What is not complete yet has a name .NAME.tmp.HOST.PID.RANDOM
beside NAME. It is removed if it is of this machine and its process has ended. It is never removed
while that process runs or while any process, on this machine or another, has it locked, which file
systems without locks cannot tell. Of processes of other machines nothing is known here; what they
have left is removed once it has not changed for --other-hosts-after hours. Each path that is
removed is printed on standard output, and what is kept is reported in the log.

e.g.: clean_up.py --dry-run egs/timit/demo
e.g.: clean_up.py --other-hosts-after=2 exp data feats

See also: once.py, run.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pipeline.cli import log, run
from pipeline.errors import DataError, UsageError
from pipeline.leftovers import find_leftovers, remove


def main(
    folders: Annotated[list[Path], Argument(metavar="FOLDER …", help="folders to look through")],
    dry_run: Annotated[
        bool, Option("--dry-run/--no-dry-run", help="print what would be removed, remove nothing")
    ] = False,
    other_hosts_after: Annotated[
        float, Option(help="hours without a change after which another machine's files go")
    ] = 24.0,
) -> int:
    if not other_hosts_after >= 0:
        raise UsageError(f"--other-hosts-after must be 0 or more hours, not {other_hosts_after:g}")
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; name folders to clean up")
    removed = kept = failed = 0
    for folder in folders:
        leftovers = find_leftovers(folder, other_hosts_after_s=3600 * other_hosts_after)
        for path, reason in list(leftovers):
            if reason:
                log.info("kept %s: %s", path, reason)
                kept += 1
                continue
            try:
                if not dry_run:
                    remove(path)
            except OSError as error:
                log.warning("%s: cannot be removed: %s", path, error.strerror)
                failed += 1
                continue
            print(path)
            removed += 1
    what = "to remove" if dry_run else "removed"
    log.info("Done %d %s, %d kept, %d failed", removed, what, kept, failed)
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
