"""Recordings that libsndfile cannot read (M4A, AAC, WMA, AMR, films …), decoded by ffmpeg.

ffmpeg is a program that a user may have installed. It gets the recording as a file of our own, so
that nothing in the name of a recording can be an option or a protocol, and may neither open another
file nor an address that the recording names.
"""

import os
import re
import shutil
import subprocess
import tempfile

from pipeline.errors import AudioError

TIME_LIMIT_S = 600.0  # for one recording
# Formats that hold audio themselves: no play lists, which name other files.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,g722,g723_1,gsm,iff,"
    "ircam,loas,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,nut,ogg,oma,rm,tak,truehd,tta,"
    "voc,w64,wav,webm,wv"
)
_DAMAGED = re.compile(  # warnings and errors with which ffmpeg nevertheless succeeds
    "partial file|prematurely|corrupt|incomplete frame|truncat|invalid data found", re.IGNORECASE
)


def find_ffmpeg() -> str | None:
    """The program, if it is on PATH."""
    return shutil.which("ffmpeg")


def decode_by_ffmpeg(data: bytes, name: str, program: str) -> bytes:
    """The first audio stream of a recording as a WAV file of 32-bit floats with unknown sizes.

    Args:
        data: the recording.
        name: what messages call it.
        program: the ffmpeg to run.

    Raises:
        AudioError: ffmpeg cannot read it, finds it damaged, or takes longer than `TIME_LIMIT_S`.
    """
    with tempfile.TemporaryDirectory(prefix="recording-") as folder:
        path = os.path.join(folder, "recording")
        try:
            with open(path, "wb") as stream:
                stream.write(data)
        except OSError as error:
            what = f"{path}: cannot be written: {error.strerror}; set $TMPDIR to a larger disk"
            raise AudioError(f"{name}: {what}") from error
        command = [
            *(program, "-nostdin", "-hide_banner", "-loglevel", "warning"),
            *("-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-i", f"file:{path}"),
            *("-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=folder,
                timeout=TIME_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            what = f"ffmpeg has not decoded it in {TIME_LIMIT_S:g} s"
            raise AudioError(f"{name}: {what}; convert it to WAV first") from error
        except OSError as error:
            what = f"ffmpeg cannot be run ({program}: {error.strerror})"
            raise AudioError(f"{name}: {what}; install it again, or convert to WAV") from error
    said = done.stderr.decode(errors="replace").replace(f"file:{path}: ", "").strip()
    said = re.sub(r"\[([^]@]*) @ 0x[0-9a-f]+\] ", r"\1: ", said)
    damage = [line for line in said.splitlines() if _DAMAGED.search(line)]
    if done.returncode == 0 and damage:
        raise AudioError(f"{name}: truncated or damaged (ffmpeg: {damage[0]}); copy it again")
    if done.returncode != 0 or not done.stdout:
        reason = said.rpartition("\n")[2] or f"status {done.returncode}"
        raise AudioError(
            f"{name}: cannot be read as audio (ffmpeg: {reason}); give WAV, FLAC or another format "
            "that ffmpeg reads"
        )
    return done.stdout
