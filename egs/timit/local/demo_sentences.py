"""Sentences for the demo corpus, from a small grammar and a word list.

The sentences are grammatical nonsense. A seventh of the words of every class is reserved for the
speakers under TEST, so that dev and test have words that do not occur in training. A word may have
its pronunciation in phonemes of espeak-ng, such as ``rhythm=r'IDm-``, for phones that the American
English dictionary of espeak-ng never produces.
"""

import re
from dataclasses import dataclass

import numpy as np

HELD_OUT_EVERY = 7  # every seventh word of a class occurs only under TEST
_HELD_OUT_SHARE = 0.3  # share of such words in the sentences of TEST

_WORDS = {
    "det": "the the the a every my her his our their this that another",
    "plural_det": "the the some many these those all_of_the my our few most_of_the both",
    "adj": """bold quiet yellow thirsty gentle purple rusty enormous thin happy lazy clever
        curious royal noisy frozen golden hollow shallow polite ancient broken little foolish
        smooth rough bright dusty gray strange cheap loyal early wooden usual secret public
        tiny humble nervous serious modern narrow sudden hungry muddy precious crooked azure
        beige cool good wild loud funny whole busy worthy""",
    "noun": """bridge kitten=k'I?n- button=b'V?n- garden orange teacher judge pigeon mushroom
        cathedral jacket violin treasure boy garage ocean shoe thunder magazine mouse
        ladder jungle camera pillow machine hammer bottle village onion river doctor
        newspaper tiger voice kitchen wagon turtle feather lemon engine bicycle zipper
        fountain cousin sandwich puzzle blanket tower giraffe cabbage uncle monkey hour
        measure vision toy tooth bath hook cookie woman leather husband choice rouge cotton=k'0?n-
        bottom=b'0t#m- rhythm=r'IDm- prism=pr'IzIm- bacon=b'eIkN- organism='o@g@n,IzIm-
        washing=w'0SN- carriage squirrel""",
    "plural": """apples bridges horses shoes teachers children zebras cooks candles pigeons
        fishes books peaches watches mothers voices boys thieves clothes doves roofs
        ships wheels geese foxes brushes oceans ducks cakes chairs moths lights toys
        visions onions feathers engines""",
    "name": """Martha George Judith Alice Thomas Rachel Victor Susan Oliver Joyce Howard Edith
        Nathan Heather Zachary Beth Yolanda Phil Ruth Hugo Chuck Audrey Leroy Ethan""",
    "did": """enjoyed painted watched measured borrowed followed chose caught bought described
        polished opened carried answered destroyed ignored pushed guarded fixed shook
        believed collected noticed served wanted admired juggled weighed found changed
        thought_about looked_at taught heard covered remembered avoided cooked""",
    "do": """enjoy paint watch measure borrow follow choose catch buy describe polish open
        carry answer destroy ignore push guard fix shake believe collect remember avoid cook
        join teach""",
    "went": """laughed vanished waited slept jumped shouted arrived traveled sneezed whispered
        danced rested sang stood hurried moved argued cheered""",
    "how": """slowly quickly again quietly yesterday together badly outside early usually
        without_doubt at_once with_joy for_an_hour sooner_or_later in_anger twice""",
    "where": """under behind near above in beside on from across through around toward between
        beyond below""",
    "place": """garden river valley church cottage theater forest mountain harbor farm
        kitchen cave library museum roof island market castle street pool zoo school
        workshop beach""",
    "when": """in_the_evening last_Thursday this_morning after_lunch every_summer at_midnight
        long_ago in_January before_sunrise one_day now_and_then on_Tuesday""",
    "ask": "why_did when_did how_did where_did did",
    "link": "and but while because although so",
}

_TEMPLATES = (
    "{det} {adj} {noun} {did} {det} {noun} {where} the {place}",
    "{name} {did} {det} {adj} {noun} {how}",
    "{when}, {name} {went} {where} {det} {adj} {place}",
    "{ask} {name} {do} {det} {noun} {where} the {place}",
    "please {do} the {adj} {noun} and {do} {plural_det} {plural}",
    "{plural_det} {adj} {plural} {went} {how}, {link} {name} {did} the {noun}",
    "the {noun} was {adj}, but {plural_det} {plural} were {adj}",
    "don't {do} {det} {adj} {noun} {where} the {place}",
    "{name} and {name} {did} {plural_det} {adj} {plural}",
    "{plural} {went} {where} the {place} {link} the {adj} {noun} {went}",
    "her {noun} could {do} a {noun}, {link} you should {do} {plural_det} {plural}",
)

# Sentences of all speakers, as SA1 and SA2 of TIMIT; they contain most of the phones.
_SHARED = (
    "you thought your huge brown dog would choose an icy path up there",
    "enough of this noisy measure, joy takes her good azure jug from both cooks",
)

# The first sentence of each pool, so that even a small corpus has the rare phones: eng em en ax-h
# nx zh.
_RARE = (
    "our winner put a token=t'oUkN- on cotton=k'0?n- to keep a casual rhythm=r'IDm- of potatoes",
    "a banner with broken=br'oUkN- vision hid to catch a bottom=b'0t#m- or button=b'V?n- today",
)


@dataclass(frozen=True)
class Sentence:
    """A sentence: its words, and the text for espeak-ng.

    Attributes:
        name: the name, such as ``SA1``, ``SX12`` or ``SI460``.
        words: the words in order, with their case; the last one has the full stop.
        spoken: the text for espeak-ng, with pronunciations in ``[[ ]]``.
        starts: the first character of each word in ``spoken``.
    """

    name: str
    words: tuple[str, ...]
    spoken: str
    starts: tuple[int, ...]


def make_prompts(
    seed: int, num_train: int, num_test: int
) -> tuple[list[list[Sentence]], list[list[Sentence]]]:
    """The ten sentences of each speaker: 2 common ones, 5 shared with another speaker, 3 others.

    Args:
        seed: the seed of the random numbers.
        num_train, num_test: the numbers of speakers under TRAIN and under TEST.

    Returns:
        A list of ten sentences for each speaker, for TRAIN and for TEST.
    """
    rng = np.random.default_rng([seed, 1])
    used: set[str] = set()
    shared = [sentence(f"SA{i}", text) for i, text in enumerate(_SHARED, start=1)]
    prompts, next_si = [], 451
    for held_out, count, first_sx in ((False, num_train, 1), (True, num_test, 226)):
        pool = max(5, (5 * count + 1) // 2)
        texts = [_RARE[held_out], *(_new_text(rng, held_out, used) for _ in range(pool - 1))]
        group = []
        for speaker in range(count):
            picks = [(5 * speaker + k) % pool for k in range(5)]
            own = [_new_text(rng, held_out, used) for _ in range(3)]
            group.append(
                shared
                + [sentence(f"SX{first_sx + p}", texts[p]) for p in picks]
                + [sentence(f"SI{next_si + k}", text) for k, text in enumerate(own)]
            )
            next_si += 3
        prompts.append(group)
    return prompts[0], prompts[1]


def sentence(name: str, text: str) -> Sentence:
    """Make a sentence from a text in which words may have pronunciations."""
    words, pieces, starts, length = [], [], [], 0
    tokens = text.split()
    for index, token in enumerate(tokens):
        word, _, phonemes = token.partition("=")
        mark = re.search(r"[,]?$", phonemes or word).group()  # type: ignore[union-attr]
        phonemes = phonemes.rstrip(",")
        word = word.rstrip(",") + mark
        piece = f"[[{phonemes}]]{mark}" if phonemes else word
        if index == 0 and word[0].lower() in "aeio" and word != "one":
            piece = f"[[?]]{piece}"  # an utterance with an initial vowel starts with a glottal stop
        starts.append(length)
        pieces.append(piece)
        words.append(word)
        length += len(piece) + 1
    words[0] = words[0].capitalize()
    words[-1] += "."
    return Sentence(name, tuple(words), " ".join(pieces) + ".", tuple(starts))


def vocabulary(held_out: bool | None = None) -> set[str]:
    """The words of all classes: those reserved for TEST, the others, or, for None, all words."""
    words = set()
    for name in _WORDS:
        for index, entry in enumerate(_entries(name)):
            if held_out is None or _is_held_out(name, index) == held_out:
                words.update(token.partition("=")[0] for token in entry.split())
    return words


def _entries(name: str) -> list[str]:
    return [entry.replace("_", " ") for entry in _WORDS[name].split()]


def _is_held_out(name: str, index: int) -> bool:
    closed = name in ("det", "plural_det", "ask", "link")
    return not closed and index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def _new_text(rng: np.random.Generator, held_out: bool, used: set[str]) -> str:
    """A sentence that was not used before."""
    while True:
        template = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))]
        slots = re.findall(r"\{(\w+)\}", template)
        picks = [_pick(rng, slot, held_out) for slot in slots]
        text = re.sub(r"\{\w+\}", "%s", template) % tuple(picks)
        if len(set(picks)) == len(picks) and text not in used:
            used.add(text)
            return re.sub(r"\ba (?=[aeio]|hour|uncle)", "an ", text)


def _pick(rng: np.random.Generator, name: str, held_out: bool) -> str:
    entries = _entries(name)
    flags = [_is_held_out(name, index) for index in range(len(entries))]
    take = held_out and any(flags) and rng.random() < _HELD_OUT_SHARE
    choices = [entry for entry, flag in zip(entries, flags, strict=True) if flag == take]
    return choices[int(rng.integers(len(choices)))]
