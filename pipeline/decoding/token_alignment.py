"""Forced alignment: the id of a token for every frame of an utterance."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.decoding.decode_options import AlignOptions, SearchOptions
from pipeline.decoding.frame_labels import labels_of_frames
from pipeline.decoding.recogniser import Recogniser
from pipeline.errors import DataError, ModelError
from pipeline.models.device import choose_device
from pipeline.models.model_dir import ModelDir
from pipeline.models.normalise import find_statistics


class TokenAligner:
    """Aligns texts with features by a CTC model or a transducer.

    Raises:
        ModelError: the model is of another kind.
    """

    def __init__(self, model_dir: Path, options: AlignOptions) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        directory = ModelDir.open(model_dir)
        if directory.kind not in ("ctc", "transducer"):
            raise ModelError(
                f"{model_dir}: a {directory.kind} model; alignments need a CTC model or a "
                "transducer"
            )
        search = SearchOptions(allow_unk=True)  # a text may hold unknown symbols
        self.recogniser = Recogniser(directory, choose_device(options.device), search)
        self.tokens = directory.tokens
        self.cmvn_of = None
        if directory.by_speaker:
            self.cmvn_of = find_statistics(
                options.cmvn, options.utt2spk, model=model_dir, allow_pipes=options.allow_pipes
            )

    def align(self, utt_id: str, features: np.ndarray, text: str) -> NDArray[np.int32]:
        """The label of each frame, (T,), see `labels_of_frames`.

        Args:
            utt_id: the id of the utterance, for error messages.
            features: (T, F).
            text: its text.

        Raises:
            PhoneError: the text has a symbol that is not a token.
            FeatureError: the features do not fit the model.
            DataError: the utterance is too short for its text.
        """
        tokens = self.tokens.encode(text.split(), where=utt_id)
        cmvn = self.cmvn_of(utt_id) if self.cmvn_of else None
        stride = self.recogniser.model.encoder.stride
        found = self.recogniser.align(utt_id, features, tokens, cmvn)
        spans = [(stride * begin, stride * end) for begin, end in found]
        try:
            return labels_of_frames(tokens, spans, len(features))
        except ValueError as error:
            raise DataError(f"{utt_id}: {error}") from error
