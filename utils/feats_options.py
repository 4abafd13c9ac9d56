#!/usr/bin/env python3
"""Sort the options of make_feats.sh: those that decide values, and those of reading recordings.

Usage: feats_options.py [options] CONF OUT_DIR

e.g.: feats_options.py --options="--low-freq=300 --channel=0" conf/fbank.conf feats/log/options

CONF is called fbank.conf, mfcc.conf or spectrogram.conf. --options are read as compute_*_feats.py
reads them: in any notation, with quotes as in a shell, --config=FILE among them; the last of
several wins. A folder in OUT_DIR gets conf/ with all options that decide values (a copy of CONF if
--options change none), frame_shift in s, and the other options as words that end in a NUL:
compute.words for compute_*_feats.py, and with --segments cut.words for extract_segments.py. The
name of the folder is printed. It is a digest of its content: other options, another folder.

See also: make_feats.sh, compute_fbank_feats.py, extract_segments.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import hashlib
import shlex
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from pipeline.cli import parse_options, run
from pipeline.errors import ConfigError, UsageError
from pipeline.files import replaced_directory
from pipeline.frontend.extraction import ExtractionOptions, ReadingOptions, SegmentOptions
from pipeline.frontend.feature_options import (
    DeltaOptions,
    FbankOptions,
    MfccOptions,
    SpectrogramOptions,
)
from pipeline.options import Options, flag, load_options, option

KINDS = {"fbank": FbankOptions, "mfcc": MfccOptions, "spectrogram": SpectrogramOptions}


@dataclass(frozen=True, kw_only=True)
class DeltaFileOptions(DeltaOptions):
    """What a file of add_deltas.py may hold."""

    allow_pipes: bool = option(False, "run the commands of scp entries")
    allow_empty: bool = option(False, "succeed if there are no features")


def main(
    conf: Annotated[Path, Argument(metavar="CONF", help="options of the features")],
    out_dir: Annotated[Path, Argument(metavar="OUT_DIR", help="folder to write")],
    options: Annotated[
        str, Option(help="more options, as in a shell, which win over CONF; empty: none")
    ] = "",
    delta_conf: Annotated[str, Option(help="options of add_deltas.py; empty: no deltas")] = "",
    segments: Annotated[
        bool, Option("--segments/--no-segments", help="recordings are cut by a file segments")
    ] = False,
) -> None:
    kind = KINDS.get(conf.stem) if conf.suffix == ".conf" else None
    if kind is None:
        names = "fbank.conf, mfcc.conf or spectrogram.conf"
        raise UsageError(f"--conf must be called {names}, not {conf}")
    try:
        typed = shlex.split(options)
    except ValueError as error:
        raise UsageError(f"--options: {error} in {options!r}; close it") from error
    bases = (kind, ExtractionOptions, SegmentOptions)
    everything = make_dataclass("everything", [], bases=bases, frozen=True, kw_only=True)
    program = f"compute_{conf.stem}_feats.py"
    found, standard = parse_options(everything, [f"--config={conf}", *typed], program)
    cutting = _words(found, SegmentOptions, but=ExtractionOptions)
    if not segments and cutting:
        raise UsageError(f"{cutting[0]}: applies only to a data directory with a file segments")
    files = {f"conf/{conf.name}": _file_of(_part(found, kind), conf)}
    if delta_conf:
        read, _ = parse_options(DeltaFileOptions, [f"--config={delta_conf}"], "add_deltas.py")
        files["conf/delta.conf"] = _file_of(_part(read, DeltaOptions), Path(delta_conf))
    files["frame_shift"] = f"{found.frame_shift / 1000:.6g}\n".encode()
    others = ReadingOptions if segments else None
    files["compute.words"] = _joined([*standard, *_words(found, ExtractionOptions, but=others)])
    if segments:
        files["cut.words"] = _joined([*standard, *_words(found, SegmentOptions)])
    print(_written(files, out_dir))


def _written(files: dict[str, bytes], out_dir: Path) -> str:
    """Write files into a folder of ``out_dir`` that is named by their content; returns its name."""
    content = b"".join(name.encode() + b"\0" + data + b"\0" for name, data in files.items())
    digest = hashlib.sha256(content).hexdigest()[:12]
    if not (out_dir / digest).exists():
        with replaced_directory(out_dir / digest) as folder:
            (folder / "conf").mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
    return digest


def _part(found: Any, kind: type[Options]) -> Options:
    return kind(**{field.name: getattr(found, field.name) for field in fields(kind)})


def _words(found: Any, kind: type[Options], but: type[Options] | None = None) -> list[str]:
    """The options of a kind, without those of another, as words of a command line."""
    left_out = {field.name for field in fields(but)} if but else set()
    return [
        f"{flag(field.name)}={_text(getattr(found, field.name))}"
        for field in fields(kind)
        if field.name not in left_out and getattr(found, field.name) != field.default
    ]


def _file_of(options: Options, path: Path) -> bytes:
    """An options file: ``path`` as it is if it says the same, otherwise one that names them all."""
    try:
        if load_options(type(options), path) == options:
            return path.read_bytes()
    except ConfigError:  # it holds options that decide no value, too
        pass
    lines = ["# All options that decide the values of these features; written by make_feats.sh."]
    for field in fields(options):
        lines.append(f"{flag(field.name)}={_text(getattr(options, field.name))}")
    return ("\n".join(lines) + "\n").encode()


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _joined(words: list[str]) -> bytes:
    return b"".join(word.encode(errors="surrogateescape") + b"\0" for word in words)


if __name__ == "__main__":
    run(main)
