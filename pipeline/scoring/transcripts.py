"""Reading references and hypotheses, changing them by the scoring rule, and pairing them."""

import contextlib
import gc
import logging
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from itertools import chain, islice

from pipeline.errors import DataError, TableError, UsageError
from pipeline.plain_text import check_spellings, named, shown, unseen
from pipeline.tables import TextReader

log = logging.getLogger("pipeline")

MODES = ("strict", "present", "all")

Pair = tuple[str, list[str], list[str]]
Fold = Callable[[list[str], str], list[str]]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Switch off garbage collection, which would search millions of tokens for cycles in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_transcripts(
    rspecifier: str, *, fold: Fold | None = None, vocabulary: dict[str, str] | None = None
) -> dict[str, list[str]]:
    """The tokens of every utterance of a text table, in the order of the table.

    A warning names a token with a character that cannot be seen.

    Args:
        rspecifier: the table, such as ``ark:data/test/text``; ``-`` means ``ark:-``.
        fold: a function that changes the tokens of an utterance; its second argument is
            ``TABLE: utt_id``, for messages.
        vocabulary: the tokens of the tables that were read before, each under itself; those of this
            table are added. None: no other tables are compared with this one.

    Raises:
        TableError: a key occurs twice, or a token is spelt in two ways that Unicode counts as
            equal.
    """
    rspecifier = "ark:-" if rspecifier == "-" else rspecifier
    transcripts: dict[str, list[str]] = {}
    # Sharing one object among equal tokens saves most of the memory.
    same = {} if vocabulary is None else vocabulary
    before = len(same)
    for key, text in TextReader(rspecifier):
        if key in transcripts:
            raise TableError(f"{rspecifier}: {key} occurs twice; keep one of the lines")
        tokens = [same.setdefault(token, token) for token in text.split(" ")] if text else []
        transcripts[key] = fold(tokens, f"{rspecifier}: {key}") if fold else tokens
    check_spellings(same, rspecifier, TableError)
    for token in islice(same, before, None):
        if char := unseen(token, joiners=True):
            log.warning(
                '%s: the token "%s" holds %s, which cannot be seen; it counts as another token '
                "than the same without it",
                rspecifier, shown(token), named(char),
            )  # fmt: skip
    return transcripts


def check_mode(mode: str) -> None:
    """Raise UsageError for an unknown mode."""
    if mode not in MODES:
        raise UsageError(f"--mode must be {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")


@uncollected()
def read_systems(
    ref_rspecifier: str,
    hyp_rspecifiers: Sequence[str],
    *,
    fold: Fold | None = None,
    mode: str = "strict",
) -> "Systems":
    """Read references and the hypotheses of one system or several, for the same utterances.

    Args:
        ref_rspecifier: the references.
        hyp_rspecifiers: the hypotheses of each system.
        fold: a function that changes references and hypotheses, see `read_transcripts`.
        mode: the treatment of utterances that a table lacks: ``strict`` raises an error,
            ``present`` leaves them out, ``all`` takes a missing hypothesis as empty.

    Raises:
        UsageError: the mode is unknown.
        DataError: with ``strict``, a reference has no hypothesis or a hypothesis no reference; or a
            table is empty, or the tables have no utterance in common. Names the utterance.
    """
    check_mode(mode)
    vocabulary: dict[str, str] = {}
    refs = read_transcripts(ref_rspecifier, fold=fold, vocabulary=vocabulary)
    if not refs:
        raise DataError(f"{ref_rspecifier}: has no utterances; give the references")
    absent: set[str] = set()
    hyps = []
    for rspecifier in hyp_rspecifiers:
        found = read_transcripts(rspecifier, fold=fold, vocabulary=vocabulary)
        if not found:
            raise DataError(f"{rspecifier}: has no utterances; decode them first")
        where = f"{ref_rspecifier} and {rspecifier}"
        check_spellings(chain(refs, found), where, DataError, parts=False)
        missing = [key for key in refs if key not in found]
        if missing and mode == "strict":
            raise DataError(
                f"{rspecifier}: {missing[0]}: there is no hypothesis for this utterance"
                f"{_and_more(missing)}; decode it, or give --mode=present to leave out such "
                "utterances, or --mode=all to count their tokens as deletions"
            )
        _check_strays(rspecifier, found.keys() - refs.keys(), mode)
        absent.update(missing)
        hyps.append(found)
    scored = [key for key in refs if key not in absent or mode == "all"]
    if not scored:
        raise DataError(
            "no utterance was scored, because the tables have no keys in common; "
            f"does {ref_rspecifier} hold the references of {hyp_rspecifiers[0]}?"
        )
    if not any(refs[key] for key in scored):
        what = "the references hold no tokens, so there is no error rate"
        raise DataError(f"{ref_rspecifier}: {what}; give others")
    return Systems(refs, hyps, scored, absent=len(absent))


def _check_strays(rspecifier: str, strays: Set[str], mode: str) -> None:
    """Raise DataError, or log a warning, if there are hypotheses without a reference."""
    if not strays:
        return
    what = f"{rspecifier}: {min(strays)}: there is no reference for this utterance"
    what += _and_more(strays)
    if mode == "strict":
        raise DataError(
            f"{what}; give the right references, or give --mode=present to score only "
            "utterances that have both"
        )
    log.warning("%s; left out", what)


def _and_more(keys: Collection[str]) -> str:
    return f" (nor for {len(keys) - 1} others)" if len(keys) > 1 else ""


class Systems:
    """References and hypotheses of the same utterances.

    Attributes:
        utt_ids: the scored utterances, in the order of the references.
        absent: number of references for which a system has no hypothesis.
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
