"""The numbers that a scored decode directory and a training leave on disk, read back.

This module is the only reader of these files: whatever prints, draws or compares asks it::

    DECODE_DIR/scoring/score.json   `read_score`     all that score.py counted
    DECODE_DIR/scoring/wer          `read_wer`       the totals as Kaldi's compute-wer splits them
    DECODE_DIR/speed.jsonl          `read_speed`     frames and seconds, a line a decoding job
    MODEL_DIR/metrics.jsonl         `read_metrics`   losses and error rates, a line an epoch
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, ModelError
from pipeline.files import file_digest
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.kaldi_forms import wer_lines
from pipeline.scoring.summary import FORMAT_VERSION, Confusions, Groups

UNNAMED = "error rate"  # the metric of an epoch whose line does not name it

_WER = re.compile(
    r"%\S+ \S+ \[ (?P<errors>\d+) / (?P<ref_tokens>\d+), "
    r"(?P<ins>\d+) ins, (?P<del_>\d+) del, (?P<sub>\d+) sub \].*\n"
    r"%SER \S+ \[ (?P<wrong_sentences>\d+) / (?P<sentences>\d+) \]"
)


# ---- a decode directory --------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedInterval:
    """Where an error rate in percent lies with a probability of ``level``."""

    level: float
    low: float
    high: float
    replications: int


@dataclass(frozen=True)
class SavedScore:
    """A ``score.json``.

    Attributes:
        name: what the error rate is called: PER, WER, CER.
        rule: the scoring rule, a sentence.
        variants: names of what departs from the default rule.
        mode: what is done with utterances that one side lacks: strict, present or all; empty where
            the file does not say.
        absent: how many references have no hypothesis.
        data_dir, decode_dir: as they were given to score.py.
        digests: SHA-256 of the references and of the hypotheses; None where the file lacks them.
        total: all errors, by the kinds of the alignments.
        interval: of the error rate; None where the file lacks it.
        groups: speaker, gender, dialect … -> each one's errors.
        confusions: how often each kind of step was taken, the most frequent first.
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

    @property
    def note(self) -> str:
        """The variants in brackets, which must stand beside the number; empty without any."""
        return f"[{', '.join(self.variants)}]" if self.variants else ""

    def line(self, counts: ErrorCounts) -> str:
        """compute-wer's first line under the score's own name: ``%PER 28.09 [ 418 / 1488, … ]``.

        Args:
            counts: those of `read_wer`.
        """
        note = f" {self.note}" if self.note else ""
        lines = wer_lines(counts, absent=self.absent, name=self.name, note=note)
        return lines.partition("\n")[0]


def score_file(decode_dir: Path) -> Path:
    """Where the score of a decode directory is."""
    return decode_dir / "scoring" / "score.json"


def read_score(decode_dir: Path) -> SavedScore:
    """The score of a decode directory.

    Raises:
        DataError: there is none, it is damaged, or it is the score of other hypotheses than those
            in ``hyp.txt`` now. Names the file, and what to run.
    """
    file, again = score_file(decode_dir), f"run score.py DATA_DIR {decode_dir}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file}: format {data['format_version']}, but this program reads "
                f"{FORMAT_VERSION}; {again} again, by the score.py of this version"
            )
        score = _score(data)
    except FileNotFoundError as error:
        raise DataError(f"{file}: missing; {again}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{file}: cannot be used, {fault(error)}; {again} again") from error
    hyp, digest = decode_dir / "hyp.txt", score.digests[1]
    if digest is not None and hyp.is_file() and digest != file_digest(hyp):
        raise DataError(f"{file}: the score of other hypotheses than {hyp} has now; {again} again")
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
    )


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
    low, high, level = float(data["low"]), float(data["high"]), float(data["level"])
    return SavedInterval(level, low, high, int(data["replications"]))


def read_wer(decode_dir: Path) -> ErrorCounts:
    """The totals in ``scoring/wer``.

    There are as many errors as in `SavedScore.total`, but Kaldi's compute-wer, whose form the file
    has, splits them differently into insertions, deletions and substitutions than its alignments.

    Raises:
        DataError: the file is missing or damaged. Names it, and what to run.
    """
    file = decode_dir / "scoring" / "wer"
    try:
        found = _WER.match(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        raise DataError(f"{file}: no error rate; run score.py DATA_DIR {decode_dir} again")
    numbers = {name: int(text) for name, text in found.groupdict().items()}
    del numbers["errors"]  # the sum of three others
    return ErrorCounts(**numbers)


@dataclass(frozen=True)
class Speed:
    """How many frames were decoded, in how many seconds of all jobs together."""

    frames: int
    seconds: float


def read_speed(decode_dir: Path) -> Speed:
    """The speed of a decoding.

    Raises:
        DataError: ``speed.jsonl`` is missing or damaged. Names it, and what to run.
    """
    file = decode_dir / "speed.jsonl"
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        frames, seconds = (sum(row[name] for row in rows) for name in ("frames", "seconds"))
        return Speed(int(frames), float(seconds))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: cannot be used, {fault(error)}; decode again with decode.sh"
        ) from error


# ---- a training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Epoch:
    """A line of ``metrics.jsonl``."""

    number: int  # from 1
    train_loss: float  # nats a token
    dev_loss: float  # nats a token
    error_rate: float  # percent, of the dev set
    metric: str  # what the error rate is called: PER, WER, CER, next-token error
    best: bool  # better than all before

    @property
    def dev_bits(self) -> float:
        """The dev loss in bits a token."""
        return self.dev_loss / math.log(2.0)


def read_metrics(model_dir: Path) -> list[Epoch]:
    """The epochs of a training so far, in their order; of one that was done twice, the last.

    Raises:
        ModelError: no epoch has finished yet.
        DataError: the file is damaged. Names the line.
    """
    file = model_dir / "metrics.jsonl"
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise ModelError(f"{file}: missing; no epoch has finished yet, or put it back") from error
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from error
    epochs = {}
    for number, line in enumerate(lines, start=1):
        try:
            epoch = _epoch(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file}:{number}: no line of train_*.py ({fault(error)}); "
                "remove it, or put a copy back"
            ) from error
        epochs[epoch.number] = epoch
    if not epochs:
        raise ModelError(f"{file}: empty; no epoch has finished yet")
    return [epochs[number] for number in sorted(epochs)]


def _epoch(row: Mapping[str, Any]) -> Epoch:
    named = "dev_per" not in row  # as lines were written before metrics had names
    return Epoch(
        int(row["epoch"]),
        float(row["train_loss"]),
        float(row["dev_loss"]),
        float(row["dev_error_rate" if named else "dev_per"]),
        str(row["metric"]) if named else UNNAMED,
        bool(row["best"]),
    )


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights are kept; the last where none was better than the one before."""
    return ([epoch for epoch in epochs if epoch.best] or [*epochs])[-1]


# ---- errors --------------------------------------------------------------------------------------


def fault(error: Exception) -> str:
    """Why a file of JSON is of no use, in words."""
    match error:
        case OSError():
            return f"{error.strerror}"
        case json.JSONDecodeError():
            return "it is no JSON"
        case UnicodeDecodeError():
            return "it is no UTF-8 text"
        case KeyError():
            return f'it lacks "{error.args[0]}"'
        case _:
            return "something in it is of another kind"
