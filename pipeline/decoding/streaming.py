"""Recognition of speech while it is spoken: samples come in chunks, hypotheses before the end.

However the samples are cut, and whichever streams are advanced together, the final hypotheses and
their scores are those of `Recogniser.recognise_samples` for the whole recording, bit for bit from
the compiled kernels. The time a chunk takes does not grow with the recording.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.decoding.decode_options import SearchOptions
from pipeline.decoding.recogniser import Recogniser, Recognition, StreamSearch
from pipeline.errors import DataError, ModelError, UsageError
from pipeline.frontend.feature_stream import FeatureStream
from pipeline.kernels.search.ctc_streams import CtcBeamStreams
from pipeline.kernels.search.hypotheses import Partial
from pipeline.kernels.search.transducer_streams import TransducerBeamStreams
from pipeline.models.model_dir import ModelDir
from pipeline.models.normalise import normalise_features
from pipeline.nn.models import FramewiseModel, TransducerModel

CAN = (
    "models with bidirectional = false, with or without projection, and Deep Speech 2 with row "
    "convolution can"
)


class LookAhead(NamedTuple):
    """How much later than a sound what it changes is known, whatever the speed of the machine."""

    frame_ms: float  # length of a frame
    deltas_ms: float  # frames after it that its deltas are computed from
    encoder_ms: float  # frames that the encoder joins, or reads beyond the one it encodes

    @property
    def total_ms(self) -> float:
        """All together, in ms."""
        return sum(self)


class Stream:
    """A recording that comes in chunks, made by `StreamingRecogniser.start`.

    Streams of one recogniser are independent. One thread may give a stream samples while another
    advances it.
    """

    def __init__(
        self, recogniser: "StreamingRecogniser", features: FeatureStream, *, with_spans: bool
    ) -> None:
        self._recogniser, self._features = recogniser, features
        self._waiting: deque[Tensor] = deque()  # features (n, F) that were not encoded yet
        self._encoder = recogniser.model.encoder.start()
        self._search = recogniser.search.start()
        self._rows: list[Tensor] | None = [] if with_spans else None
        self._is_closed = False  # takes no more samples
        self._has_ended = False  # and all of its features are there
        self._is_encoded = False  # and were encoded

    @property
    def is_ready(self) -> bool:
        """Whether `StreamingRecogniser.advance` has something to do for this stream."""
        return bool(self._waiting) or (self._has_ended and not self._is_encoded)

    def accept_waveform(self, samples: np.ndarray) -> None:
        """Take more samples: their features are computed, and wait for `advance`.

        Args:
            samples: one channel, (S,), S ≥ 0, in the range of 16-bit integers.

        Raises:
            UsageError: the stream has ended.
            AudioError: the samples are not one channel of finite numbers.
        """
        if self._is_closed:
            raise UsageError(f"{self._features.name}: the stream has ended; start another one")
        self._wait(self._features.accept(samples))

    def input_finished(self) -> None:
        """Say that no more samples come, so that the next `advance` recognises all that is left.

        Raises:
            FeatureError: the recording is shorter than a frame.
        """
        if not self._is_closed:
            self._is_closed = True
            self._wait(self._features.finish())
            self._has_ended = True

    def partial_result(self) -> Partial:
        """The best hypothesis of what was advanced so far, and how much of it will not change."""
        return self._recogniser.search.partial(self._search)

    def finish(self) -> Recognition:
        """The hypotheses of the whole recording; ends the stream if it has not ended.

        Raises:
            FeatureError: the recording is shorter than a frame.
            DataError: no hypothesis is possible.
        """
        self.input_finished()
        self._recogniser.advance([self])
        return self._recogniser.result(self)

    def _wait(self, feats: np.ndarray) -> None:
        if len(feats):
            recogniser = self._recogniser
            stats = recogniser.directory.statistics(feats, None)
            dim = recogniser.input_dim
            self._waiting.append(
                torch.from_numpy(normalise_features(feats, self._features.name, dim, stats))
            )

    def _take(self, device: torch.device) -> Tensor:
        """The features that wait, which then do not any more."""
        has_ended = self._has_ended  # asked first: what is put there before it is set is taken
        taken = [torch.zeros(0, self._recogniser.input_dim)]
        while self._waiting:
            taken.append(self._waiting.popleft())
        self._is_encoded = has_ended
        return torch.cat(taken).to(device)


class StreamingRecogniser(Recogniser):
    """A trained CTC network or transducer with its search, for speech that comes in chunks.

    ``stream = recogniser.start(16000)`` makes a stream; ``stream.accept_waveform(samples)`` gives
    it samples; ``recogniser.advance([stream, …])`` recognises what streams have got, all in one
    batch; ``stream.partial_result()`` is the hypothesis so far and ``stream.finish()`` the final
    one.

    Args:
        directory: a finished model directory, or its path.
        device: the device to compute on; None: the CPU.
        options: the options of the search; None: the defaults.

    Raises:
        UsageError: an option has an invalid value, or needs whole utterances.
        ModelError: the model, its normalisation or its front end needs whole utterances.
    """

    def __init__(
        self,
        directory: ModelDir | Path | str,
        device: torch.device | None = None,
        options: SearchOptions | None = None,
    ) -> None:
        super().__init__(directory, device, options)
        where = self.directory.path
        if isinstance(self.model, FramewiseModel):
            raise ModelError(
                f"{where}: cannot read a stream: a frame-wise model is searched from the end of an "
                "utterance back; a CTC model or a transducer reads streams"
            )
        if why := self.model.encoder.whole_only():
            raise ModelError(f"{where}: cannot read a stream: {why}; {CAN}")
        if self.directory.by_speaker:
            raise ModelError(
                f"{where}: cannot read a stream: it normalises features by statistics of the "
                "speaker or the utterance, which a stream does not have; train with --cmvn=global"
            )
        if self.ctc.prefix_search:
            raise UsageError("--prefix-search reads whole utterances; use a beam for streams")
        FeatureStream(self.front_end, self.front_end.sample_rate, name=str(where))
        self.search = self._stream_search()

    def start(
        self,
        sample_rate: int | None = None,
        *,
        resampled: bool = False,
        with_spans: bool = False,
        name: str = "the stream",
    ) -> Stream:
        """A new stream.

        Args:
            sample_rate: the sample rate in Hz; None: the model's.
            resampled: whether samples of another rate are resampled.
            with_spans: also find the frames of each token, in `finish`; for this the network's
                outputs are kept, so that memory grows with the recording.
            name: the stream, for messages.

        Raises:
            AudioError: the model has another sample rate.
        """
        rate = self.front_end.sample_rate if sample_rate is None else sample_rate
        features = FeatureStream(self.front_end, rate, resampled=resampled, name=name)
        return Stream(self, features, with_spans=with_spans)

    def advance(self, streams: Sequence[Stream]) -> None:
        """Recognise what streams have got since the last call, all in one batch.

        Raises:
            UsageError: a stream was made by another recogniser.
            DataError: the network gives something that is not a number.
        """
        for stream in streams:
            if stream._recogniser is not self:
                name = stream._features.name
                raise UsageError(f"{name}: another recogniser made this stream; let it advance it")
        ready = [stream for stream in dict.fromkeys(streams) if stream.is_ready]
        if not ready:
            return
        names = ", ".join(stream._features.name for stream in ready)
        with torch.inference_mode():
            chunks = [stream._take(self.device) for stream in ready]
            states, encoded = self.model.encoder.advance(
                [stream._encoder for stream in ready], chunks, [s._is_encoded for s in ready]
            )
            counts = [len(one) for one in encoded]
            rows = torch.split(self._rows(torch.cat(encoded)), counts)
            try:
                self.search.advance([stream._search for stream in ready], rows)
            except ValueError as error:
                raise DataError(f"{names}: {error}") from error
        for stream, state, new in zip(ready, states, rows, strict=True):
            stream._encoder = state
            if stream._rows is not None:
                stream._rows.append(new.clone())

    def result(self, stream: Stream) -> Recognition:
        """The hypotheses of a stream of which all was advanced; see `Stream.finish`."""
        rows = None if stream._rows is None else torch.cat(stream._rows)
        try:
            with torch.inference_mode():
                return self._recognition(self.search.result(stream._search), rows)
        except ValueError as error:
            raise DataError(f"{stream._features.name}: {error}") from error

    def look_ahead(self) -> LookAhead:
        """How much later than a sound what it changes is known, at least."""
        options, encoder = self.front_end.options, self.model.encoder
        state, read, found = encoder.start(), 0, 0
        blank = torch.zeros(1, self.input_dim, device=self.device)
        with torch.inference_mode():
            while not found:
                (state,), (vectors,) = encoder.advance([state], [blank], [False])
                read, found = read + 1, len(vectors)
        delta = self.front_end.delta
        reach = delta.delta_order * delta.delta_window if delta else 0
        shift = options.frame_shift
        return LookAhead(options.frame_length, reach * shift, (read - 1) * shift)

    def _stream_search(self) -> StreamSearch:
        with torch.inference_mode():
            encoded = torch.zeros(0, self.model.encoder.output_dim, device=self.device)
            like: Any = self._rows(encoded)
            if self.options.beam == 1:
                return self._greedy(like)
            try:
                if isinstance(self.model, TransducerModel):
                    return TransducerBeamStreams(self.model, like, **self._of_beam())
                return CtcBeamStreams(like.shape[1], **self._of_beam())
            except ValueError as error:
                raise UsageError(f"--lm={self.options.lm}: {error}") from error
