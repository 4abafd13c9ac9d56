"""Checks of the headers of recordings, which find files that were cut and fill in unknown sizes.

A program that writes to a pipe cannot go back to the sizes at the head of the file, so it leaves
values there that no file has. Such a recording is read to its end; with any other size, a file that
is shorter than its header states is truncated.
"""

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from pipeline.errors import AudioError
from pipeline.frontend.mpeg import check_mp3

# What writers put for a size that they do not know; some round it down to whole frames, or leave
# room for the header. 0x7FFFF000: sox, espeak; 0x80000000: arecord; all bits: ffmpeg, 64-bit ones.
UNKNOWN_SIZES = (0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
HEADER_BYTES = (0, 8, 24, 36, 44)  # room for a header below the largest sizes
LARGEST = 1 << 32  # the size in bytes of the head of a file that 32 bits cannot state


def truncated(name: str, what: str) -> NoReturn:
    """Raise AudioError for a recording that is shorter than its header states."""
    raise AudioError(f"{name}: truncated, {what}; copy it again")


def check_container(data: bytes, name: str) -> tuple[bytes, int | None]:
    """Check the header of a recording, as far as its format is known here.

    Args:
        data: the recording.
        name: what messages call it.

    Returns:
        ``data``, with sizes filled in if they were not known when it was written; and the number
        of samples in a channel if the header of a SPHERE file states it.

    Raises:
        AudioError: the header is damaged, or states more audio than there is.
    """
    if not data:
        raise AudioError(f"{name}: empty file; record it again or leave it out")
    if data.startswith(b"NIST_1A"):
        return data, _check_sphere(data, name)
    if data.startswith(b"OggS"):
        _check_ogg(data, name)
    elif data[:4] in (b".snd", b"dns."):
        _check_au(data, name)
    elif data[:1] == b"\xff" or data.startswith(b"ID3"):
        return check_mp3(data, name), None
    for layout in LAYOUTS:
        if data.startswith(layout.magic) and data[8:12] in (layout.kinds or (data[8:12],)):
            return _check_chunks(data, name, layout), None
    return data, None


# ---- formats that consist of chunks --------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How a format of chunks is laid out; sizes are in bytes."""

    magic: bytes
    kinds: tuple[bytes, ...]  # what may stand at byte 8; empty: anything
    first: int  # where the first chunk begins
    audio: bytes  # the id of the chunk of audio
    order: Literal["little", "big"]
    id_bytes: int = 4
    size_bytes: int = 4
    pad: int = 2  # chunks begin at multiples of it
    inclusive: bool = False  # a size counts the head of its chunk, too
    total_at: int | None = 4  # where the size of the file is stated

    @property
    def head(self) -> int:
        """The size of the id and the size of a chunk."""
        return self.id_bytes + self.size_bytes


_W64_REST = bytes.fromhex("f3acd3118cd100c04f8edb8a")
LAYOUTS = (
    Layout(b"RIFF", (b"WAVE",), 12, b"data", "little"),
    Layout(b"RF64", (b"WAVE",), 12, b"data", "little"),
    Layout(b"RIFX", (b"WAVE",), 12, b"data", "big"),
    Layout(b"FORM", (b"AIFF", b"AIFC"), 12, b"SSND", "big"),
    Layout(b"caff", (), 8, b"data", "big", size_bytes=8, pad=1, total_at=None),
    Layout(
        b"riff" + bytes.fromhex("2e91cf11"), (), 40, b"data" + _W64_REST, "little",
        id_bytes=16, size_bytes=8, pad=8, inclusive=True, total_at=16,
    ),
)  # fmt: skip


def _check_chunks(data: bytes, name: str, layout: Layout) -> bytes:
    at, frame, long_sizes = layout.first, 1, 0
    while at + layout.head <= len(data):
        chunk, body = data[at : at + layout.id_bytes], at + layout.head
        size = int.from_bytes(data[at + layout.id_bytes : body], layout.order)
        size = max(0, size - layout.head) if layout.inclusive else size
        if chunk[:4] in (b"fmt ", b"COMM"):
            frame = _frame_bytes(data, body, chunk, layout)
        elif chunk == b"ds64":
            long_sizes = body
        elif chunk == layout.audio:
            if long_sizes and size == 0xFFFFFFFF:
                stated = int.from_bytes(data[long_sizes + 8 : long_sizes + 16], "little")
                return _check_audio(data, name, layout, body, stated, frame, long_sizes)
            return _check_audio(data, name, layout, body, size, frame)
        at = body + size
        at += -at % layout.pad
    truncated(name, "no audio follows its header")


def _frame_bytes(data: bytes, body: int, chunk: bytes, layout: Layout) -> int:
    """The bytes of a sample of all channels, from the chunk of the format; at least 1."""

    def field(at: int) -> int:
        return int.from_bytes(data[body + at : body + at + 2], layout.order)

    if chunk == b"COMM":
        return max(1, field(0) * ((field(6) + 7) // 8))
    return max(1, field(12))


def _check_audio(
    data: bytes, name: str, layout: Layout, body: int, size: int, frame: int, long_sizes: int = 0
) -> bytes:
    """``data`` with the size of its audio, which begins at ``body``; see `check_container`."""
    left = len(data) - body
    total, wide = 0, layout.size_bytes
    if layout.total_at is not None:
        at = long_sizes or layout.total_at
        wide = 8 if long_sizes else layout.size_bytes
        total = int.from_bytes(data[at : at + wide], layout.order)
    counted = 0 if layout.inclusive else 8  # what the size of the file leaves out
    none = size == 0 and layout.total_at is not None and total + counted != len(data)
    if not (none or _is_unknown(size, left, frame)):
        if size > left:
            truncated(name, f"{left} bytes of audio of the {size} in its header")
        return data
    if len(data) >= LARGEST and wide == 4:
        raise AudioError(f"{name}: has more than 4 GiB and no size in its header; cut it in parts")
    found = bytearray(data)
    whole = left + (layout.head if layout.inclusive else 0)
    if long_sizes:
        found[long_sizes : long_sizes + 8] = (len(data) - 8).to_bytes(8, "little")
        found[long_sizes + 8 : long_sizes + 16] = left.to_bytes(8, "little")
        found[long_sizes + 16 : long_sizes + 24] = (left // frame).to_bytes(8, "little")
        return bytes(found)
    found[body - wide : body] = whole.to_bytes(wide, layout.order)
    if layout.total_at is not None:
        stated = (len(data) - counted).to_bytes(wide, layout.order)
        found[layout.total_at : layout.total_at + wide] = stated
    return bytes(found)


def _is_unknown(size: int, left: int, frame: int) -> bool:
    """Whether a size that is larger than the ``left`` bytes stands for a size not known."""
    if size <= left:
        return False
    bases = {base - head for base in UNKNOWN_SIZES for head in HEADER_BYTES}
    return any(size in (base, base - base % frame) for base in bases)


# ---- other formats -------------------------------------------------------------------------------


def _check_au(data: bytes, name: str) -> None:
    order: Literal["little", "big"] = "big" if data[:1] == b"." else "little"
    start, size = (int.from_bytes(data[at : at + 4], order) for at in (4, 8))
    left = max(0, len(data) - start)
    if left < size and not _is_unknown(size, left, 1):
        truncated(name, f"{left} bytes of audio of the {size} in its header")


def _check_sphere(data: bytes, name: str) -> int | None:
    """Check a NIST SPHERE file; returns the sample_count of its header, or None if it has none."""
    size = data[8:16].strip()
    header = data[: int(size) if size.isdigit() else 0].decode("latin-1")
    if not re.search(r"^end_head\b", header, flags=re.MULTILINE):
        raise AudioError(f"{name}: the SPHERE header is incomplete; copy the file again")
    header_text = header.partition("\nend_head")[0]
    fields: dict[str, str] = {}
    lines = re.findall(r"^(\S+)[ \t]+-\w+[ \t]*(.*?)[ \t\r]*$", header_text, flags=re.MULTILINE)
    for key, value in lines:
        if fields.setdefault(key, value) != value:
            raise AudioError(f"{name}: the SPHERE header has two values of {key}; convert it again")
    coding = fields.get("sample_coding", "pcm")
    if "," in coding:  # e.g. pcm,embedded-shorten-v2.00
        raise AudioError(
            f"{name}: the SPHERE file is compressed with {coding.partition(',')[2]}; "
            "convert it first: sph2pipe -f wav IN OUT (sox cannot read it)"
        )
    bytes_each = _number(fields, "sample_n_bytes", name, 2, least=1)
    bytes_each *= _number(fields, "channel_count", name, 1, least=1)
    _number(fields, "sample_rate", name, 1, least=1)
    if "sample_count" not in fields:
        return None
    count = _number(fields, "sample_count", name, 0)
    present = len(data) - len(header)
    if present < count * bytes_each:
        truncated(name, f"{present} bytes of audio for {count} samples")
    return count


def _number(fields: dict[str, str], key: str, name: str, default: int, *, least: int = 0) -> int:
    """A field of a SPHERE header that is a whole number."""
    text = fields.get(key, str(default))
    match = re.fullmatch(r"([0-9]{1,18})(\.0*)?", text)
    if match is None or int(match[1]) < least:
        raise AudioError(
            f"{name}: the SPHERE header states {key} {text!r}, which must be a whole number, "
            f"{least} or more; correct it or convert the file again"
        )
    return int(match[1])


def _check_ogg(data: bytes, name: str) -> None:
    """Check that the last Ogg page is complete and marked as the end of the stream (RFC 3533)."""
    at, last = 0, False
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        segments = data[at + 26]
        last = bool(data[at + 5] & 4)
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    if at > len(data) or not last:
        truncated(name, "its last Ogg page is missing")
