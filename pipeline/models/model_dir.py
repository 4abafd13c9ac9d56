"""A model directory: all files that recognition needs, and those that its training leaves.

::

    exp/ctc/
      config.json          architecture, kind, options, with a format version
      tokens.txt           <blk> 0, …
      cmvn.ark             CMVN statistics of the training features
      front_end/           options of the features: fbank.conf, delta.conf …
      final.safetensors    the weights
      checkpoints/         last.pt, previous.pt: weights, optimiser, position in the training;
                           sets/000001/ …: the same of an asynchronous training, by shard;
                           best.safetensors, epoch-0001.safetensors …
      metrics.jsonl        losses and error rates, one line per epoch
      provenance.json      command, commit, seed, versions, hashes of the data
      train.log
"""

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import ConfigError, ModelError
from pipeline.files import file_digest, write_text
from pipeline.frontend.cmvn import CmvnStats
from pipeline.frontend.front_end import FrontEnd
from pipeline.models.normalise import SPEAKER, own_statistics, read_cmvn
from pipeline.models.weights import load_weights, read_weights
from pipeline.nn.config import FORMAT_VERSION, ModelConfig, model_config_from, to_data
from pipeline.nn.models import Model, build_model, require_room
from pipeline.seals import read_text, sealed, unsealed
from pipeline.tables import write_matrix
from pipeline.text.tokens import Tokens


class ModelDir:
    """A model on disk. ``open`` checks that it is complete; ``create`` makes a new one."""

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        tokens: Tokens,
        options: dict[str, Any],
        *,
        normalises: bool | str,
    ) -> None:
        self.path, self.config, self.tokens, self.options = path, config, tokens, options
        self.cmvn_sha256 = ""  # of cmvn.ark, if it is known
        self.normalises = normalises  # with cmvn.ark, or with those of each speaker: "speaker"

    @property
    def kind(self) -> str:
        """``ctc``, ``predictor`` or ``transducer``."""
        return self.config.kind

    @property
    def weights_path(self) -> Path:
        """The file of the final weights."""
        return self.path / "final.safetensors"

    @property
    def best_path(self) -> Path:
        """The file of the weights of the best epoch so far."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def last_path(self) -> Path:
        """The file of the last state of the training."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def previous_path(self) -> Path:
        """The file of the state before the last one."""
        return self.path / "checkpoints" / "previous.pt"

    @property
    def sets_path(self) -> Path:
        """The folder of the states of an asynchronous training, each a set of files."""
        return self.path / "checkpoints" / "sets"

    @property
    def has_state(self) -> bool:
        """Whether there is a state, so that the training can be continued."""
        states = [self.last_path, self.previous_path, *self.sets_path.glob("*/whole.pt")]
        return any(path.exists() for path in states)

    def epoch_path(self, epoch: int) -> Path:
        """The file of the weights after an epoch, if they are kept."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.safetensors"

    def epoch_paths(self) -> list[Path]:
        """The files of the weights of those epochs that are kept, in order."""
        return sorted((self.path / "checkpoints").glob("epoch-*.safetensors"))

    @classmethod
    def create(
        cls,
        path: Path,
        config: ModelConfig,
        tokens: Tokens,
        *,
        cmvn: CmvnStats | str | None,
        front_end: Path | None,
        options: dict[str, Any],
    ) -> "ModelDir":
        """Write all files but the weights, ``config.json`` last as the sign that all are there.

        Files of an earlier training are overwritten or removed.

        Args:
            path: the directory.
            config: the architecture.
            tokens: the tokens that the network outputs.
            cmvn: global statistics that normalise features; "speaker"; None: no normalisation.
            front_end: the directory with the options of the training features, if known.
            options: the options of the training and the hashes of its data.
        """
        normalises = cmvn if isinstance(cmvn, str) else cmvn is not None
        directory = cls(path, config, tokens, options, normalises=normalises)
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        for old in (directory.best_path, path / "metrics.jsonl", *directory.epoch_paths()):
            old.unlink(missing_ok=True)
        shutil.rmtree(directory.sets_path, ignore_errors=True)
        (path / "config.json").unlink(missing_ok=True)
        tokens.save(path / "tokens.txt")
        if isinstance(cmvn, CmvnStats):
            write_matrix(str(path / "cmvn.ark"), cmvn.matrix)
            directory.cmvn_sha256 = file_digest(path / "cmvn.ark")
        shutil.rmtree(path / "front_end", ignore_errors=True)
        if front_end is not None:
            _copy_files(front_end, path / "front_end")
        data = {
            "format_version": FORMAT_VERSION,
            "kind": config.kind,
            "model": to_data(config),
            "cmvn": directory.normalises,
            "cmvn_sha256": directory.cmvn_sha256,
            "options": options,
        }
        write_text(path / "config.json", sealed(json.dumps(data, indent=2) + "\n"))
        return directory

    @classmethod
    def open(cls, path: Path | str, *, kind: str | None = None) -> "ModelDir":
        """Read a model directory.

        Raises:
            ModelError: it is not a model directory, is incomplete, or is not of this ``kind``.
        """
        path = Path(path)
        config, options, normalises, digest = _read_config(path)
        tokens = Tokens.from_file(path / "tokens.txt")
        if config.num_tokens != len(tokens):
            raise ModelError(
                f"{path}/tokens.txt: {len(tokens)} tokens, but the model has {config.num_tokens} "
                "outputs; this is the tokens file of another model, restore its own"
            )
        if _tokens_changed(options, tokens):
            raise ModelError(
                f"{path}/tokens.txt: not the tokens that this model was trained with; "
                "restore its own tokens.txt"
            )
        if kind is not None and config.kind != kind:
            raise ModelError(f"{path}: a {config.kind} model; a {kind} model is needed here")
        directory = cls(path, config, tokens, options, normalises=normalises)
        directory.cmvn_sha256 = digest
        return directory

    def weights(self) -> dict[str, torch.Tensor]:
        """The final weights by name. Raises ModelError if there are none or they are damaged."""
        if not self.weights_path.exists():
            raise ModelError(
                f"{self.path}: training has not finished (no final.safetensors); run the same "
                "train_*.py command again to continue it"
            )
        return read_weights(self.weights_path)

    def load_model(self, device: torch.device) -> Model:
        """The network with its final weights, in evaluation mode."""
        weights = self.weights()
        assert self.config.num_tokens is not None
        require_room(
            self.config, num_tokens=self.config.num_tokens, where=self.path / "config.json"
        )
        model = build_model(self.config, num_tokens=self.config.num_tokens)
        load_weights(model, weights, self.weights_path)
        return model.to(device).eval()

    @property
    def by_speaker(self) -> bool:
        """Whether features are normalised with the statistics of their speaker."""
        return self.normalises == SPEAKER

    def cmvn(self) -> CmvnStats | None:
        """The global statistics that normalise features, or None if there are none."""
        if not self.normalises or self.by_speaker or self.config.encoder is None:
            return None
        path = self.path / "cmvn.ark"
        if not path.exists():
            raise ModelError(f"{path}: missing; the model needs it to normalise features")
        stats = read_cmvn(path, self.config.encoder.input_dim)
        if self.cmvn_sha256 and self.cmvn_sha256 != file_digest(path):
            raise ModelError(
                f"{path}: not the statistics that the model was trained with, by cmvn_sha256 in "
                "config.json; restore its own cmvn.ark"
            )
        return stats

    def statistics(self, features: np.ndarray, speaker: CmvnStats | None) -> CmvnStats | None:
        """The statistics that normalise one utterance; None: no normalisation.

        Args:
            features: the features of the utterance, (T, F).
            speaker: the statistics of its speaker, for a model that normalises by speaker; None:
                those of the utterance itself.
        """
        if self.by_speaker:
            return speaker or own_statistics(features)
        return self._global_cmvn

    @cached_property
    def _global_cmvn(self) -> CmvnStats | None:
        return self.cmvn()

    def front_end(self) -> FrontEnd:
        """The front end, from samples to features.

        Raises:
            ModelError: the model has none, or one whose features the network does not read.
        """
        path = self.path / "front_end"
        if not path.is_dir():
            raise ModelError(
                f"{self.path}: the model has no record of how its features were made (its "
                "training data had no conf/ with fbank.conf or mfcc.conf); compute features and "
                "use decode_*.py"
            )
        found, encoder = FrontEnd.load(path), self.config.encoder
        if encoder is not None and found.dim != encoder.input_dim:
            raise ModelError(
                f"{path}: gives {found.dim} features per frame, but the network reads "
                f"{encoder.input_dim}; restore the files that the training wrote there"
            )
        return found


def is_trained(path: Path) -> bool:
    """Whether a directory holds a finished training or one that can be continued."""
    names = ("checkpoints/last.pt", "checkpoints/previous.pt", "final.safetensors")
    states = [*(path / name for name in names), *path.glob("checkpoints/sets/*/whole.pt")]
    return any(p.exists() for p in states)


def _read_config(path: Path) -> tuple[ModelConfig, dict[str, Any], bool | str, str]:
    """The architecture, options, kind of normalisation and digest of its statistics."""
    file = path / "config.json"
    try:
        data = unsealed(read_text(file), version=FORMAT_VERSION)
        if data["format_version"] == FORMAT_VERSION:
            config = model_config_from(data["model"], where="model")
            config = config.part(config.kind, "model")  # checks that no section is missing
            normalises = data.get("cmvn", (path / "cmvn.ark").exists())
            return (
                config,
                dict(data["options"]),
                normalises if normalises == SPEAKER else bool(normalises),
                str(data.get("cmvn_sha256", "")),
            )
    except OSError as error:
        what = "has no readable config.json" if path.is_dir() else "not a model directory"
        raise ModelError(f"{path}: {what}; train a model with train_*.py") from error
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ModelError(
            f"{file}: damaged ({error}); restore a copy, or train in a new directory"
        ) from error
    raise ModelError(
        f"{file}: format {data['format_version']}, but this program reads format "
        f"{FORMAT_VERSION}; use the version of the program that wrote it"
    )


def _tokens_changed(options: dict[str, Any], tokens: Tokens) -> bool:
    return options.get("tokens_sha256") not in (None, tokens.sha256)


def _copy_files(source: Path, destination: Path) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.suffix == ".conf":
            shutil.copyfile(file, destination / file.name)


def load_part(model: torch.nn.Module, source: ModelDir, part: str) -> list[str]:
    """Load a ``part`` of another model (``encoder`` or ``predictor``) into ``model``.

    Transducers are pretrained like this in A. Graves, A. Mohamed, G. Hinton, "Speech Recognition
    with Deep Recurrent Neural Networks", 2013, section 3.2.

    Returns:
        The names of the weights in ``source`` that are not in the part: its output layer.

    Raises:
        ModelError: a name or a shape does not fit.
    """
    weights = source.weights()
    prefix = f"{part}."
    wanted = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    if not wanted:
        raise ModelError(f"{source.path}: a {source.kind} model has no {part}; give another model")
    load_weights(getattr(model, part), wanted, f"{source.path} ({part})")
    return [name for name in weights if not name.startswith(prefix)]
