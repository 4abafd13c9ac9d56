"""train_tokenizer.py: phones, a whole phone set, characters, subwords."""

from pathlib import Path

import pytest

from pipeline.text.tokens import Tokens

TEXT = "u1 b a\nu2\nu3 c a\n"
WORDS = "".join(f"u{n:02} the cat sat on the mat {n} times\n" for n in range(40))


def test_the_phones_of_a_text(run_bin, tmp_path: Path) -> None:
    path = tmp_path / "exp" / "tokens.txt"
    done = run_bin("train_tokenizer.py", "ark:-", path, stdin=TEXT.encode(), check=True)
    assert path.read_text() == "<blk> 0\na 1\nb 2\nc 3\n"
    assert done.stdout == b""
    assert done.stderr.decode().splitlines()[-1].endswith("Done 3 utterances, 0 failed")


@pytest.mark.parametrize(
    ("size", "symbols"), [(61, "ao b h# q"), (48, "ao b sil"), (39, "aa b sil")]
)
def test_a_phone_set_is_whole(run_bin, tmp_path: Path, size: int, symbols: str) -> None:
    (tmp_path / "map").write_text("ao ao aa\nb b b\nh# sil sil\nq\n")
    path = tmp_path / "tokens.txt"
    options = [f"--phone-map={tmp_path / 'map'}", f"--phone-set={size}"]
    run_bin("train_tokenizer.py", *options, "ark:-", path, stdin=b"u1 b\n", check=True)
    assert Tokens.from_file(path).symbols == ("<blk>", *symbols.split())
    done = run_bin("train_tokenizer.py", *options, "ark:-", path, stdin=b"u1 b xx\n")
    assert done.returncode == 1
    assert b'unknown phone "xx"' in done.stderr


def test_characters(run_bin, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    run_bin("train_tokenizer.py", "--kind=chars", "-", path, stdin="u1 né a\n".encode(), check=True)
    assert path.read_text(encoding="utf-8") == "<blk> 0\n<space> 1\na 2\nn 3\né 4\n"


def test_bigrams(run_bin, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    run_bin("train_tokenizer.py", "--kind=bigrams", "-", path, stdin=b"u1 abc ab\n", check=True)
    assert path.read_text() == "<blk> 0\n<space> 1\na 2\nab 3\nb 4\nc 5\n"


@pytest.mark.parametrize("kind", ["chars", "bigrams", "bpe", "unigram"])
def test_an_odd_character_is_named_with_its_place(run_bin, tmp_path: Path, kind: str) -> None:
    path, text = tmp_path / "tokens.txt", "u1 ab\nu2 ab a\ufffdb\n"
    done = run_bin("train_tokenizer.py", f"--kind={kind}", "ark:-", path, stdin=text.encode())
    assert done.returncode == 1
    assert "ark:-: u2: " in done.stderr.decode()
    assert "U+FFFD REPLACEMENT CHARACTER: a character was lost here" in done.stderr.decode()
    half = "u1 a\ud800b\n".encode("utf-8", "surrogatepass")
    done = run_bin("train_tokenizer.py", f"--kind={kind}", "ark:-", path, stdin=half)
    assert done.returncode == 1
    assert "UTF-8" in done.stderr.decode()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_subwords(run_bin, tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / name / "tokens.txt" for name in ("one", "two")]
    for path in paths:
        options = [f"--kind={kind}", "--vocab-size=26"]
        run_bin("train_tokenizer.py", *options, "ark:-", path, stdin=WORDS.encode(), check=True)
    assert len(Tokens.from_file(paths[0])) == 26
    for name in ("tokens.txt", "tokens.model"):
        assert len({(path.parent / name).read_bytes() for path in paths}) == 1


@pytest.mark.parametrize(
    ("options", "text", "code", "words"),
    [
        (["--kind=bpe", "--vocab-size=3000"], WORDS, 1, "too high"),
        (["--kind=letters"], TEXT, 2, "letters"),
        (["--kind=chars", "--phone-map=map"], TEXT, 2, "--kind=phones"),
        ([], "", 1, "empty"),
        (["--kind=bpe"], "u1\n", 1, "no words"),
    ],
)
def test_errors(
    run_bin, tmp_path: Path, options: list[str], text: str, code: int, words: str
) -> None:
    path = tmp_path / "tokens.txt"
    done = run_bin("train_tokenizer.py", *options, "ark:-", path, stdin=text.encode())
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
