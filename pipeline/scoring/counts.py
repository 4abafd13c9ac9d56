"""Error counts, which can be added up over utterances, speakers and test sets."""

from dataclasses import dataclass

from pipeline.errors import DataError


@dataclass(frozen=True)
class ErrorCounts:
    """The error counts of one or many utterances; ``+`` adds them.

    Attributes:
        ref_tokens: number of reference tokens.
        ins: insertions, tokens of the hypothesis that the reference lacks.
        del_: deletions, tokens of the reference that the hypothesis lacks.
        sub: substitutions, tokens that another one has replaced.
        sentences: number of scored utterances.
        wrong_sentences: number of scored utterances with an error.
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
        """The number of reference tokens that were recognised, or whose deletion is forgiven."""
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
        """Errors per reference token in percent, such as the WER of words or the PER of phones.

        Raises:
            DataError: there are no reference tokens.
        """
        if self.rate is None:
            raise DataError("the references hold no tokens, so there is no error rate; give others")
        return self.rate

    @property
    def sentence_error_rate(self) -> float:
        """Utterances with an error in percent of the scored utterances.

        Raises:
            DataError: no utterance was scored.
        """
        if self.sentence_rate is None:
            raise DataError("no utterance was scored; do the two tables have the same keys?")
        return self.sentence_rate

    def share(self, count: int) -> float:
        """``count`` in percent of the reference tokens; without any, 100, or 0 for a count of 0."""
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
