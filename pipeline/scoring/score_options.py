"""The rule of a score: what is done to both texts before they are aligned, and how they are.

Without options it is Kaldi's of today: silence is scored like any phone, repeats are kept, what the
phone map drops (TIMIT's ``q``) is dropped. Every departure is a variant with a name, and the name
is printed with the number, since error rates under different rules cannot be compared.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.options import option
from pipeline.scoring.alignment import Rule, find_rule
from pipeline.scoring.transcripts import Fold
from pipeline.text.phones import Folds, fold_with, load_phone_map


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What both sides of a score are put through; each field is an option of the commands.

    Raises:
        UsageError: an unknown alignment, options that contradict each other or do nothing; from the
            methods also an unknown set of phones.
        PhoneError: from the methods: a wrong map.
    """

    map: str = option("", "phone map to fold both sides with")
    map_to: int = option(39, "set to fold to: 61, 48 or 39 phones")
    keep_q: bool = option(False, "variant: keep the phones that the map drops (q)")
    sil: str = option("sil", "the silence of the next three variants")
    collapse_sil: bool = option(False, "variant: one silence for several in a row, on both sides")
    sil_optional: bool = option(False, "variant: a silence that was not recognised is no error")
    drop_sil: bool = option(False, "variant: take silence out of both sides")
    collapse_repeats: bool = option(False, "variant: one token for equal ones in a row")
    ignore_case: bool = option(False, "variant: capital and small letters are the same")
    alignment: str = option("kaldi", "kaldi: costs 1, 1, 1 of sub, del, ins; nist: 4, 3, 3")

    def __post_init__(self) -> None:
        find_rule(self.alignment)
        if not self.map and (self.keep_q or self.map_to != 39):
            raise UsageError("--map-to and --keep-q say what a phone map does; give --map too")
        wants_sil = self.collapse_sil or self.sil_optional or self.drop_sil
        if wants_sil and self.sil.split() != [self.sil]:
            raise UsageError(f"--sil is one word, not {self.sil!r}")
        if self.drop_sil and (self.sil_optional or self.collapse_sil):
            raise UsageError("--drop-sil leaves no silence for --sil-optional or --collapse-sil")

    @property
    def _sil(self) -> str:
        """The silence as it stands in the texts that are compared."""
        return self.sil.casefold() if self.ignore_case else self.sil

    @property
    def variants(self) -> list[str]:
        """The names of what departs from the default rule."""
        names = ("keep_q", "collapse_sil", "sil_optional", "drop_sil", "collapse_repeats")
        found = [n.replace("_", "-") for n in (*names, "ignore_case") if getattr(self, n)]
        if self.map_to != 39:
            found.insert(0, f"map-to={self.map_to}")
        return found + ([f"alignment={self.alignment}"] if self.alignment != "kaldi" else [])

    @property
    def rule(self) -> Rule:
        """Costs and ties of the alignment."""
        return find_rule(self.alignment)

    @property
    def optional(self) -> frozenset[str]:
        """Tokens of a reference whose deletion is forgiven."""
        return frozenset([self._sil] if self.sil_optional else [])

    @cached_property
    def _folds(self) -> Folds | None:
        return load_phone_map(self.map).folds(to=self.map_to) if self.map else None

    def fold(self) -> Fold | None:
        """A ``fold`` for `read_transcripts`, or None where texts stay as they are."""
        folds = self._folds
        if folds is not None and self.keep_q:
            folds = {name: target or name for name, target in folds.items()}
        edits = self.collapse_sil or self.drop_sil or self.collapse_repeats or self.ignore_case
        if folds is None and not edits:
            return None

        def fold(tokens: list[str], where: str) -> list[str]:
            if folds is not None:
                tokens = fold_with(folds, tokens, where=where, map_path=self.map)
            return self._edited(tokens) if edits else tokens

        return fold

    def _edited(self, tokens: list[str]) -> list[str]:
        if self.ignore_case:
            tokens = [token.casefold() for token in tokens]
        if self.drop_sil:
            tokens = [token for token in tokens if token != self._sil]
        return [
            token
            for before, token in zip([None, *tokens], tokens, strict=False)
            if token != before or not self.joins(token)
        ]

    def joins(self, token: str) -> bool:
        """Whether several of this token in a row count once."""
        return self.collapse_repeats or (self.collapse_sil and token == self._sil)

    def describe(self) -> str:
        """The rule in a sentence."""
        if self._folds is None:
            text = "tokens as they stand"
        else:
            text = f"folded to {self.map_to} phones by {Path(self.map).name}"
            if dropped := sorted(name for name, target in self._folds.items() if target is None):
                text += f", {', '.join(dropped)} {'kept' if self.keep_q else 'dropped'}"
        if self.drop_sil:
            text += f"; {self.sil} taken out"
        elif self.collapse_sil:
            text += f"; {self.sil} in a row scored once"
        elif self._folds is not None or self.sil_optional:
            text += f"; {self.sil} scored"
        text += ", its deletion forgiven" if self.sil_optional else ""
        text += "; repeats collapsed" if self.collapse_repeats else "; repeats kept"
        text += "; capitals and small letters the same" if self.ignore_case else ""
        costs = f"{self.rule.sub}, {self.rule.del_}, {self.rule.ins}"
        return f"{text}; {self.rule.name} alignment, costs {costs} of sub, del, ins"


def bracket(options: ScoringOptions) -> str:
    """`` [variant, variant]`` for the line of an error rate; nothing under the default rule."""
    return f" [{', '.join(options.variants)}]" if options.variants else ""
