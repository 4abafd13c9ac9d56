"""The features of training examples: read, checked, normalised and augmented."""

import numpy as np
import torch

from pipeline.errors import FeatureError
from pipeline.models.model_dir import ModelDir
from pipeline.training.augment import Streams, augment
from pipeline.training.dataset import Utterance, load_features
from pipeline.training.objectives.objective import Objective
from pipeline.training.randomness import generator
from pipeline.training.train_options import AcousticTrainOptions, TrainOptions


class FeatureReader:
    """Reads what a batch is made of."""

    def __init__(
        self, directory: ModelDir, objective: Objective, options: TrainOptions, streams: Streams
    ) -> None:
        """Prepare to read.

        Args:
            directory: the model directory, for the statistics that normalise features.
            objective: tells whether features are read, and how many frames an utterance needs.
            options: those of the augmentation.
            streams: the layout of the features.
        """
        self.directory, self.objective = directory, objective
        self.options, self.streams = options, streams
        self.cmvn = directory.cmvn()

    def load(self, utterance: Utterance) -> np.ndarray:
        """The features of an utterance, (T, F), without augmentation.

        Raises:
            FeatureError: they do not fit the model, or their number of frames is not as stated.
        """
        config = self.directory.config.encoder
        if config is None or not self.objective.reads_features:
            return np.zeros((1, 0), np.float32)
        features = load_features(
            utterance.features,
            utterance.utt_id,
            config.input_dim,
            utterance.cmvn or self.cmvn,
            allow_pipes=isinstance(self.options, AcousticTrainOptions) and self.options.allow_pipes,
        )
        if len(features) != utterance.num_frames:
            raise FeatureError(
                f"{utterance.utt_id}: {len(features)} frames, but utt2num_frames says "
                f"{utterance.num_frames}; make it again with feat_to_len.py"
            )
        return features

    def augmented(self, epoch: int, utterance: Utterance) -> np.ndarray:
        """The features as they are in an epoch, (T', F)."""
        features = self.load(utterance)
        if not isinstance(self.options, AcousticTrainOptions):
            return features
        found: np.ndarray = augment(
            torch.from_numpy(features),
            self.options,
            self.streams,
            generator(self.options.seed, "augment", epoch, utterance.utt_id),
            least_frames=self.objective.frames_needed(utterance),
        ).numpy()
        return found
