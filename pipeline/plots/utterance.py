"""An utterance to draw, with the model that reads it.

Everything is computed in float64 on the CPU, since pictures are few and their content is checked.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.decoding.decode_options import SearchOptions
from pipeline.decoding.recogniser import Recogniser, Recognition
from pipeline.errors import DataError, FeatureError, ModelError, UsageError
from pipeline.frontend.audio import WavReader
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.front_end import FrontEnd
from pipeline.models.model_dir import ModelDir
from pipeline.models.normalise import find_statistics, normalise_features
from pipeline.nn.models import CtcModel, TransducerModel
from pipeline.plots.filter_bank import FilterBank, filter_bank
from pipeline.plots.plot_options import PictureOptions
from pipeline.tables import MatrixReader, RandomAccessReader, TextReader, parse_rspecifier

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PlottedUtterance:
    """An utterance and the model that reads it, made by `load_utterance` or `make_utterance`."""

    directory: ModelDir
    model: CtcModel | TransducerModel  # float64, on the CPU
    utt_id: str
    features: Array  # (T, F), not normalised
    inputs: Array  # (T, F), normalised features, the inputs of the network
    scales: Array  # (F,), derivative of an input with respect to its feature
    front_end: FrontEnd | None  # how the features were computed, if the model knows it
    cmvn: CmvnStats | None  # statistics of the speaker, for a model that normalises by speaker
    reference: tuple[int, ...] | None  # token ids

    @cached_property
    def bank(self) -> FilterBank:
        """The columns that a picture shows as its spectrogram."""
        return filter_bank(self.front_end, self.features.shape[1])

    @property
    def shift_s(self) -> float:
        """The frame shift of the features in seconds; 10 ms if the front end is not known."""
        return 0.01 if self.front_end is None else self.front_end.frame_shift_ms / 1000.0

    @property
    def sample_rate(self) -> int:
        """The sample rate of the recording in Hz; 16000 if the front end is not known."""
        return 16000 if self.front_end is None else self.front_end.sample_rate

    @property
    def step_s(self) -> float:
        """The time from one encoder frame to the next in seconds."""
        return self.shift_s * self.model.encoder.stride

    @property
    def length_s(self) -> float:
        """The end of the last frame of the features in seconds."""
        return len(self.features) * self.shift_s

    @property
    def end_s(self) -> float:
        """The end of the last encoder frame in seconds."""
        lengths = self.model.encoder.output_lengths(torch.tensor([len(self.features)]))
        return int(lengths[0]) * self.step_s

    @property
    def name(self) -> str:
        """The default title of a picture: utterance and model."""
        place = "/".join(self.directory.path.resolve().parts[-2:])
        return f"{self.utt_id}, {self.directory.kind} {place}"

    @cached_property
    def spectrogram(self) -> Array:
        """The values of the spectrogram, (T, R): features, or normalised inputs if not spectral."""
        source = self.features if self.bank.hertz is not None else self.inputs
        return source[:, self.bank.columns]

    def recognise(self, *, beam: int = 10) -> Recognition:
        """Recognise the utterance, with times. Raises DataError if no hypothesis is possible."""
        recogniser = Recogniser(self.directory, torch.device("cpu"), SearchOptions(beam=beam))
        features = self.features.astype(np.float32)
        return recogniser.recognise(self.utt_id, features, self.cmvn, with_spans=True)

    def targets(self, *, beam: int = 10) -> list[int]:
        """The tokens of the reference, or of the best hypothesis if there is no reference."""
        if self.reference is not None:
            return list(self.reference)
        return list(self.recognise(beam=beam).hyps[0].tokens)

    def symbols(self, tokens: list[int] | tuple[int, ...]) -> list[str]:
        """The names of tokens in pictures, with ∅ for the blank."""
        return ["∅" if k == 0 else self.directory.tokens.symbols[k] for k in tokens]

    def token_id(self, symbol: str) -> int:
        """The id of a token; ∅ and ``<blk>`` are 0. Raises UsageError for an unknown token."""
        symbols = list(self.directory.tokens.symbols)
        if symbol in ("∅", "<blk>"):
            return 0
        if symbol not in symbols:
            shown = " ".join(symbols[1:12])
            raise UsageError(
                f'the model has no token "{symbol}"; its {len(symbols) - 1} tokens are {shown} …, '
                f"see {self.directory.path}/tokens.txt"
            )
        return symbols.index(symbol)


def load_utterance(
    directory: ModelDir, rspecifier: str, utt_id: str, options: PictureOptions
) -> PlottedUtterance:
    """Read an utterance of a table and, with ``options.text``, its reference.

    Raises:
        UsageError: the model normalises by speaker, but no statistics are given.
        DataError: the table, the utterance, its text or the model cannot be used.
    """
    if options.beam < 1:
        raise UsageError(f"--beam must be 1 or more, not {options.beam}")
    model = load_model(directory)
    features = _features(directory, rspecifier, utt_id, options)
    reference = None
    if options.text:
        text = _text(options.text, utt_id)
        words = text.split(" ") if text else []  # a token may hold non-ASCII blanks
        encoded = directory.tokens.encode(words, where=f"{options.text}: {utt_id}")
        reference = tuple(encoded)
    cmvn = _speaker_cmvn(directory, utt_id, options)
    return make_utterance(directory, model, utt_id, features, cmvn=cmvn, reference=reference)


def load_model(directory: ModelDir) -> CtcModel | TransducerModel:
    """The network in float64.

    Raises:
        ModelError: the model is a predictor or frame-wise, or its weights are not finite.
    """
    if directory.kind == "predictor":
        raise ModelError(
            f"{directory.path}: a predictor alone recognises nothing; give another model"
        )
    if directory.kind == "framewise":
        raise ModelError(
            f"{directory.path}: a frame-wise model, of which there are no pictures; give a CTC "
            "model or a transducer"
        )
    model = directory.load_model(torch.device("cpu")).double()
    assert isinstance(model, CtcModel | TransducerModel)
    for name, weights in model.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise ModelError(f"{directory.path}: weights of {name} are not finite; train it again")
    return model.requires_grad_(False)


def make_utterance(
    directory: ModelDir,
    model: CtcModel | TransducerModel,
    utt_id: str,
    features: NDArray[np.floating],
    *,
    cmvn: CmvnStats | None = None,
    reference: tuple[int, ...] | None = None,
) -> PlottedUtterance:
    """Normalise features as in decoding.

    Args:
        directory: the directory of the model.
        model: the result of `load_model`.
        utt_id: the utterance.
        features: (T, F), not normalised.
        cmvn: the statistics of the speaker, for a model that normalises by speaker; None for those
            of the utterance itself.
        reference: token ids, if they are known.

    Raises:
        FeatureError: the features have another dimension, no frames, or values that are not finite.
    """
    assert directory.config.encoder is not None
    dim = directory.config.encoder.input_dim
    plain = normalise_features(np.asarray(features), utt_id, dim, None)
    stats = directory.statistics(plain, cmvn)
    scales = np.ones(dim)
    if stats is not None:
        zero_one = stats.apply(np.repeat([[0.0], [1.0]], dim, axis=1), norm_vars=True)
        scales = zero_one[1] - zero_one[0]
    inputs = normalise_features(plain, utt_id, dim, stats).astype(np.float64)
    if not np.isfinite(inputs).all():
        raise FeatureError(f"{utt_id}: not finite after normalisation; make the statistics again")
    front_end = _front_end(directory, dim)
    return PlottedUtterance(
        directory,
        model,
        utt_id,
        plain.astype(np.float64),
        inputs,
        scales,
        front_end,
        cmvn,
        reference,
    )


def _front_end(directory: ModelDir, dim: int) -> FrontEnd | None:
    try:
        front_end = directory.front_end()
    except ModelError:
        return None
    return front_end if front_end.dim == dim else None


def _features(
    directory: ModelDir, rspecifier: str, utt_id: str, options: PictureOptions
) -> NDArray[np.floating]:
    """The features (T, F) of an utterance, not normalised."""
    pipes = options.allow_pipes
    if options.from_audio:
        front_end = directory.front_end()
        for key, recording in WavReader(rspecifier, allow_pipes=pipes):
            if key == utt_id:
                samples, rate = recording.read(sample_rate=None, channel=options.channel)
                return front_end(samples, rate, resampled=options.resample, name=recording.name)
        raise _unknown(rspecifier, utt_id, [k for k, _ in islice(WavReader(rspecifier), 3)])
    if parse_rspecifier(rspecifier).kind == "scp":
        with RandomAccessReader(rspecifier, allow_pipes=pipes) as reader:
            if utt_id in reader:
                matrix: NDArray[np.floating] = reader[utt_id]
                return matrix
        raise _unknown(rspecifier, utt_id, [])
    seen: list[str] = []
    for key, matrix in MatrixReader(rspecifier, allow_pipes=pipes):
        if key == utt_id:
            return matrix
        seen = [*seen, key][:3]
    raise _unknown(rspecifier, utt_id, seen)


def _text(rspecifier: str, utt_id: str) -> str:
    seen: list[str] = []
    for key, words in TextReader(rspecifier):
        if key == utt_id:
            return words
        seen = [*seen, key][:3]
    raise _unknown(rspecifier, utt_id, seen)


def _unknown(rspecifier: str, utt_id: str, seen: list[str]) -> DataError:
    such = f", such as {' '.join(seen)}" if seen else ""
    return DataError(f'{rspecifier}: has no utterance "{utt_id}"; give one of its keys{such}')


def _speaker_cmvn(directory: ModelDir, utt_id: str, options: PictureOptions) -> CmvnStats | None:
    """Statistics of the utterance's speaker; None: its own, for recordings."""
    if not directory.by_speaker or (options.from_audio and not options.cmvn):
        return None
    find = find_statistics(
        options.cmvn, options.utt2spk, model=directory.path, allow_pipes=options.allow_pipes
    )
    return find(utt_id)
