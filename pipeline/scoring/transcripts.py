"""Texts to compare: read, folded, changed by the rule of a score, and paired by utterance."""

import contextlib
import gc
import logging
from collections.abc import Callable, Collection, Iterator, Sequence, Set

from pipeline.errors import DataError, TableError, UsageError
from pipeline.tables import TextReader

log = logging.getLogger("pipeline")

MODES = ("strict", "present", "all")

Pair = tuple[str, list[str], list[str]]
Fold = Callable[[list[str], str], list[str]]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking through millions of tokens for cycles, of which there are none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_transcripts(rspecifier: str, *, fold: Fold | None = None) -> dict[str, list[str]]:
    """The tokens of every utterance of a text table, in its order.

    Args:
        rspecifier: e.g. ``ark:data/test/text``; ``-`` is ``ark:-``.
        fold: is given the tokens and ``TABLE: utt_id``, for messages, and returns other tokens.

    Raises:
        TableError: a key is there twice.
    """
    rspecifier = "ark:-" if rspecifier == "-" else rspecifier
    transcripts: dict[str, list[str]] = {}
    same: dict[str, str] = {}  # one object for all that are equal saves most of the memory
    for key, text in TextReader(rspecifier):
        if key.startswith("\ufeff"):
            raise TableError(
                f"{rspecifier}: begins with a byte order mark; take it off with "
                "sed -i '1s/^\\xEF\\xBB\\xBF//'"
            )
        if key in transcripts:
            raise TableError(f"{rspecifier}: {key} is there twice; keep one of the lines")
        tokens = [same.setdefault(token, token) for token in text.split(" ")] if text else []
        transcripts[key] = fold(tokens, f"{rspecifier}: {key}") if fold else tokens
    return transcripts


def check_mode(mode: str) -> None:
    """Raise UsageError for a mode that there is not."""
    if mode not in MODES:
        raise UsageError(f"--mode is {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")


@uncollected()
def read_systems(
    ref_rspecifier: str,
    hyp_rspecifiers: Sequence[str],
    *,
    fold: Fold | None = None,
    mode: str = "strict",
) -> "Systems":
    """References and the hypotheses of one system or more, for the same utterances.

    Args:
        ref_rspecifier: what was said.
        hyp_rspecifiers: what each system recognised.
        fold: is put on both sides, see `read_transcripts`.
        mode: what to do about an utterance that not every table has: ``strict`` raises,
            ``present`` leaves it out, ``all`` takes an empty hypothesis for a missing one.

    Raises:
        UsageError: an unknown mode.
        DataError: under ``strict`` a reference without hypothesis or the other way round; a table
            without any utterance; nothing in common. Names the utterance.
    """
    check_mode(mode)
    refs = read_transcripts(ref_rspecifier, fold=fold)
    if not refs:
        raise DataError(f"{ref_rspecifier}: no utterances in it; give the references")
    absent: set[str] = set()
    hyps = []
    for rspecifier in hyp_rspecifiers:
        found = read_transcripts(rspecifier, fold=fold)
        if not found:
            raise DataError(f"{rspecifier}: no utterances in it; decode them first")
        missing = [key for key in refs if key not in found]
        if missing and mode == "strict":
            raise DataError(
                f"{rspecifier}: {missing[0]}: no hypothesis for this utterance"
                f"{_and_more(missing)}; decode it, or say --mode=present to leave such "
                "utterances out or --mode=all to count them as deletions"
            )
        _check_strays(rspecifier, found.keys() - refs.keys(), mode)
        absent.update(missing)
        hyps.append(found)
    scored = [key for key in refs if key not in absent or mode == "all"]
    if not scored:
        raise DataError(
            "no utterance was scored: the tables have no keys in common; "
            f"is {ref_rspecifier} the references of {hyp_rspecifiers[0]}?"
        )
    return Systems(refs, hyps, scored, absent=len(absent))


def _check_strays(rspecifier: str, strays: Set[str], mode: str) -> None:
    """Hypotheses for utterances that nobody knows."""
    if not strays:
        return
    what = f"{rspecifier}: {min(strays)}: no reference for this utterance{_and_more(strays)}"
    if mode == "strict":
        raise DataError(
            f"{what}; give the right references, or say --mode=present to score only those in both"
        )
    log.warning("%s; left out", what)


def _and_more(keys: Collection[str]) -> str:
    return f" (nor for {len(keys) - 1} others)" if len(keys) > 1 else ""


class Systems:
    """References and hypotheses of the same utterances.

    Attributes:
        utt_ids: the utterances that are scored, in the references' order.
        absent: how many references some system has no hypothesis for.
    """

    def __init__(
        self,
        refs: dict[str, list[str]],
        hyps: list[dict[str, list[str]]],
        utt_ids: list[str],
        *,
        absent: int = 0,
    ) -> None:
        self.refs, self.hyps, self.utt_ids, self.absent = refs, hyps, utt_ids, absent

    def pairs(self, system: int = 0) -> Iterator[Pair]:
        """(utt_id, reference, hypothesis) of one system."""
        hyps = self.hyps[system]
        for key in self.utt_ids:
            yield key, self.refs[key], hyps.get(key, [])
