"""Tokens: files, text to ids and back, subwords."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.errors import DataError, PhoneError
from pipeline.text.characters import _fault
from pipeline.text.subwords import train_sentencepiece
from pipeline.text.tokens import BLANK, SPACE, UNK, Tokens

WORDS = [f"the cat sat on the mat {number} times".split() for number in range(40)]


def test_the_blank_is_first_and_the_phones_are_sorted() -> None:
    tokens = Tokens.from_text([["t", "ax-h", "h#"], ["t", "aa"]])
    assert tokens.symbols == (BLANK, "aa", "ax-h", "h#", "t")
    assert len(tokens) == 5
    assert tokens.kind == "phones"
    assert tokens.encode(["h#", "t", "t"]) == [3, 4, 4]
    assert tokens.decode([3, 4, 4]) == ["h#", "t", "t"]
    assert "aa" in tokens
    assert "zh" not in tokens


def test_a_file_holds_symbol_and_number(tmp_path: Path) -> None:
    tokens = Tokens.from_text([["é", "b"]])
    path = tmp_path / "new" / "tokens.txt"
    tokens.save(path)
    assert path.read_text(encoding="utf-8") == "<blk> 0\nb 1\né 2\n"
    assert [p.name for p in path.parent.iterdir()] == ["tokens.txt"]
    assert Tokens.from_file(path) == tokens


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("", 1, "expected `symbol id`"),
        ("a 0\nb 1\n", 1, "expected `<blk> 0` in the first line"),
        ("<blk> 0\na 2\n", 2, "must be 1, not "),
        ("<blk> 0\na 1\nb 1\n", 3, "must be 2, not "),
        ("<blk> 0\na one\n", 2, "ids are whole numbers from 0 without a gap"),
        ("<blk> 0\na 01\n", 2, "must be 1, not "),
        ("<blk> 0\na\n", 2, "expected `symbol id`"),
        ("<blk> 0\n\na 1\n", 2, "expected `symbol id`"),
        ("<blk> 0\na 1\na 2\n", 3, '"a" occurs twice'),
        ("<blk> 0\na 1\n<blk> 2\n", 3, "twice"),
        ("<blk> 1\na 2\n", 1, "must be 0, not "),
        (b"<blk> 0\na 1\n\xff 2\n", 3, "UTF-8"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, line: int, words: str
) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        Tokens.from_file(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert words in str(error.value)


def test_a_file_that_is_absent_or_holds_the_blank_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokens\.txt: cannot read"):
        Tokens.from_file(tmp_path / "tokens.txt")
    (tmp_path / "tokens.txt").write_text("<blk> 0\n")
    with pytest.raises(DataError, match="no tokens except the blank"):
        Tokens.from_file(tmp_path / "tokens.txt")
    with pytest.raises(DataError, match="no tokens except the blank"):
        Tokens.from_text([])


@pytest.mark.parametrize("reserved", [BLANK, SPACE])
def test_a_text_does_not_hold_the_reserved_symbols(reserved: str) -> None:
    with pytest.raises(PhoneError, match=f'"{reserved}", which is not a phone'):
        Tokens.from_text([["a", reserved]])


def test_unknown_symbols_and_ids_are_errors() -> None:
    tokens = Tokens.from_text([["a", "b"]])
    with pytest.raises(PhoneError, match=r'^data/text:17: unknown phone "axr2": not in tok'):
        tokens.encode(["a", "axr2"], where="data/text:17")
    with pytest.raises(PhoneError, match=r'^unknown phone "<blk>"'):
        tokens.encode([BLANK])
    for wrong in (0, 3, -1):
        with pytest.raises(PhoneError, match=f"id {wrong} is not a token"):
            tokens.decode([1, wrong])


def test_equality_and_hash_follow_the_encoding() -> None:
    tokens = Tokens.from_text([["a", "b"]])
    assert tokens == Tokens([BLANK, "a", "b"], where="elsewhere")
    assert tokens.sha256 == Tokens([BLANK, "a", "b"]).sha256
    assert tokens != Tokens([BLANK, "b", "a"])
    assert hash(tokens) != hash(Tokens([BLANK, "ab"]))
    assert tokens != "tokens"


def test_symbols_without_a_space() -> None:
    for wrong in ("", "a b", "a\n"):
        with pytest.raises(DataError, match="empty or holds a space"):
            Tokens([BLANK, wrong])


def test_characters_spell_words() -> None:
    tokens = Tokens.from_characters([["it's", "a"], ["über"]])
    assert tokens.kind == "chars"
    assert tokens.symbols[:3] == (BLANK, SPACE, "'")
    ids = tokens.encode(["a", "rest"])
    assert [tokens.symbols[i] for i in ids] == ["a", SPACE, "r", "e", "s", "t"]
    assert tokens.decode(ids) == ["a", "rest"]
    assert tokens.decode([1, 1, *ids, 1]) == ["a", "rest"]
    with pytest.raises(PhoneError, match='unknown character "q"'):
        tokens.encode(["q"])


def test_bigrams_are_pairs_that_do_not_overlap(tmp_path: Path) -> None:
    tokens = Tokens.from_bigrams([["the", "cat", "sat"]])
    assert tokens.kind == "bigrams"
    assert set(tokens.symbols) == {BLANK, SPACE, *"theca s".replace(" ", ""), "th", "ca", "sa"}
    ids = tokens.encode(["the", "cat", "sat"])
    assert [tokens.symbols[i] for i in ids] == ["th", "e", SPACE, "ca", "t", SPACE, "sa", "t"]
    assert tokens.decode(ids) == ["the", "cat", "sat"]
    assert tokens.words(ids) == [("the", 0, 2), ("cat", 3, 5), ("sat", 6, 8)]
    unseen = tokens.encode(["hat"])  # a pair of known characters that is not a token
    assert [tokens.symbols[i] for i in unseen] == ["h", "a", "t"]
    assert tokens.decode(unseen) == ["hat"]
    with pytest.raises(PhoneError, match='unknown character "q"'):
        tokens.encode(["aq"])
    tokens.save(tmp_path / "tokens.txt")
    assert Tokens.from_file(tmp_path / "tokens.txt") == tokens
    assert Tokens.from_file(tmp_path / "tokens.txt").kind == "bigrams"


def test_tokens_of_neither_characters_nor_pairs() -> None:
    with pytest.raises(DataError, match='"abc" is neither a character nor a pair'):
        Tokens([BLANK, SPACE, "a", "abc"])
    assert Tokens([BLANK, SPACE, "a", "<sos/eos>"]).kind == "chars"
    with pytest.raises(DataError, match="no word has two characters; make chars"):
        Tokens.from_bigrams([["a", "b"]])


def test_scripts_without_blanks_have_no_words() -> None:
    """Chinese is spelt by its characters, also beside Roman letters, and joined without blanks."""
    tokens = Tokens.from_characters([["我们是学生"], ["卡拉OK"]])
    assert tokens.kind == "chars"
    assert not tokens.has_words
    ids = tokens.encode(["我是OK"])
    assert [tokens.symbols[i] for i in ids] == ["我", "是", "O", "K"]
    assert tokens.decode(ids) == ["我是OK"]
    assert Tokens.from_characters([["it's", "über"], ["привет"], ["हिन्दी"]]).has_words
    assert not Tokens.from_characters([["คำ"]]).has_words
    assert not Tokens.from_text([["a"]]).has_words


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("a\u0007b", "holds U+0007, which cannot be seen"),
        ("a\u200bb", "holds U+200B ZERO WIDTH SPACE, which cannot be seen; take it out"),
        ("\ufeffab", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("a\u00a0b", "U+00A0 NO-BREAK SPACE"),
        ("我\u3000们", "U+3000 IDEOGRAPHIC SPACE"),
        ("❤\ufe0f", "U+FE0F VARIATION SELECTOR-16, which cannot be seen"),
        ("a\ufffdb", "U+FFFD REPLACEMENT CHARACTER: a character was lost here"),
        ("a\ud800", "U+D800, half of a surrogate pair"),
        ("a\ue000", "U+E000, a private code"),
        ("a\u0378", "U+0378, a code without a character"),
        ("cafe\u0301", "is not in Unicode's normal form C; convert all texts"),
    ],
)
@pytest.mark.parametrize("make", [Tokens.from_characters, Tokens.from_bigrams])
def test_what_is_no_character_is_refused(make, word: str, what: str) -> None:
    with pytest.raises(PhoneError, match=re.escape(what)):
        make([["ab"], ["ab", word]], where="data/text")
    tokens = make([["ab"]], unk=True)
    with pytest.raises(PhoneError, match=r"^data/text: utt7: .*" + re.escape(what)):
        tokens.encode(["ab", word], where="data/text: utt7")


def test_what_can_be_seen_is_taken() -> None:
    """Scripts side by side, marks without a joint form, joiners, symbols, emoji."""
    words = ["我ok", "हिन्दी", "می\u200cخواهم", "90°", "❤", "😀", "—"]
    for tokens in (Tokens.from_characters([words]), Tokens.from_bigrams([words])):
        assert tokens.decode(tokens.encode(words)) == words
    assert "ह" in Tokens.from_characters([words])


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_subwords_come_back_from_disk_and_are_deterministic(tmp_path: Path, kind: str) -> None:
    tokens = train_sentencepiece(WORDS, kind=kind, vocab_size=26)
    again = train_sentencepiece(WORDS, kind=kind, vocab_size=26)
    assert tokens.sentencepiece_model == again.sentencepiece_model
    assert len(tokens) == 26
    assert tokens.kind == "subwords"
    assert tokens.symbols[0] == BLANK
    assert "<unk>" not in tokens
    tokens.save(tmp_path / "tokens.txt")
    read = Tokens.from_file(tmp_path / "tokens.txt")
    assert read == tokens
    for words in WORDS:
        ids = read.encode(words)
        assert 0 not in ids
        assert read.decode(ids) == words
    assert read.encode([]) == []
    with pytest.raises(PhoneError, match='unknown character "ß"'):
        read.encode(["maß"])


def test_subwords_that_cannot_be_learnt_are_errors() -> None:
    with pytest.raises(DataError, match="cannot learn 3000 bpe tokens: Vocabulary size too high"):
        train_sentencepiece(WORDS, kind="bpe", vocab_size=3000)
    with pytest.raises(DataError, match="no words"):
        train_sentencepiece([[]], kind="bpe", vocab_size=26)


def test_a_model_of_other_tokens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    train_sentencepiece(WORDS, kind="bpe", vocab_size=26).save(path)
    with pytest.raises(DataError, match=r"tokens\.model: .*remove it"):
        Tokens.from_text(WORDS).save(path)
    path.write_text("<blk> 0\na 1\n")
    with pytest.raises(DataError, match="not the pieces"):
        Tokens.from_file(path)
    path.with_suffix(".model").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="not a sentencepiece model"):
        Tokens.from_file(path)


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).map(
                lambda word: unicodedata.normalize("NFC", word)
            )
        )
    )
)
def test_what_is_encoded_is_decoded(text: list[list[str]]) -> None:
    assume(any(text) and not any({BLANK, SPACE} & set(sentence) for sentence in text))
    phones = Tokens.from_text(text)
    assert all(phones.decode(phones.encode(sentence)) == sentence for sentence in text)
    assume(not any(_fault(word) for sentence in text for word in sentence))
    spelt = [Tokens.from_characters(text)]
    if any(len(word) > 1 for sentence in text for word in sentence):
        spelt.append(Tokens.from_bigrams(text))
    for tokens in spelt:
        assert all(tokens.decode(tokens.encode(sentence)) == sentence for sentence in text)


SENTENCES = st.lists(
    st.lists(st.text("abcdeé▁<", min_size=1, max_size=5), min_size=1, max_size=6),
    min_size=1,
    max_size=5,
)


@given(SENTENCES)
def test_the_words_of_characters_are_those_of_the_text(text: list[list[str]]) -> None:
    tokens = Tokens.from_characters(text)
    for words in text:
        ids = tokens.encode(words)
        assert [word for word, _, _ in tokens.words(ids)] == tokens.decode(ids) == words
        assert [end - begin for _, begin, end in tokens.words(ids)] == list(map(len, words))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("unk", [False, True])
def test_the_words_of_subwords_are_those_of_the_text(kind: str, unk: bool) -> None:
    tokens = train_sentencepiece(WORDS, kind=kind, vocab_size=27, unk=unk)
    assert tokens.symbols[: 1 + unk] == (BLANK, UNK)[: 1 + unk]
    for words in WORDS:
        ids = tokens.encode(words)
        parts = tokens.words(ids)
        assert [word for word, _, _ in parts] == tokens.decode(ids) == list(words)
        assert parts[0][1] == 0
        assert parts[-1][2] == len(ids)


@given(SENTENCES, SENTENCES)
def test_unknown_symbols_are_listed_together(known: list, text: list) -> None:
    for tokens, symbols in (
        (Tokens.from_characters(known), [c for words in text for w in words for c in w]),
        (Tokens.from_text(known), [w for words in text for w in words]),
    ):
        unknown = Counter(s for s in symbols if s not in tokens)
        places = [(f"text:{n}", words) for n, words in enumerate(text, start=1)]
        if not unknown:
            tokens.encode_all(places)
            continue
        with pytest.raises(PhoneError, match=r"^text:\d+: unknown .* --unk ") as caught:
            tokens.encode_all(places)
        for symbol, count in unknown.items() if len(unknown) > 1 else ():
            assert f'"{symbol}" {count} (' in str(caught.value)


@given(SENTENCES, SENTENCES)
def test_unk_stands_for_every_unknown_symbol(known: list, text: list) -> None:
    for make in (Tokens.from_characters, Tokens.from_text):
        tokens, plain = make(known, unk=True), make(known)
        assert tokens.unk == 1
        assert plain.unk is None
        for words in text:
            ids = tokens.encode(words)
            symbols = words if tokens.kind == "phones" else " ".join(words)
            assert [i == tokens.unk for i in ids] == [s not in plain and s != " " for s in symbols]


def test_unk_of_subwords() -> None:
    tokens = train_sentencepiece(WORDS, kind="bpe", vocab_size=27, unk=True)
    ids = tokens.encode(["ß", WORDS[0][0]])
    assert ids.count(tokens.unk) == 1
    assert tokens.decode(ids) == [UNK, WORDS[0][0]]
    assert Tokens.from_text([["a"]]).encode(["a"]) == [1]


def test_another_spelling_of_a_token_is_explained() -> None:
    with pytest.raises(PhoneError, match=r"unknown phone .* is spelt in two ways"):
        Tokens(["<blk>", "\u00e9"]).encode(["e\u0301"])
