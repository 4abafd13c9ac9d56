"""MP3: where its frames are, so that a file that was cut is found and its length is known.

An MP3 file is a row of frames, each with a head of four bytes that gives its length (ISO/IEC
11172-3 and 13818-3, layer III). Before and after them may stand tags, with titles and pictures.
Encoders put a first frame without sound that states the number of frames, and how many samples they
have added at both ends, which decoders take off. Without such a frame the length is only an
estimate to libsndfile, from the size of the file; then one is put in here.
"""

from dataclasses import dataclass

from pipeline.errors import AudioError

_KBITS = {  # of MPEG-1, and of MPEG-2 and 2.5; in kbit/s, 0: free format
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)  # Hz, of MPEG-1
_HALVINGS = {0b11: 0, 0b10: 1, 0b00: 2}  # of the rates: MPEG-1, 2 and 2.5
_LAYER_3 = 0b01
_MONO = 0b11
_SIXTY_FOUR = {True: 5, False: 8}  # the places of 64 kbit/s among _KBITS
_LENGTHS = (b"Xing", b"Info", b"VBRI")  # how a frame begins that states the length


@dataclass(frozen=True)
class Frame:
    """The head of a frame.

    Attributes:
        size: the bytes of the frame.
        first: whether it is of MPEG-1, with 1152 samples, and not of MPEG-2 or 2.5, with 576.
        side: the bytes between the head and the sound.
    """

    size: int
    first: bool
    side: int


def read_head(head: bytes) -> Frame | None:
    """The frame that begins with ``head``; None if this is not the head of a frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    kbits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version not in _HALVINGS or layer != _LAYER_3 or kbits in (0, 15) or rate == 3:
        return None
    first, mono = version == 0b11, head[3] >> 6 == _MONO
    bits = _KBITS[first][kbits] * 1000
    size = (144 if first else 72) * bits // (_RATES[rate] >> _HALVINGS[version]) + padding
    return Frame(size, first, (17 if mono else 32) if first else (9 if mono else 17))


def check_mp3(data: bytes, name: str) -> bytes:
    """The frames of ``data`` with their number and without tags; what is not MP3 as it is.

    Raises:
        AudioError: the last frame or the tag before the first one is not whole, or something that
            is not MP3 stands between frames.
    """
    at = _after_tags(data)
    if at >= len(data):
        raise AudioError(f"{name}: truncated, only a tag and no sound; copy it again")
    start, count, last = at, 0, None
    while frame := read_head(data[at : at + 4]):
        at, count, last = at + frame.size, count + 1, frame
    if last is None:
        return data
    if at > len(data):
        raise AudioError(
            f"{name}: truncated, its last MP3 frame lacks {at - len(data)} of {last.size} bytes; "
            "copy it again"
        )
    if _frames_follow(data, at):
        raise AudioError(f"{name}: damaged, no MP3 after {at} bytes, but then again; copy it again")
    first = read_head(data[start : start + 4])
    assert first is not None
    frames = data[start:at]
    if any(frames[4 + n : 8 + n] in _LENGTHS for n in (first.side, 32)):
        return frames
    return _length_frame(frames[:4], first, count) + frames


def _after_tags(data: bytes) -> int:
    """Where the ID3v2 tags at the beginning end, which may be beyond the end of ``data``."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)
    return at


def _frames_follow(data: bytes, at: int) -> bool:
    """Whether two frames in a row stand somewhere after ``at``, which no tag would have."""
    while (at := data.find(b"\xff", at)) >= 0:
        frame = read_head(data[at : at + 4])
        if frame and read_head(data[at + frame.size : at + frame.size + 4]):
            return True
        at += 1
    return False


def _length_frame(head: bytes, first: Frame, count: int) -> bytes:
    """A frame of 64 kbit/s without sound that states the number of the others."""
    bits = bytearray(head)
    bits[1] |= 1  # without a checksum
    bits[2] = _SIXTY_FOUR[first.first] << 4 | bits[2] & 0b1100
    made = read_head(bytes(bits))
    assert made is not None
    body = bytes(bits) + bytes(made.side) + b"Info" + (1).to_bytes(4, "big")
    return (body + count.to_bytes(4, "big")).ljust(made.size, b"\0")
