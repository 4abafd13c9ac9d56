"""Recordings as data URIs, small enough for a page."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.data_dir import DataDir
from pipeline.data.file_kinds import TO_END
from pipeline.errors import DataError, PipelineError
from pipeline.frontend.audio import read_audio, wave_bytes
from pipeline.report.scores import Decoding

if TYPE_CHECKING:
    from pipeline.frontend.audio import Samples

LIMIT_BYTES = 4 << 20  # of all recordings of a page together
Key = tuple[str, str]  # set, utterance


@dataclass(frozen=True)
class Player:
    """A recording to listen to."""

    uri: str
    duration_s: float


def make_players(
    wanted: Iterable[tuple[Decoding, str]], *, limit_bytes: int = LIMIT_BYTES
) -> tuple[dict[Key, Player], list[str]]:
    """The recordings of utterances, as far as they are found and there is room.

    Args:
        wanted: (a decoding of the set, utterance), the most wanted first.
        limit_bytes: for all data URIs together.

    Returns:
        (set, utterance) -> player; and a sentence for each set some of whose are not there.
    """
    players: dict[Key, Player] = {}
    missing: dict[str, str] = {}
    shelf = _Shelf()
    used = 0
    for decoding, utt_id in wanted:
        key = decoding.set_name, utt_id
        if key in players:
            continue
        try:
            samples, rate = shelf.samples(decoding, utt_id)
        except PipelineError as error:
            missing.setdefault(
                decoding.set_name, f"Some recordings of {decoding.set_name} are not here: {error}."
            )
            continue
        player = Player(_wave_uri(samples, rate), len(samples) / rate)
        if used + len(player.uri) > limit_bytes:
            missing["limit"] = f"Recordings beyond {limit_bytes / (1 << 20):.3g} MB are left out."
            continue
        used += len(player.uri)
        players[key] = player
    return players, list(missing.values())


def _wave_uri(samples: "Samples", rate: int) -> str:
    """16-bit WAV: every browser plays it, and the same samples give the same bytes."""
    text = base64.b64encode(wave_bytes(samples, rate)).decode("ascii")
    return f"data:audio/wav;base64,{text}"


class _Shelf:
    """The data directories, each read once."""

    def __init__(self) -> None:
        self._open: dict[Path, DataDir] = {}

    def samples(self, decoding: Decoding, utt_id: str) -> "tuple[Samples, int]":
        """The samples of an utterance, (S,), and their rate in Hz.

        A segment is cut out of its recording. Commands in wav.scp are not run.

        Raises:
            DataError: the data directory or the recording is not there or cannot be read.
        """
        path = decoding.data_dir
        if path is None:
            raise DataError("the data directory is not found from this folder")
        data = self._open.setdefault(path, DataDir(path))
        segment = data.segments.get(utt_id) if data.has("segments") else None
        recording = segment.reco_id if segment else utt_id
        if recording not in data.wav_scp:
            raise DataError(f"{path}/wav.scp has no {recording}")
        file = _reachable(data.wav_scp[recording], decoding.root)
        samples, rate = read_audio(file, sample_rate=None)
        if segment:
            end = None if segment.end_s == TO_END else round(segment.end_s * rate)
            samples = samples[round(segment.start_s * rate) : end]
        if len(samples) == 0:
            raise DataError(f"{utt_id} lies beyond the end of {file}")
        return samples, rate


def _reachable(rxfilename: str, root: Path) -> str:
    """A path of wav.scp, which begins in the recipe's folder, as it is called from here."""
    path = Path(rxfilename)
    return str(root / path) if not path.exists() and (root / path).is_file() else rxfilename
