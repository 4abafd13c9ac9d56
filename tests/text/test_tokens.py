"""Tokens: files, text to ids and back, subwords."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.errors import DataError, PhoneError
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
            st.text(st.characters(exclude_categories=["C"], exclude_characters=" "), min_size=1)
        )
    )
)
def test_what_is_encoded_is_decoded(text: list[list[str]]) -> None:
    assume(any(text) and not any({BLANK, SPACE} & set(sentence) for sentence in text))
    phones, chars = Tokens.from_text(text), Tokens.from_characters(text)
    for sentence in text:
        assert phones.decode(phones.encode(sentence)) == sentence
        assert chars.decode(chars.encode(sentence)) == sentence


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
