"""Edit distance without the kinds of errors, computed by jiwer, which is several times faster."""

from collections.abc import Hashable, Sequence


def edit_distance(ref: Sequence[Hashable], hyp: Sequence[Hashable]) -> int:
    """The smallest number of insertions, deletions and substitutions from ``ref`` to ``hyp``."""
    import jiwer

    as_words = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])
    # Numbers stand for the tokens, since jiwer splits at all kinds of blanks.
    sides = [" ".join(map(str, numbers)) for numbers in _numbered(ref, hyp)]
    found = jiwer.process_words(
        sides[0], sides[1], reference_transform=as_words, hypothesis_transform=as_words
    )
    return int(found.substitutions + found.deletions + found.insertions)


def agreements(ref: Sequence[Hashable], others: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """For each of ``others``, the positions in ``ref`` that a best alignment pairs with an equal
    token."""
    import jiwer

    as_words = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])
    if not ref or not others:
        return [[] for _ in others]
    sides = [_numbered(ref, other) for other in others]
    found = jiwer.process_words(
        [" ".join(map(str, side[0])) for side in sides],
        [" ".join(map(str, side[1])) for side in sides],
        reference_transform=as_words,
        hypothesis_transform=as_words,
    )
    return [
        [
            place
            for chunk in chunks
            if chunk.type == "equal"
            for place in range(chunk.ref_start_idx, chunk.ref_end_idx)
        ]
        for chunks in found.alignments
    ]


def _numbered(*sequences: Sequence[Hashable]) -> list[list[int]]:
    """The sequences with a number in place of each distinct token."""
    numbers: dict[Hashable, int] = {}
    return [[numbers.setdefault(token, len(numbers)) for token in s] for s in sequences]
