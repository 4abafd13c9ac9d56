"""Edit distance where the kinds of errors do not matter: jiwer's, several times faster."""

from collections.abc import Hashable, Sequence


def edit_distance(ref: Sequence[Hashable], hyp: Sequence[Hashable]) -> int:
    """The least number of insertions, deletions and substitutions that make ``ref`` ``hyp``."""
    import jiwer

    as_words = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])
    # Numbers for tokens, since jiwer splits at blanks of every kind.
    sides = [" ".join(map(str, numbers)) for numbers in _numbered(ref, hyp)]
    found = jiwer.process_words(
        sides[0], sides[1], reference_transform=as_words, hypothesis_transform=as_words
    )
    return int(found.substitutions + found.deletions + found.insertions)


def agreements(ref: Sequence[Hashable], others: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """For each of ``others`` the places in ``ref`` that stand in it too, by a best alignment."""
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
    """The sequences with a number for each distinct token."""
    numbers: dict[Hashable, int] = {}
    return [[numbers.setdefault(token, len(numbers)) for token in s] for s in sequences]
