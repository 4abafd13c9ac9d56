"""What a training command can be told: one dataclass, its fields the command's options."""

from dataclasses import dataclass

from pipeline.feature_options import option


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `pipeline.training.loop.train`. The defaults are the papers' regime."""

    epochs: int = option(150, "passes through the training data, at most")
    patience: int = option(10, "stop after so many epochs without a better dev score; 0: never")
    stop_on: str = option("loss", "which dev score chooses the best epoch: loss or per")
    batch_size: int = option(1, "utterances an update; 1 in the papers")
    optimizer: str = option("sgd", "sgd (with --momentum) or adam")
    learning_rate: float = option(1e-4, "step size; the loss is summed over a sequence")
    schedule: str = option("constant", "constant, or linear: warm up over 5 %, then down to 0")
    momentum: float = option(0.9, "of sgd; ignored by adam")
    clip_norm: float = option(0.0, "scale gradients down to this norm; 0: never, as the papers")
    init_scale: float = option(0.1, "first weights are uniform in [-x, x]")
    weight_noise: float = option(0.0, "σ of Gaussian noise on all weights, drawn an update; 0.075")
    input_noise: float = option(0.0, "σ of Gaussian noise on the normalised features")
    time_masks: int = option(0, "stretches of frames zeroed an utterance")
    time_mask_width: int = option(20, "longest such stretch, frames")
    freq_masks: int = option(0, "bands of channels zeroed an utterance")
    freq_mask_width: int = option(8, "widest such band, channels")
    skip_short: bool = option(
        False, "leave out utterances too short for their tokens; else an error"
    )
    allow_pipes: bool = option(False, "run commands that feats.scp names")
    seed: int = option(0, "the same seed gives the same model on a CPU")
    device: str = option("auto", "cpu, cuda or auto")
    threads: int = option(1, "CPU threads; more pay off for large batches on idle cores")


# What may change between two runs on the same directory without making it another experiment.
RESUMABLE_CHANGES = frozenset({"epochs", "patience", "device", "threads", "allow_pipes"})
