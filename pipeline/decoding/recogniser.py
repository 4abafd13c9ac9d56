"""From a model directory to token sequences: one object for both kinds of model."""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.decoding.decode_options import (
    CtcSearchOptions,
    SearchOptions,
    TransducerSearchOptions,
)
from pipeline.decoding.language_model import load_fusion
from pipeline.errors import DataError, ModelError, UsageError
from pipeline.frontend.audio import read_audio
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.front_end import FrontEnd
from pipeline.kernels.search.ctc import ctc_align, ctc_beam_search, ctc_greedy, ctc_prefix_search
from pipeline.kernels.search.hypotheses import Hypothesis
from pipeline.kernels.search.transducer import transducer_beam_search, transducer_greedy
from pipeline.kernels.transducer.align import transducer_align
from pipeline.kernels.transducer.loss import transducer_loss
from pipeline.models.model_dir import ModelDir
from pipeline.models.normalise import normalise_features
from pipeline.nn.models import BLANK, CtcModel, TransducerModel

Span = tuple[int, int]  # first frame of a token and the one after its last


class Recognition(NamedTuple):
    """What was heard in an utterance."""

    hyps: list[Hypothesis]  # best first, at least one
    spans: list[Span]  # of the best one's tokens, in the network's frames; empty if not asked for


class Recogniser:
    """A trained CTC or transducer model and its search.

    Utterances are encoded one at a time: what comes out does not depend on what stands beside
    an utterance, so any split of a test set gives the same bytes.

    Args:
        directory: a finished model directory, or its path.
        device: the device that computes; None: the CPU.
        options: options of the search.

    Raises:
        UsageError: an option is out of its range or not for this kind of model.
        ModelError: a predictor alone, or a language model that does not fit.
    """

    def __init__(
        self,
        directory: ModelDir | Path | str,
        device: torch.device | None = None,
        options: SearchOptions | None = None,
    ) -> None:
        if not isinstance(directory, ModelDir):
            directory = ModelDir.open(directory)
        device, options = device or torch.device("cpu"), options or SearchOptions()
        self.directory, self.device, self.options = directory, device, options
        model = directory.load_model(device)
        if not isinstance(model, (CtcModel, TransducerModel)):
            raise ModelError(f"{directory.path}: a predictor alone recognises nothing")
        self.model = model
        self.ctc = _options_of(CtcSearchOptions, options)
        self.transducer = _options_of(TransducerSearchOptions, options)
        if isinstance(model, TransducerModel) and self.ctc.prefix_search:
            raise UsageError("--prefix-search is for CTC models")
        _check(options, self.ctc.prefix_search)
        self.fusion = load_fusion(
            options.lm,
            directory.tokens,
            device,
            weight=options.lm_weight,
            bonus=options.insertion_bonus,
        )
        assert directory.config.encoder is not None
        self.input_dim = directory.config.encoder.input_dim

    @cached_property
    def front_end(self) -> FrontEnd:
        """From samples to features. Raises ModelError if the model was trained without one."""
        return self.directory.front_end()

    @property
    def step_s(self) -> float:
        """From one of the network's frames to the next, in s; 10 ms a frame of unknown features."""
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
        """What was heard in one utterance.

        Args:
            utt_id: for messages.
            features: (T, F), not normalised: the model does that with its own statistics.
            cmvn: for a model that normalises by speaker: his statistics; None: the utterance's own.
            with_spans: also say when each token was heard.

        Raises:
            FeatureError: another dimension, no frames, or values that are not finite.
            DataError: nothing is possible, such as a network whose weights are not finite.
        """
        stats = self.directory.statistics(features, cmvn)
        checked = normalise_features(features, utt_id, self.input_dim, stats)
        batch = torch.from_numpy(checked)[None].to(self.device)
        lengths = torch.tensor([len(checked)], device=self.device)
        try:
            with torch.inference_mode():
                if isinstance(self.model, CtcModel):
                    log_probs, lengths = self.model(batch, lengths)
                    return self._with_ctc(log_probs, lengths, with_spans)
                encoded, lengths = self.model.encoder(batch, lengths)
                return self._with_transducer(self.model, encoded, lengths, with_spans)
        except ValueError as error:
            raise DataError(f"{utt_id}: {error}") from error

    def recognise_file(self, path: str | Path, *, channel: int = -1) -> Recognition:
        """What was heard in a recording, through the model's own front end.

        Args:
            path: the recording.
            channel: which of several channels; -1 wants a recording of one.

        Raises:
            AudioError: it cannot be read, or has another rate than the model's training data.
            ModelError: the model directory has no front end.
        """
        front_end = self.front_end  # a model without one is found before a file is read
        samples, rate = read_audio(str(path), sample_rate=None, channel=channel)
        return self.recognise(str(path), front_end(samples, rate))

    def recognise_samples(
        self, samples: np.ndarray, rate: int, *, name: str = "the recording"
    ) -> Recognition:
        """Recognise a recording that is in memory, through the model's own front end.

        Args:
            samples: (S,) on the scale of 16-bit integers, one channel.
            rate: samples a second, in Hz.
            name: name of the recording, for messages.

        Raises:
            AudioError: another rate than that of the model's training data.
            FeatureError: the recording is shorter than a frame.
            ModelError: the model directory has no front end.
        """
        return self.recognise(name, self.front_end(samples, rate))

    def symbols(self, hypothesis: Hypothesis) -> str:
        """The tokens of a hypothesis as text."""
        return " ".join(self.directory.tokens.decode(hypothesis.tokens))

    def _with_ctc(self, log_probs: Tensor, lengths: Tensor, with_spans: bool) -> Recognition:
        rows = log_probs[0].double().cpu().numpy()
        hyps = _at_least_one(self._search_ctc(log_probs, lengths, rows))
        spans = ctc_align(rows, hyps[0].tokens, blank=BLANK) if with_spans else []
        return Recognition(hyps, spans)

    def _search_ctc(self, log_probs: Tensor, lengths: Tensor, rows: np.ndarray) -> list[Hypothesis]:
        if self.ctc.prefix_search:
            threshold = self.ctc.prefix_threshold
            return ctc_prefix_search(rows, blank=BLANK, threshold=threshold)
        if self.options.beam == 1:
            best_path = float(rows.max(axis=1).sum())
            return [Hypothesis(tuple(ctc_greedy(log_probs, lengths)[0]), best_path)]
        return ctc_beam_search(
            rows,
            width=self.options.beam,
            blank=BLANK,
            fusion=self.fusion,
            length_normalise=self.options.length_normalise,
        )

    def _with_transducer(
        self, model: TransducerModel, encoded: Tensor, lengths: Tensor, with_spans: bool
    ) -> Recognition:
        frames = model.joiner.project_encoder(encoded)
        if self.options.beam == 1:
            limit = self.transducer.max_tokens_per_frame
            (tokens,) = transducer_greedy(
                frames, lengths, model, blank=BLANK, max_tokens_per_frame=limit
            )
            hyps = [Hypothesis(tuple(tokens), _log_prob(model, encoded, lengths, tokens))]
        else:
            (hyps,) = transducer_beam_search(
                frames,
                lengths,
                model,
                width=self.options.beam,
                blank=BLANK,
                length_normalise=self.options.length_normalise,
                max_tokens_per_frame=self.transducer.max_tokens_per_frame,
                fusion=self.fusion,
            )
        _at_least_one(hyps)
        if not with_spans:
            return Recognition(hyps, [])
        times = transducer_align(frames[0], model, hyps[0].tokens, blank=BLANK)
        return Recognition(hyps, [(t, t + 1) for t in times])


def _check(options: SearchOptions, prefix_search: bool) -> None:
    """Raise UsageError where options do not go together."""
    fused = options.lm or options.insertion_bonus
    if fused and (options.beam == 1 or prefix_search):
        raise UsageError("--lm and --insertion-bonus need a beam search, --beam of 2 or more")


O = TypeVar("O", bound=SearchOptions)  # noqa: E741


def _options_of(kind: type[O], options: SearchOptions) -> O:
    """The options of a search of this kind; those that are not among ``options`` have defaults."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{k: v for k, v in vars(options).items() if k in names})


def _at_least_one(hyps: list[Hypothesis]) -> list[Hypothesis]:
    if not hyps:
        raise ValueError("no hypothesis is possible; are the model's weights finite?")
    return hyps


def _log_prob(model: TransducerModel, encoded: Tensor, lengths: Tensor, tokens: list[int]) -> float:
    """log Pr(y|x), the sum over all alignments of ``tokens``."""
    targets = torch.tensor([tokens], dtype=torch.int64, device=encoded.device)
    counts = torch.tensor([len(tokens)], device=encoded.device)
    logits = model.join(encoded, targets, counts)
    return -float(transducer_loss(logits, targets, lengths, counts, blank=BLANK, reduction="sum"))
