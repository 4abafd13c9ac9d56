"""Decode a table of features or recordings into a table of hypotheses."""

import contextlib
import json
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.decoding.confidence import token_confidences
from pipeline.decoding.decode_options import DecodeOptions, SearchOptions
from pipeline.decoding.journal import Journal
from pipeline.decoding.recogniser import Recogniser, Recognition
from pipeline.errors import DataError, PipelineError, UsageError
from pipeline.files import file_digest, write_text
from pipeline.frontend.audio import Recording, WavReader
from pipeline.frontend.cmvn import CmvnStats
from pipeline.models.device import choose_device
from pipeline.models.model_dir import ModelDir
from pipeline.models.normalise import find_statistics
from pipeline.seals import sealed, sidecar, write_sidecar
from pipeline.tables import MatrixReader, TextWriter
from pipeline.tables.specifiers import parse_wspecifier
from pipeline.tables.streams import open_output

Entry = np.ndarray | Recording
Result = dict[str, Any]  # of one utterance: hyp, nbest, words, tokens, frames
AHEAD = 2  # utterances per thread whose results may wait for earlier ones


class Counter(Protocol):
    """Counts what was decoded and what failed."""

    def ok(self, count: int = 1) -> None:
        """Count successes."""

    def fail(self, key: str, error: object) -> None:
        """Count a failure."""

    def require_some(self) -> None:
        """Raise DataError if there was no success."""


def decode_table(
    directory: ModelDir,
    rspecifier: str,
    wspecifier: str,
    options: DecodeOptions,
    counter: Counter,
) -> str:
    """Decode every utterance of a table, in its order.

    An utterance that cannot be decoded is left out and counted as a failure. Results are kept in
    NAME.partial beside the hypotheses until all are finished, for ``options.resume``.

    Returns:
        The number of frames and the time, for the log.

    Raises:
        UsageError: an option has an invalid value.
        PipelineError: the model or a table cannot be used.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    recogniser = Recogniser(directory, choose_device(options.device), options)
    decoder = _Decoder(recogniser, options, _cmvn_of(directory, options))
    reader = (WavReader if options.from_audio else MatrixReader)(
        rspecifier, allow_pipes=options.allow_pipes
    )
    started, frames, skipped = time.monotonic(), 0, 0
    ctm_files = [*filter(None, map(_regular, (options.write_ctm, options.write_token_ctm)))]
    for path in ctm_files:
        sidecar(path).unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        hyps = stack.enter_context(TextWriter(wspecifier))
        nbest = None
        if options.write_nbest:
            nbest = stack.enter_context(TextWriter(options.write_nbest))
        times = {
            name: stack.enter_context(open_output(file))
            for name, file in (("words", options.write_ctm), ("tokens", options.write_token_ctm))
            if file
        }
        journal = stack.enter_context(_journal(directory, wspecifier, options))
        for utt_id, result in decoder.run(reader, journal):
            if isinstance(result, PipelineError):
                counter.fail(utt_id, str(result).removeprefix(f"{utt_id}: "))
                continue
            skipped += result is journal.finished.get(utt_id)
            frames += result["frames"]
            hyps.write(utt_id, result["hyp"])
            for rank, line in enumerate(result["nbest"] if nbest else [], start=1):
                nbest.write(f"{utt_id}-{rank}", line)  # type: ignore[union-attr]
            for name, ctm in times.items():
                ctm.write("".join(f"{utt_id} {line}\n" for line in result[name]).encode())
            counter.ok()
        counter.require_some()
    for path in ctm_files:
        write_sidecar(path)
    for _ in range(getattr(reader, "skipped", 0)):
        counter.fail("an entry of the table", "not readable, skipped")
    seconds = time.monotonic() - started
    if options.write_speed:
        speed = {"frames": frames, "seconds": round(seconds, 3)}
        write_text(options.write_speed, sealed(json.dumps(speed)) + "\n")
    already = f", {skipped} of them already finished" if skipped else ""
    return f"{frames} frames in {seconds:.1f} s{already}"


def _regular(wxfilename: str) -> Path | None:
    """The path of an output, if it is a regular file, be it new or not."""
    if wxfilename in ("", "-") or wxfilename.startswith("|"):
        return None
    path = Path(wxfilename)
    return path if path.is_file() or not path.exists() else None


@dataclass(frozen=True)
class _Decoder:
    """Decodes the entries of a table, several at a time."""

    recogniser: Recogniser
    options: DecodeOptions
    cmvn_of: Callable[[str], CmvnStats | None]

    def run(
        self, entries: Iterable[tuple[str, Entry]], journal: Journal
    ) -> Iterator[tuple[str, Result | PipelineError]]:
        """The result or the error of each utterance, in the order of the table."""
        threads = self.options.threads
        waiting: deque[tuple[str, Future[Result]]] = deque()
        with ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
            try:
                for utt_id, entry in entries:
                    if threads == 1:
                        future = _now(self.decode, utt_id, entry, journal.finished.get(utt_id))
                    else:
                        known = journal.finished.get(utt_id)
                        future = pool.submit(self.decode, utt_id, entry, known)
                    waiting.append((utt_id, future))
                    while len(waiting) >= (1 if threads == 1 else AHEAD * threads):
                        yield _taken(*waiting.popleft(), journal)
                while waiting:
                    yield _taken(*waiting.popleft(), journal)
            finally:
                pool.shutdown(cancel_futures=True)

    def decode(self, utt_id: str, entry: Entry, known: Result | None = None) -> Result:
        """Decode one utterance, or return a known result if it is from the same input."""
        cmvn = self.cmvn_of(utt_id)
        data = entry.load() if isinstance(entry, Recording) else entry.tobytes()
        fingerprint = zlib.crc32(data, zlib.crc32(b"" if cmvn is None else cmvn.matrix.tobytes()))
        if known is not None and known["input"] == fingerprint:
            return known
        matrix = self._features(entry) if isinstance(entry, Recording) else entry
        found = self.recogniser.recognise(
            utt_id, matrix, cmvn, with_spans=_with_times(self.options)
        )
        symbols = self.recogniser.symbols
        return {
            "input": fingerprint,
            "frames": len(matrix),
            "hyp": symbols(found.hyps[0]),
            "nbest": [
                f"{h.score:.4f} {h.log_prob:.4f} {h.normalised:.4f} {symbols(h)}".rstrip()
                for h in found.hyps[: self.options.nbest if self.options.write_nbest else 0]
            ],
            **self._ctm_lines(found),
        }

    def _features(self, recording: Recording) -> np.ndarray:
        front_end = self.recogniser.front_end
        samples, rate = recording.read(sample_rate=None, channel=self.options.channel)
        return front_end(samples, rate, resampled=self.options.resample, name=recording.name)

    def _ctm_lines(self, found: Recognition) -> dict[str, list[str]]:
        """The lines of the words and of the tokens; a word is as sure as its least sure token."""
        if not found.spans:
            return {"words": [], "tokens": []}
        step_s = self.recogniser.step_s
        tokens, ids = self.recogniser.directory.tokens, found.hyps[0].tokens
        sure = token_confidences(found.hyps)

        def lines(parts: Iterable[tuple[str, int, int]]) -> list[str]:
            timed = [
                (symbol, found.spans[begin][0], found.spans[end - 1][1], min(sure[begin:end]))
                for symbol, begin, end in parts
            ]
            return [
                f"1 {first * step_s:.3f} {(last - first) * step_s:.3f} {symbol} {confidence:.3f}"
                for symbol, first, last, confidence in timed
            ]

        each = ((tokens.symbols[k], n, n + 1) for n, k in enumerate(ids))
        return {"words": lines(tokens.words(ids)), "tokens": lines(each)}


def _with_times(options: DecodeOptions) -> bool:
    """Whether the times of tokens are needed."""
    return bool(options.write_ctm or options.write_token_ctm)


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _now(decode: Callable[..., Result], *arguments: object) -> Future[Result]:
    future: Future[Result] = Future()
    try:
        future.set_result(decode(*arguments))
    except PipelineError as error:
        future.set_exception(error)
    return future


def _taken(
    utt_id: str, future: Future[Result], journal: Journal
) -> tuple[str, Result | PipelineError]:
    try:
        result = future.result()
    except DataError as error:
        return utt_id, error
    if result is not journal.finished.get(utt_id):
        journal.add(utt_id, result)
    return utt_id, result


def _journal(directory: ModelDir, wspecifier: str, options: DecodeOptions) -> Journal:
    """The journal of a decoding; it keeps nothing unless the hypotheses go to a regular file."""
    target = Path(parse_wspecifier(wspecifier).ark or "-")
    if str(target) == "-" or (target.exists() and not target.is_file()):
        if options.resume:
            raise UsageError("--resume: hypotheses must go to a file, such as ark,t:hyp.txt")
        return Journal(None, {}, resume=False)
    files = [directory.path / "final.safetensors", directory.path / "config.json"]
    if options.lm:
        lm = Path(options.lm)
        files.append(lm / "final.safetensors" if lm.is_dir() else lm)
    if options.word_lm:
        files.append(Path(options.word_lm))
    of_reading = {field.name for field in fields(DecodeOptions)} - {
        field.name for field in fields(SearchOptions)
    }
    searched = {k: v for k, v in asdict(options).items() if k not in of_reading}
    made_with = {
        "model": [file_digest(file) for file in files],
        **searched,
        "nbest": options.nbest if options.write_nbest else 0,
        "ctm": _with_times(options),
    }
    return Journal(target.with_name(target.name + ".partial"), made_with, resume=options.resume)


def _cmvn_of(directory: ModelDir, options: DecodeOptions) -> Callable[[str], CmvnStats | None]:
    """A function from an utterance id to the statistics of its speaker.

    It gives None if the model has its own statistics or uses those of each utterance.
    """
    if not directory.by_speaker or (options.from_audio and not options.cmvn):
        return lambda utt_id: None
    return find_statistics(
        options.cmvn, options.utt2spk, model=directory.path, allow_pipes=options.allow_pipes
    )
