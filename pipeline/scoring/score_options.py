"""The scoring rule: how both texts are changed before the alignment, and how they are aligned.

The default is the rule of Kaldi: silence is scored like any phone, repeated tokens are kept, and
phones that the phone map drops (TIMIT's ``q``) are dropped. Every departure from it is a variant
with a name, which is printed with the error rate, since error rates under different rules cannot be
compared.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.options import option
from pipeline.scoring.alignment import Rule, find_rule
from pipeline.scoring.transcripts import Fold
from pipeline.text.phones import Folds, fold_with, load_phone_map

MODE_HELP = "treatment of missing utterances: strict: an error; present: skipped; all: deletions"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """The scoring rule, which is applied to references and hypotheses alike.

    Each field is an option of the scoring commands.

    Raises:
        UsageError: the alignment is unknown, or options contradict each other or have no effect.
            The methods also raise it for an unknown set of phones.
        PhoneError: raised by the methods for a wrong phone map.
    """

    map: str = option("", "phone map for folding both texts; empty: no folding")
    map_to: int = option(39, "size of the phone set to fold to: 61, 48 or 39")
    keep_q: bool = option(False, "variant: keep phones that the phone map drops (q)")
    sil: str = option("sil", "symbol of the silence in the following three variants")
    collapse_sil: bool = option(False, "variant: count consecutive silences once")
    sil_optional: bool = option(False, "variant: forgive silences that were not recognised")
    drop_sil: bool = option(False, "variant: remove all silences")
    collapse_repeats: bool = option(False, "variant: count equal consecutive tokens once")
    ignore_case: bool = option(False, "variant: treat capital and small letters as equal")
    cer: bool = option(
        False, "count characters in place of words, without the blanks between words: %CER"
    )
    alignment: str = option(
        "kaldi", "costs of sub, del and ins in the alignment: kaldi: 1, 1, 1; nist: 4, 3, 3"
    )

    def __post_init__(self) -> None:
        find_rule(self.alignment)
        if not self.map and (self.keep_q or self.map_to != 39):
            raise UsageError("--map-to and --keep-q apply to a phone map; give --map, too")
        if self.map and self.cer:
            raise UsageError("--cer is for words, but --map for phones; leave one off")
        wants_sil = self.collapse_sil or self.sil_optional or self.drop_sil
        if wants_sil and self.sil.split() != [self.sil]:
            raise UsageError(f"--sil must be one word, not {self.sil!r}")
        if self.drop_sil and (self.sil_optional or self.collapse_sil):
            raise UsageError("--drop-sil leaves no silence for --sil-optional or --collapse-sil")

    @property
    def name(self) -> str:
        """The name of the error rate: PER with a phone map, CER of characters, otherwise WER."""
        return "CER" if self.cer else "PER" if self.map else "WER"

    @property
    def _sil(self) -> str:
        """The silence in the texts after the rule was applied."""
        return self.sil.casefold() if self.ignore_case else self.sil

    @property
    def variants(self) -> list[str]:
        """The names of the variants, i.e. of the departures from the default rule."""
        names = ("keep_q", "collapse_sil", "sil_optional", "drop_sil", "collapse_repeats")
        found = [n.replace("_", "-") for n in (*names, "ignore_case") if getattr(self, n)]
        if self.map_to != 39:
            found.insert(0, f"map-to={self.map_to}")
        return found + ([f"alignment={self.alignment}"] if self.alignment != "kaldi" else [])

    @property
    def rule(self) -> Rule:
        """The costs and preferences of the alignment."""
        return find_rule(self.alignment)

    @property
    def optional(self) -> frozenset[str]:
        """The reference tokens with a forgiven deletion."""
        return frozenset([self._sil] if self.sil_optional else [])

    @cached_property
    def _folds(self) -> Folds | None:
        return load_phone_map(self.map).folds(to=self.map_to) if self.map else None

    def fold(self) -> Fold | None:
        """The argument ``fold`` of `read_transcripts`; None if texts are not changed."""
        folds = self._folds
        if folds is not None and self.keep_q:
            folds = {name: target or name for name, target in folds.items()}
        edits = self.collapse_sil or self.drop_sil or self.collapse_repeats or self.ignore_case
        edits = edits or self.cer
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
        if self.cer:
            tokens = [char for token in tokens for char in token]
        return [
            token
            for before, token in zip([None, *tokens], tokens, strict=False)
            if token != before or not self.joins(token)
        ]

    def joins(self, token: str) -> bool:
        """Whether consecutive occurrences of this token count once."""
        return self.collapse_repeats or (self.collapse_sil and token == self._sil)

    def describe(self) -> str:
        """The rule in a sentence."""
        if self._folds is None:
            text = "characters of words, without blanks" if self.cer else "tokens as they stand"
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
    """`` [variant, variant]`` for the line of an error rate; empty under the default rule."""
    return f" [{', '.join(options.variants)}]" if options.variants else ""
