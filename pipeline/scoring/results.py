"""Reading the results of scoring and of training from disk.

This module is the only reader of these files::

    DECODE_DIR/scoring/score.json   `read_score`     all results of score.py
    DECODE_DIR/scoring/wer          `read_wer`       totals with the error kinds of compute-wer
    DECODE_DIR/speed.jsonl          `read_speed`     frames and seconds, one line per decoding job
    MODEL_DIR/metrics.jsonl         `read_metrics`   losses and error rates, one line per epoch
"""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, ModelError
from pipeline.files import file_digest
from pipeline.scoring.asynchronous import Asynchronous, asynchronous_of
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.kaldi_forms import wer_lines
from pipeline.scoring.summary import FORMAT_VERSION, Confusions, Groups
from pipeline.seals import Damaged, read_text, unsealed

UNNAMED = "error rate"  # the metric of an epoch without a name for it

_WER = re.compile(
    r"%\S+ \S+ \[ (?P<errors>\d+) / (?P<ref_tokens>\d+), "
    r"(?P<ins>\d+) ins, (?P<del_>\d+) del, (?P<sub>\d+) sub \].*\n"
    r"%SER \S+ \[ (?P<wrong_sentences>\d+) / (?P<sentences>\d+) \]"
)


# ---- a decode directory --------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedInterval:
    """The interval in which an error rate in percent lies with a probability of ``level``."""

    level: float
    low: float
    high: float
    replications: int


@dataclass(frozen=True)
class SavedRate:
    """A second error rate of the same hypotheses."""

    name: str
    total: ErrorCounts
    interval: SavedInterval | None


@dataclass(frozen=True)
class SavedScore:
    """The content of a ``score.json``.

    Attributes:
        name: the name of the error rate: PER, WER or CER.
        rule: the scoring rule in words.
        variants: the names of the departures from the default rule.
        mode: the treatment of missing utterances: strict, present or all; empty if it is not known.
        absent: number of references without a hypothesis.
        data_dir, decode_dir: the arguments of score.py.
        digests: SHA-256 of the references and of the hypotheses; None if they are not known.
        total: the error counts of all utterances, with the kinds of the alignments.
        interval: the interval of the error rate; None if it is not known.
        groups: grouping (speaker, gender, dialect …) -> group -> error counts.
        confusions: the counts of the distinct steps, the most frequent first.
        files: SHA-256 of other files of the folder that later commands read.
        beside: the error rate that score.py --with-cer counts too; None without it.
    """

    name: str
    rule: str
    variants: tuple[str, ...]
    mode: str
    absent: int
    data_dir: str
    decode_dir: str
    digests: tuple[str | None, str | None]
    total: ErrorCounts
    interval: SavedInterval | None
    groups: Groups
    confusions: Confusions
    files: Mapping[str, str]
    beside: "SavedRate | None" = None

    @property
    def note(self) -> str:
        """The variants in brackets, to be shown beside the error rate; empty without variants."""
        return f"[{', '.join(self.variants)}]" if self.variants else ""

    def line(self, counts: ErrorCounts) -> str:
        """The error rate as in the first line of compute-wer: ``%PER 28.09 [ 418 / 1488, … ]``.

        Args:
            counts: the result of `read_wer`.
        """
        return self._line(counts, self.name)

    def lines(self, counts: ErrorCounts) -> list[tuple[str, SavedInterval | None]]:
        """`line`, and the same of the error rate beside it, each with its interval."""
        found = [(self.line(counts), self.interval)]
        if self.beside:
            found.append((self._line(self.beside.total, self.beside.name), self.beside.interval))
        return found

    def _line(self, counts: ErrorCounts, name: str) -> str:
        note = f" {self.note}" if self.note else ""
        lines = wer_lines(counts, absent=self.absent, name=name, note=note)
        return lines.partition("\n")[0]


def score_file(decode_dir: Path) -> Path:
    """The path of the score of a decode directory."""
    return decode_dir / "scoring" / "score.json"


def read_score(decode_dir: Path) -> SavedScore:
    """Read the score of a decode directory.

    Raises:
        DataError: there is no score, it is damaged, or ``hyp.txt`` has changed since. Names the
            file and the command to run.
    """
    file, again = score_file(decode_dir), f"run score.py DATA_DIR {decode_dir}"
    try:
        data = unsealed(read_text(file), version=FORMAT_VERSION)
        if data["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file}: has format {data['format_version']}, but this program reads "
                f"{FORMAT_VERSION}; {again} again, with the score.py of this version"
            )
        score = _score(data)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; {again}") from error
    except (*FAULTS, IndexError) as error:
        raise DataError(f"{file}: cannot be used, {fault(error)}; {again} again") from error
    hyp, digest = decode_dir / "hyp.txt", score.digests[1]
    if digest is not None and hyp.is_file() and digest != file_digest(hyp):
        raise DataError(f"{file}: {hyp} has changed since it was scored; {again} again")
    return score


def _score(data: Mapping[str, Any]) -> SavedScore:
    def singles(name: str) -> list[tuple[str, int]]:
        return [(str(token), int(count)) for token, count in data[name]]

    def digest(name: str) -> str | None:
        return None if data.get(name) is None else str(data[name])

    return SavedScore(
        name=str(data["name"]),
        rule=str(data["rule"]),
        variants=tuple(str(name) for name in data.get("variants", [])),
        mode=str(data.get("mode", "")),
        absent=int(data.get("absent", 0)),
        data_dir=str(data["data_dir"]),
        decode_dir=str(data["decode_dir"]),
        digests=(digest("ref_digest"), digest("hyp_digest")),
        total=_counts(data["total"]),
        interval=_interval(data.get("interval")),
        groups={
            str(grouping): {str(key): _counts(counts) for key, counts in members.items()}
            for grouping, members in data.get("groups", {}).items()
        },
        confusions=Confusions(
            [(str(r), str(h), int(n)) for r, h, n in data["confusions"]],
            singles("insertions"),
            singles("deletions"),
            singles("correct"),
        ),
        files={str(name): str(value) for name, value in data.get("files", {}).items()},
        beside=_rate(data.get("beside")),
    )


def _rate(data: Mapping[str, Any] | None) -> SavedRate | None:
    if not data:
        return None
    return SavedRate(str(data["name"]), _counts(data["total"]), _interval(data["interval"]))


def _counts(data: Mapping[str, Any]) -> ErrorCounts:
    return ErrorCounts(
        ref_tokens=int(data["ref_tokens"]),
        ins=int(data["ins"]),
        del_=int(data["del"]),
        sub=int(data["sub"]),
        sentences=int(data["sentences"]),
        wrong_sentences=int(data["wrong_sentences"]),
    )


def _interval(data: Mapping[str, Any] | None) -> SavedInterval | None:
    if not data:
        return None
    low, high, level = (finite(data[name]) for name in ("low", "high", "level"))
    return SavedInterval(level, low, high, int(data["replications"]))


def scored_file(decode_dir: Path, name: str) -> Path:
    """The path of a file of ``scoring``, which must be of the same run as ``score.json``.

    While another process replaces the folder, this waits a moment.

    Raises:
        DataError: the file is not what score.py wrote. Names the file and the command to run.
    """
    file = decode_dir / "scoring" / name
    for _ in range(3):
        try:
            digest = read_score(decode_dir).files.get(name)
        except DataError:
            return file  # older, or made by other programs
        if digest is None or not file.exists() or digest == file_digest(file):
            return file
        time.sleep(0.1)
    raise DataError(
        f"{file}: damaged, its content is not what score.py wrote; run score.py DATA_DIR "
        f"{decode_dir} again"
    )


def read_wer(decode_dir: Path) -> ErrorCounts:
    """Read the totals in ``scoring/wer``.

    The number of errors is that of `SavedScore.total`, but they are divided into insertions,
    deletions and substitutions as by Kaldi's compute-wer, not as in the alignments.

    Raises:
        DataError: the file is missing or damaged. Names the file and the command to run.
    """
    file = decode_dir / "scoring" / "wer"
    try:
        found = _WER.match(file.read_text(encoding="utf-8"))
        if found is not None:
            found = _WER.match(scored_file(decode_dir, "wer").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        raise DataError(f"{file}: has no error rate; run score.py DATA_DIR {decode_dir} again")
    numbers = {name: int(text) for name, text in found.groupdict().items()}
    del numbers["errors"]  # the sum of three others
    return ErrorCounts(**numbers)


@dataclass(frozen=True)
class Speed:
    """The number of decoded frames, and the time in seconds of all jobs together."""

    frames: int
    seconds: float


def read_speed(decode_dir: Path) -> Speed:
    """Read the speed of a decoding.

    Raises:
        DataError: ``speed.jsonl`` is missing or damaged. Names the file and the command to run.
    """
    file = decode_dir / "speed.jsonl"
    try:
        rows = [unsealed(line) for line in read_text(file).splitlines()]
        frames, seconds = (sum(row[name] for row in rows) for name in ("frames", "seconds"))
        return Speed(int(frames), finite(seconds))
    except FAULTS as error:
        raise DataError(
            f"{file}: cannot be used, {fault(error)}; decode again with decode.sh"
        ) from error


# ---- a training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epoch:
    """A line of ``metrics.jsonl``."""

    number: int  # from 1
    train_loss: float  # in nats per token
    dev_loss: float  # in nats per token
    error_rate: float  # on the dev set, in percent
    metric: str  # the name of the error rate: PER, WER, CER or next-token error
    best: bool  # whether it is better than all epochs before
    others: Mapping[str, float] = field(default_factory=dict)  # more error rates, by their names
    seconds: float = 0.0  # that the epoch took
    asynchronous: Asynchronous | None = None  # of an asynchronous training

    @property
    def dev_bits(self) -> float:
        """The dev loss in bits per token."""
        return self.dev_loss / math.log(2.0)


def read_metrics(model_dir: Path) -> list[Epoch]:
    """Read the finished epochs of a training, in order; of an epoch that was repeated, the last.

    Raises:
        ModelError: no epoch has finished yet.
        DataError: the file is damaged. Names the line.
    """
    file = model_dir / "metrics.jsonl"
    try:
        lines = read_text(file).split("\n")
    except FileNotFoundError as error:
        raise ModelError(
            f"{file}: no such file; wait for the first epoch, or restore the file"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read, {fault(error)}; restore the file") from error
    epochs = {}
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        try:
            epoch = _epoch(unsealed(line))
        except FAULTS as error:
            raise DataError(
                f"{file}:{number}: not a line of train_*.py, {fault(error)}; "
                "remove it, or restore the file"
            ) from error
        epochs[epoch.number] = epoch
    if not epochs:
        raise ModelError(f"{file}: is empty; wait for the first epoch")
    return [epochs[number] for number in sorted(epochs)]


def _epoch(row: Mapping[str, Any]) -> Epoch:
    named = "dev_per" not in row  # older lines have no name of the metric
    asynchronous = row.get("asynchronous")
    return Epoch(
        int(row["epoch"]),
        float(row["train_loss"]),
        float(row["dev_loss"]),
        float(row["dev_error_rate" if named else "dev_per"]),
        str(row["metric"]) if named else UNNAMED,
        bool(row["best"]),
        {str(name): float(rate) for name, rate in row.get("dev_other_error_rates", {}).items()},
        float(row.get("seconds", 0.0)),
        None if asynchronous is None else asynchronous_of(asynchronous),
    )


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch with the weights that are kept; the last one if no epoch is marked as the best."""
    return ([epoch for epoch in epochs if epoch.best] or [*epochs])[-1]


# ---- errors --------------------------------------------------------------------------------------


FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError)


def finite(value: Any) -> float:
    """A number. Raises ValueError for NaN and infinity, TypeError for anything else."""
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value} is not finite")
    return number


def fault(error: Exception) -> str:
    """The reason why a JSON file cannot be used, in words."""
    match error:
        case OSError():
            return f"{error.strerror}"
        case json.JSONDecodeError():
            return "it is not JSON"
        case UnicodeDecodeError():
            return "it is not a UTF-8 text"
        case Damaged():
            return str(error)
        case KeyError():
            return f'it lacks "{error.args[0]}"'
        case _:
            return "a value is of the wrong type"
