"""A recogniser: a trained CTC network or transducer with its search."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.decoding.decode_options import (
    CtcSearchOptions,
    FramewiseSearchOptions,
    FusionOptions,
    SearchOptions,
    TransducerSearchOptions,
)
from pipeline.decoding.framewise_search import FramewiseSearch
from pipeline.decoding.language_model import by_words, load_fusion
from pipeline.errors import DataError, ModelError, UsageError
from pipeline.frontend.audio import read_audio
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.front_end import FrontEnd
from pipeline.kernels.search.ctc import ctc_align, ctc_beam_search, ctc_prefix_search
from pipeline.kernels.search.ctc_streams import CtcGreedyStreams
from pipeline.kernels.search.hypotheses import Hypothesis, Partial
from pipeline.kernels.search.transducer import transducer_beam_search
from pipeline.kernels.search.transducer_streams import TransducerGreedyStreams
from pipeline.kernels.transducer.align import transducer_align
from pipeline.models.model_dir import ModelDir
from pipeline.models.normalise import normalise_features
from pipeline.nn.joiner import TanhJoiner
from pipeline.nn.layers import log_softmax
from pipeline.nn.models import (
    BLANK,
    CtcModel,
    FramewiseModel,
    PredictorModel,
    TransducerModel,
)

Span = tuple[int, int]  # the first frame of a token and the frame after its last


class Recognition(NamedTuple):
    """The hypotheses of one utterance."""

    hyps: list[Hypothesis]  # best first, at least one
    spans: list[Span]  # of the best hypothesis' tokens, in output frames; empty if not requested


class StreamSearch(Protocol):
    """A search through utterances whose frames come in chunks; it keeps a state for each."""

    def start(self) -> Any:
        """The state before the first frame."""

    def advance(self, states: Sequence[Any], rows: Sequence[Tensor]) -> None:
        """Read the next rows (n, …) of each utterance into its state."""

    def result(self, state: Any) -> list[Hypothesis]:
        """The hypotheses after the last frame, best first."""

    def partial(self, state: Any) -> Partial:
        """The best hypothesis so far."""


class Recogniser:
    """A trained CTC network or transducer with its search.

    Utterances are encoded one at a time, so their results do not depend on the other utterances,
    and every split of a test set gives the same bytes.

    Args:
        directory: a finished model directory, or its path.
        device: the device to compute on; None: the CPU.
        options: the options of the search; None: the defaults.

    Raises:
        UsageError: an option has an invalid value or is not for this kind of model.
        ModelError: the model is a prediction network, or the language model does not fit it.
    """

    def __init__(
        self,
        directory: ModelDir | Path | str,
        device: torch.device | None = None,
        options: FusionOptions | None = None,
    ) -> None:
        if not isinstance(directory, ModelDir):
            directory = ModelDir.open(directory)
        device, options = device or torch.device("cpu"), options or SearchOptions()
        self.directory, self.device = directory, device
        self.options = _options_of(SearchOptions, options)
        model = directory.load_model(device)
        if isinstance(model, PredictorModel):
            raise ModelError(f"{directory.path}: a prediction network alone cannot recognise")
        self.model = model
        self._unk = None if options.allow_unk else directory.tokens.unk
        if self._unk is not None:
            _rule_out(model, self._unk)
        self.ctc = _options_of(CtcSearchOptions, options)
        self.transducer = _options_of(TransducerSearchOptions, options)
        if isinstance(model, TransducerModel) and self.ctc.prefix_search:
            raise UsageError("--prefix-search is for CTC models")
        if not isinstance(model, FramewiseModel):
            _check(self.options, self.ctc.prefix_search)
        self.fusion = load_fusion(options, directory.tokens, device)
        if isinstance(model, FramewiseModel):
            framewise = _options_of(FramewiseSearchOptions, options)
            self.framewise = FramewiseSearch(model, self.fusion, framewise)
        assert directory.config.encoder is not None
        self.input_dim = directory.config.encoder.input_dim

    @cached_property
    def front_end(self) -> FrontEnd:
        """The front end, from samples to features. Raises ModelError if the model has none."""
        return self.directory.front_end()

    @property
    def step_s(self) -> float:
        """The time from one output of the network to the next, in s.

        If the model has no front end, the frame shift is assumed to be 10 ms.
        """
        try:
            shift_ms = self.front_end.frame_shift_ms
        except ModelError:
            shift_ms = 10.0
        return shift_ms / 1000.0 * self.model.encoder.stride

    def recognise(
        self,
        utt_id: str,
        features: np.ndarray,
        cmvn: CmvnStats | None = None,
        *,
        with_spans: bool = False,
    ) -> Recognition:
        """Recognise one utterance from its features.

        Args:
            utt_id: the id of the utterance, for error messages.
            features: (T, F), not normalised; the model normalises them with its own statistics.
            cmvn: the statistics of the speaker, for a model that normalises by speaker; None: those
                of the utterance.
            with_spans: also find the frames of each token.

        Raises:
            FeatureError: the dimension is wrong, there are no frames, or a value is not finite.
            DataError: no hypothesis is possible, for example if weights are not finite.
        """
        batch, lengths = self._batch(utt_id, features, cmvn)
        try:
            with torch.inference_mode():
                if isinstance(self.model, FramewiseModel):
                    return Recognition(*self.framewise(self.model(batch, lengths)[0][0]))
                encoded, _ = self.model.encoder(batch, lengths)
                rows = self._rows(encoded)[0]
                return self._recognition(self._search(rows), rows if with_spans else None)
        except ValueError as error:
            raise DataError(f"{utt_id}: {error}") from error

    def align(
        self,
        utt_id: str,
        features: np.ndarray,
        tokens: Sequence[int],
        cmvn: CmvnStats | None = None,
    ) -> list[Span]:
        """The output frames of each token on the most probable path that spells them.

        A transducer emits a token in one frame.

        Args:
            utt_id: the id of the utterance, for error messages.
            features: as for `recognise`.
            tokens: token ids.
            cmvn: as for `recognise`.

        Raises:
            FeatureError: as `recognise`.
            DataError: no path spells the tokens.
        """
        batch, lengths = self._batch(utt_id, features, cmvn)
        try:
            with torch.inference_mode():
                encoded, _ = self.model.encoder(batch, lengths)
                return self._spans(self._rows(encoded)[0], tokens)
        except ValueError as error:
            raise DataError(f"{utt_id}: {error}") from error

    def _batch(
        self, utt_id: str, features: np.ndarray, cmvn: CmvnStats | None
    ) -> tuple[Tensor, Tensor]:
        """The normalised features (1, T, F) and their number (1,)."""
        stats = self.directory.statistics(features, cmvn)
        checked = normalise_features(features, utt_id, self.input_dim, stats)
        batch = torch.from_numpy(checked)[None].to(self.device)
        return batch, torch.tensor([len(checked)], device=self.device)

    def recognise_file(
        self, path: str | Path, *, channel: int = -1, resampled: bool = False
    ) -> Recognition:
        """Recognise a recording in a file, with the model's own front end.

        Args:
            path: the file.
            channel: the channel to read, from 0; -1: the recording must have only one.
            resampled: whether a recording of another sampling rate is resampled.

        Raises:
            AudioError: the file cannot be read, or has another sampling rate than the model.
            ModelError: the model directory has no front end.
        """
        front_end = self.front_end  # raises an error before the file is read
        samples, rate = read_audio(str(path), sample_rate=None, channel=channel)
        feats = front_end(samples, rate, resampled=resampled, name=str(path))
        return self.recognise(str(path), feats)

    def recognise_samples(
        self, samples: np.ndarray, rate: int, *, name: str = "the recording"
    ) -> Recognition:
        """Recognise a recording in memory, with the model's own front end.

        Args:
            samples: one channel, (S,), in the range of 16-bit integers.
            rate: the sampling rate in Hz.
            name: the name of the recording, for error messages.

        Raises:
            AudioError: the model has another sampling rate.
            FeatureError: the recording is shorter than a frame.
            ModelError: the model directory has no front end.
        """
        return self.recognise(name, self.front_end(samples, rate))

    def symbols(self, hypothesis: Hypothesis | Partial) -> str:
        """The tokens of a hypothesis as text."""
        return " ".join(self.directory.tokens.decode(hypothesis.tokens))

    def _rows(self, encoded: Tensor) -> Tensor:
        """What a search reads, of the encoder's vectors (…, E).

        That are log Pr(k|t), (…, V), for CTC, and for a transducer the joiner's input, (…, J).
        """
        if isinstance(self.model, CtcModel):
            return log_softmax(self.model.output(encoded))
        assert isinstance(self.model, TransducerModel)
        return self.model.joiner.project_encoder(encoded)

    def _recognition(self, hyps: list[Hypothesis], rows: Tensor | None) -> Recognition:
        """What a search has found; the spans are those in the rows, if they are given."""
        if self.fusion.words is not None and isinstance(self.model, TransducerModel):
            normalise = self.options.length_normalise
            hyps = by_words(hyps, self.fusion.words, length_normalise=normalise)
        if not hyps:
            raise ValueError(
                "no hypothesis is possible; are the model's weights finite? Where only words of a "
                "language model are allowed, a wider --beam may find some"
            )
        # A wide beam over few tokens may reach what was ruled out; the best one never does.
        hyps = [hyp for hyp in hyps if self._unk not in hyp.tokens] or hyps
        return Recognition(hyps, [] if rows is None else self._spans(rows, hyps[0].tokens))

    def _spans(self, rows: Tensor, tokens: Sequence[int]) -> list[Span]:
        """The output frames of each token in the rows of an utterance."""
        if isinstance(self.model, CtcModel):
            return ctc_align(rows, tokens, blank=BLANK)
        assert isinstance(self.model, TransducerModel)
        times = transducer_align(rows, self.model, tokens, blank=BLANK)
        return [(t, t + 1) for t in times]

    def _search(self, rows: Tensor) -> list[Hypothesis]:
        """Search through the rows of an utterance, (T, V) or (T, J)."""
        if self.options.beam == 1 and not self.ctc.prefix_search:
            search = self._greedy(rows)
            state = search.start()
            search.advance([state], [rows])
            return search.result(state)
        if isinstance(self.model, TransducerModel):
            lengths = torch.tensor([len(rows)], device=rows.device)
            return transducer_beam_search(rows[None], lengths, self.model, **self._of_beam())[0]
        if self.ctc.prefix_search:
            threshold = self.ctc.prefix_threshold
            return ctc_prefix_search(rows, blank=BLANK, threshold=threshold)
        return ctc_beam_search(rows, **self._of_beam())

    def _greedy(self, like: Tensor) -> StreamSearch:
        """The greedy search through rows of the type of ``like``."""
        if isinstance(self.model, CtcModel):
            return CtcGreedyStreams(blank=BLANK)
        assert isinstance(self.model, TransducerModel)
        limit = self.transducer.max_tokens_per_frame
        return TransducerGreedyStreams(self.model, like, blank=BLANK, max_tokens_per_frame=limit)

    def _of_beam(self) -> dict[str, Any]:
        """The options of the beam search."""
        found: dict[str, Any] = {
            "beam": self.options.beam,
            "blank": BLANK,
            "fusion": self.fusion,
            "length_normalise": self.options.length_normalise,
        }
        if isinstance(self.model, TransducerModel):
            found["fusion"] = self.fusion._replace(words=None)  # which rank what was found
            found["max_tokens_per_frame"] = self.transducer.max_tokens_per_frame
        else:
            found |= {"token_mass": self.ctc.token_mass, "max_tokens": self.ctc.max_tokens}
        return found


def _check(options: SearchOptions, prefix_search: bool) -> None:
    """Raise UsageError if options exclude each other."""
    fused = options.lm or options.word_lm or options.insertion_bonus
    if fused and (options.beam == 1 or prefix_search):
        raise UsageError(
            "--lm, --word-lm and --insertion-bonus need a beam search, --beam of 2 or more"
        )
    if options.lm and options.word_lm:
        raise UsageError("--lm and --word-lm: give one language model, over tokens or over words")
    if not options.word_lm and (options.word_bonus or options.only_known_words):
        raise UsageError("--word-bonus and --only-known-words apply to --word-lm; give it, too")


O = TypeVar("O", bound=FusionOptions)  # noqa: E741


def _options_of(kind: type[O], options: FusionOptions) -> O:
    """The options of a search of this kind; those that are not among ``options`` have defaults."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{k: v for k, v in vars(options).items() if k in names})


def _rule_out(model: CtcModel | FramewiseModel | TransducerModel, token: int) -> None:
    """Make a token impossible: the probabilities of the others then sum to 1."""
    if isinstance(model, FramewiseModel):
        layer, token = model.output, token - 1
    elif isinstance(model, CtcModel):
        layer = model.output
    else:
        joiner = model.joiner
        layer = joiner.output if isinstance(joiner, TanhJoiner) else joiner.encoder_output
    with torch.no_grad():
        layer.bias[token] = -1e30  # finite: a difference of two infinities would be NaN
