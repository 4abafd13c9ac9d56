"""From a model directory to token sequences: one object for both kinds of model."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.audio import read_audio
from pipeline.errors import DataError, ModelError, UsageError
from pipeline.features import CmvnStats
from pipeline.kernels.ctc_search import ctc_beam_search, ctc_greedy
from pipeline.kernels.transducer_loss import transducer_loss
from pipeline.kernels.transducer_search import (
    Hypothesis,
    transducer_beam_search,
    transducer_greedy,
)
from pipeline.model_dir import ModelDir
from pipeline.nn.models import BLANK, CtcModel, TransducerModel
from pipeline.training.dataset import check_features


class Recogniser:
    """A trained CTC or transducer model and its search.

    Utterances are encoded one at a time: what comes out does not depend on what stands beside
    an utterance, so any split of a test set gives the same bytes.

    Args:
        directory: a finished model directory.
        device: where to compute.
        beam: hypotheses kept after each frame; 1 is the greedy path.
        length_normalise: transducer: sort by log Pr(y)/|y| as [G12], not by log Pr(y) as [G13].
    """

    def __init__(
        self,
        directory: ModelDir,
        device: torch.device,
        *,
        beam: int,
        length_normalise: bool = False,
    ) -> None:
        if beam < 1:
            raise UsageError(f"--beam must be 1 or more, not {beam}")
        self.directory, self.device = directory, device
        self.beam, self.length_normalise = beam, length_normalise
        model = directory.load_model(device)
        if not isinstance(model, (CtcModel, TransducerModel)):
            raise ModelError(f"{directory.path}: a predictor alone recognises nothing")
        self.model = model
        self.cmvn = directory.cmvn()
        assert directory.config.encoder is not None
        self.input_dim = directory.config.encoder.input_dim

    def recognise(
        self, utt_id: str, features: np.ndarray, cmvn: CmvnStats | None = None
    ) -> list[Hypothesis]:
        """Hypotheses of one utterance, best first.

        Args:
            utt_id: for messages.
            features: (T, F), not normalised: the model does that with its own statistics.
            cmvn: for a model that normalises by speaker: his statistics; None: the utterance's own.

        Raises:
            FeatureError: another dimension, no frames, or values that are not finite.
        """
        stats = self.cmvn
        if self.directory.by_speaker:
            stats = cmvn or _own_statistics(features)
        checked = check_features(features, utt_id, self.input_dim, stats)
        batch = torch.from_numpy(checked)[None].to(self.device)
        lengths = torch.tensor([len(checked)], device=self.device)
        with torch.inference_mode():
            if isinstance(self.model, CtcModel):
                return self._search_ctc(*self.model(batch, lengths))
            encoded, lengths = self.model.encoder(batch, lengths)
            return self._search_transducer(self.model, encoded, lengths)

    def recognise_file(self, path: str | Path, *, channel: int = -1) -> list[Hypothesis]:
        """Hypotheses of a recording, through the model's own front end.

        Args:
            path: the recording.
            channel: which of several channels; -1 wants a recording of one.

        Raises:
            AudioError: it cannot be read, or has another rate than the model's training data.
            ModelError: the model directory has no front end.
        """
        front_end = self.directory.front_end()
        samples, rate = read_audio(str(path), sample_rate=None, channel=channel)
        return self.recognise(str(path), front_end(samples, rate))

    def symbols(self, hypothesis: Hypothesis) -> str:
        """The tokens of a hypothesis as text."""
        return " ".join(self.directory.tokens.decode(hypothesis.tokens))

    def _search_ctc(self, log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        if self.beam == 1:
            best_path = float(log_probs.max(dim=-1).values.double().sum())
            return [Hypothesis(tuple(ctc_greedy(log_probs, lengths)[0]), best_path)]
        return ctc_beam_search(log_probs[0].double().cpu().numpy(), width=self.beam, blank=BLANK)

    def _search_transducer(
        self, model: TransducerModel, encoded: Tensor, lengths: Tensor
    ) -> list[Hypothesis]:
        frames = model.joiner.project_encoder(encoded)
        if self.beam == 1:
            tokens = transducer_greedy(frames, lengths, model, blank=BLANK)[0]
            return [Hypothesis(tuple(tokens), _log_prob(model, encoded, lengths, tokens))]
        return transducer_beam_search(
            frames[0],
            model,
            width=self.beam,
            blank=BLANK,
            length_normalise=self.length_normalise,
        )


def _own_statistics(features: np.ndarray) -> CmvnStats | None:
    """Those of one utterance; None for one that `check_features` will refuse."""
    if features.ndim != 2 or not features.size or not np.isfinite(features).all():
        return None
    stats = CmvnStats.zeros(features.shape[1])
    stats.accumulate(features)
    return stats


def _log_prob(model: TransducerModel, encoded: Tensor, lengths: Tensor, tokens: list[int]) -> float:
    """log Pr(y|x), the sum over all alignments of ``tokens``."""
    targets = torch.tensor([tokens], dtype=torch.int64, device=encoded.device)
    counts = torch.tensor([len(tokens)], device=encoded.device)
    logits = model.join(encoded, targets, counts)
    return -float(transducer_loss(logits, targets, lengths, counts, blank=BLANK, reduction="sum"))


def decode(
    recogniser: Recogniser,
    features: Iterable[tuple[str, np.ndarray]],
    cmvn_of: Callable[[str], CmvnStats | None] = lambda utt_id: None,
) -> Iterator[tuple[str, int, list[Hypothesis] | DataError]]:
    """Recognise a table: each utterance's frames, and its hypotheses or the error it met.

    ``cmvn_of`` gives the statistics of an utterance's speaker, where the model wants these.
    """
    for utt_id, matrix in features:
        result: list[Hypothesis] | DataError
        try:
            result = recogniser.recognise(utt_id, matrix, cmvn_of(utt_id))
        except DataError as error:
            result = error
        yield utt_id, len(matrix), result
