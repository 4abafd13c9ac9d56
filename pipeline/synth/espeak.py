"""Speech and phone times from the library of espeak-ng, through ctypes.

espeak-ng is free software under the GPL, version 3 or later. It comes as the optional package
``espeakng-loader`` and is loaded only in the processes that speak, one process for each speaker.
The library keeps a state between utterances that cannot be reset, so that only a new process
reproduces the same samples.
"""

import ctypes
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError

RATE = 22050  # sample rate of all voices of espeak-ng in Hz

_SYNCHRONOUS = 2
_PHONEME_EVENTS = 0x0001
_DONT_EXIT = 0x8000
_UTF8_AND_PHONEMES = 1 | 0x100  # [[...]] in a text encloses phoneme names
_WORD, _PHONEME = 1, 7
_WORDS_PER_MINUTE, _VOLUME, _EE_OK = 1, 2, 0
_VOLUME_BELOW_CLIPPING = 55
_POSITION_CHARACTER = 1


class _EventId(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),  # name of a phoneme; not terminated if it has 8 bytes
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Event:
    """A phoneme or the start of a word.

    Attributes:
        name: the name of the phoneme in espeak-ng, without stress marks; empty for a word.
        stress: 2 for primary stress, 1 for secondary stress, 0 for none.
        sample: the first sample, at 22050 Hz.
        position: the first character of the word in the text, from 0; -1 for a phoneme.
    """

    name: str
    stress: int
    sample: int
    position: int = -1


class EspeakMissingError(DataError):
    """espeak-ng is not installed, or its library cannot be loaded."""

    def __init__(self, cause: object) -> None:
        super().__init__(
            f"espeak-ng, which speaks the demo corpus, cannot be used ({cause}); "
            "install it with: pip install 'espeakng-loader>=0.2.4' (the extra `synth`; "
            "on Linux it needs GLIBC 2.29 or later)"
        )


def library_and_data() -> tuple[str, Path]:
    """The paths of the shared library and of the data directory of espeak-ng.

    Raises:
        EspeakMissingError: the package is not installed or is incomplete.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise EspeakMissingError(error) from error
    library = str(espeakng_loader.get_library_path())
    data = Path(espeakng_loader.get_data_path())
    if not (data / "phontab").is_file():
        raise EspeakMissingError(f"{data}: has no phoneme data")
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise EspeakMissingError(error) from error
    return library, data


class Speaker:
    """One voice, in a process that has not spoken before.

    Args:
        language: a voice of espeak-ng, such as ``en-us`` or ``cmn``.
        voice_file: the text of a voice variant of espeak-ng, with pitch, formant scales etc.
        words_per_minute: the speaking rate.
    """

    def __init__(self, language: str, voice_file: str, *, words_per_minute: int) -> None:
        library, data = library_and_data()
        self._directory = tempfile.TemporaryDirectory(prefix="demo_voice_")
        home = _private_data(data, Path(self._directory.name), voice_file)
        self._library = ctypes.CDLL(library)
        flags = _PHONEME_EVENTS | _DONT_EXIT
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 200, str(home).encode(), flags)
        if rate != RATE:
            raise EspeakMissingError(f"espeak_Initialize gave {rate}, not {RATE} Hz")
        if self._library.espeak_SetVoiceByName(f"{language}+demo".encode()) != _EE_OK:
            raise EspeakMissingError(f"the voice {language} is not in its data")
        self._library.espeak_SetParameter(_VOLUME, _VOLUME_BELOW_CLIPPING, 0)
        self._library.espeak_SetParameter(_WORDS_PER_MINUTE, words_per_minute, 0)
        self._chunks: list[np.ndarray] = []
        self._events: list[Event] = []
        self._callback = _CALLBACK(self._receive)  # kept, because the library has only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str) -> tuple[np.ndarray, list[Event]]:
        """Speak a text; returns float64 samples in [-1, 1) and the events in order of time."""
        self._chunks, self._events = [], []
        data = text.encode()
        status = self._library.espeak_Synth(
            data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _UTF8_AND_PHONEMES, None, None
        )
        if status != _EE_OK:
            raise DataError(f"espeak-ng cannot speak {text!r} (status {status})")
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return samples / 32768.0, self._events

    def close(self) -> None:
        """Remove the private voice data."""
        self._directory.cleanup()

    def _receive(self, wav: Any, count: int, events: Any) -> int:
        if wav and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (count,)).copy())
        index = 0
        while events[index].type != 0:
            self._record(events[index])
            index += 1
        return 0

    def _record(self, event: _Event) -> None:
        if event.type == _WORD:
            self._events.append(Event("", 0, event.sample, event.text_position - 1))
        elif event.type == _PHONEME:
            address = ctypes.addressof(event) + _Event.id.offset
            raw = ctypes.string_at(address, 8).split(b"\0")[0].decode()
            stress = 2 if raw.startswith("'") else 1 if raw.startswith(",") else 0
            self._events.append(Event(raw.lstrip("',%="), stress, event.sample))


def _private_data(data: Path, directory: Path, voice_file: str) -> Path:
    """Make a data directory with the data of the package and one more voice variant, `demo`."""
    home = directory / "espeak-ng-data"
    (home / "voices" / "!v").mkdir(parents=True)
    for entry in data.iterdir():
        if entry.name != "voices":
            (home / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    (home / "voices" / "!v" / "demo").write_text(voice_file, encoding="utf-8")
    return home
