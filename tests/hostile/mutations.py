"""Ways in which a file goes bad: by a disk, an editor, a script, or somebody who means harm."""

import gzip
import random
import re
from collections.abc import Callable

Mutation = Callable[[random.Random, bytes], bytes]

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
NUMBERS = [
    *("nan", "inf", "-inf", "-1", "0", "1e309", "1e-320", "0x10", "²", "٣", "1_000", "+5", "-0"),
    *("99999999999", str(2**31), str(2**63), str(2**64), str(10**20), "9" * 400, "1e18", "", "."),
]
WORDS = [
    *(
        "\ufeffa",
        "a\u200bb",
        "a\u00a0b",
        "e\u0301",
        "é",
        "\x00",
        "\x1b[31m",
        "--help",
        "-",
        "/",
        "..",
    ),
    *(
        "../../x",
        "<blk>",
        "<script>",
        "a" * 100_000,
        "|",
        "cat x |",
        "$HOME",
        "`id`",
        "'",
        '"',
        "\\",
    ),
    *("\ud7ff", "\u202e", "\r", "#", ";;", "%", "{}", "[", "null", "true", "ark:-", "x.ark:5"),
]
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e[-+]?\d+)?")
WORD = re.compile(rb"[^\s]+")


def flip_bit(random: random.Random, data: bytes) -> bytes:
    """One bit is another."""
    if not data:
        return b"\x01"
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def flip_in_head(random: random.Random, data: bytes) -> bytes:
    """A byte of the first 64 is another."""
    at = random.randrange(min(64, len(data)) or 1)
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def truncate(random: random.Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: random.randrange(len(data) or 1)]


def remove_some(random: random.Random, data: bytes) -> bytes:
    """A piece is missing."""
    at = random.randrange(len(data) or 1)
    return data[:at] + data[at + random.randrange(1, 20) :]


def insert_noise(random: random.Random, data: bytes) -> bytes:
    """Random bytes stand between."""
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at:]


def repeat_some(random: random.Random, data: bytes) -> bytes:
    """A piece is there twice."""
    at = random.randrange(len(data) or 1)
    end = at + random.randrange(1, 200)
    return data[:end] + data[at:]


def zeros(random: random.Random, data: bytes) -> bytes:
    """A block is zeros, as a lost node leaves it."""
    at = random.randrange(len(data) or 1)
    return data[:at] + bytes(min(len(data) - at, 512)) + data[at + 512 :]


def huge_length(random: random.Random, data: bytes) -> bytes:
    """Four bytes of the head say a size that cannot be."""
    at = random.randrange(max(1, min(64, len(data) - 4)))
    size = random.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0, 0x00FFFFFF])
    return data[:at] + size.to_bytes(4, random.choice(["little", "big"])) + data[at + 4 :]


def other_content(random: random.Random, data: bytes) -> bytes:
    """It is another kind of file altogether."""
    return random.choice(
        [b"", PNG, gzip.compress(data), b"\x00" * 100, b"\xff\xfe" + data.decode("latin-1")
         .encode("utf-16-le"), b"hello\n", b"[" * 10_000, b'{"a":' * 10_000, b"a.b=" * 5000,
         b"RIFF", b"NIST_1A\n   1024\n", b"\n" * 1000, b" ", b"x" * 200_000]
    )  # fmt: skip


def line_ends(random: random.Random, data: bytes) -> bytes:
    """Another system's editor saved it."""
    return random.choice(
        [data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + data,
         data.rstrip(b"\n"), data + b"\n\n", b"\n" + data, data + b"\x1a"]
    )  # fmt: skip


def change_lines(random: random.Random, data: bytes) -> bytes:
    """A line is gone, twice there, or elsewhere."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    at = random.randrange(len(lines))
    what = random.randrange(4)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(at, lines[at])
    elif what == 2:
        random.shuffle(lines)
    else:
        lines[at] = lines[at].strip() + b" " + lines[random.randrange(len(lines))]
    return b"".join(lines)


def change_number(random: random.Random, data: bytes) -> bytes:
    """A number is one that nobody expects."""
    found = [*NUMBER.finditer(data)]
    if not found:
        return data + b" 1e309\n"
    match = random.choice(found)
    return data[: match.start()] + random.choice(NUMBERS).encode() + data[match.end() :]


def change_word(random: random.Random, data: bytes) -> bytes:
    """A word is another one, or is gone."""
    found = [*WORD.finditer(data)]
    word = random.choice(WORDS).encode("utf-8", "surrogatepass")
    if not found:
        return word
    match = random.choice(found)
    if random.randrange(6) == 0:
        word = b""
    if random.randrange(6) == 0:
        word = match[0] + word
    return data[: match.start()] + word + data[match.end() :]


BINARY: list[Mutation] = [
    *(flip_bit, flip_bit, flip_in_head, truncate, remove_some, insert_noise, repeat_some, zeros),
    *(huge_length, huge_length, other_content, change_number, change_word),
]
TEXT: list[Mutation] = [
    *(flip_bit, truncate, remove_some, insert_noise, repeat_some, zeros, other_content),
    *(line_ends, change_lines, change_number, change_number, change_word, change_word),
]


def mutated(seed: int, data: bytes, is_text: bool) -> tuple[str, bytes]:
    """The name of a mutation and what it makes of a file; never the same bytes."""
    source = random.Random(seed)
    while True:
        mutation = source.choice(TEXT if is_text else BINARY)
        changed = mutation(source, data)
        if changed != data:
            return mutation.__name__, changed
