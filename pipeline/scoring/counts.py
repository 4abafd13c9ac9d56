"""Counts of errors, which add up from utterances to speakers and test sets."""

from dataclasses import dataclass

from pipeline.errors import DataError


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of one or many utterances; they add up with ``+``.

    Attributes:
        ref_tokens: length of the references.
        ins: tokens of the hypothesis that the reference lacks.
        del_: tokens of the reference that the hypothesis lacks.
        sub: tokens replaced by another.
        sentences: utterances scored.
        wrong_sentences: those of them with an error.
    """

    ref_tokens: int = 0
    ins: int = 0
    del_: int = 0
    sub: int = 0
    sentences: int = 0
    wrong_sentences: int = 0

    @property
    def errors(self) -> int:
        """Insertions, deletions and substitutions together."""
        return self.ins + self.del_ + self.sub

    @property
    def cor(self) -> int:
        """Tokens of the references that were recognised (or whose absence is forgiven)."""
        return self.ref_tokens - self.del_ - self.sub

    @property
    def rate(self) -> float | None:
        """`error_rate`, or None without reference tokens."""
        return 100.0 * self.errors / self.ref_tokens if self.ref_tokens else None

    @property
    def sentence_rate(self) -> float | None:
        """`sentence_error_rate`, or None without utterances."""
        return 100.0 * self.wrong_sentences / self.sentences if self.sentences else None

    @property
    def error_rate(self) -> float:
        """Errors a reference token, in percent: the WER, or the PER of phones.

        Raises:
            DataError: there is no reference token.
        """
        if self.rate is None:
            raise DataError(
                "the references hold no tokens, so there is no error rate; give the right text"
            )
        return self.rate

    @property
    def sentence_error_rate(self) -> float:
        """Utterances with an error, in percent of those scored.

        Raises:
            DataError: no utterance was scored.
        """
        if self.sentence_rate is None:
            raise DataError("no utterance was scored; are the keys of the two tables the same?")
        return self.sentence_rate

    def share(self, count: int) -> float:
        """``count`` in percent of the reference tokens; of none 0, or 100 if there is a count."""
        return 100.0 * count / self.ref_tokens if self.ref_tokens else 100.0 * (count > 0)

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.ref_tokens + other.ref_tokens,
            self.ins + other.ins,
            self.del_ + other.del_,
            self.sub + other.sub,
            self.sentences + other.sentences,
            self.wrong_sentences + other.wrong_sentences,
        )
