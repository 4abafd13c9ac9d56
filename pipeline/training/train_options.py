"""What a training command can be told: one dataclass, its fields the command's options."""

from dataclasses import dataclass

from pipeline.options import option


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `pipeline.training.loop.Trainer`. The defaults are the papers' regime."""

    epochs: int = option(150, "passes through the training data, at most")
    patience: int = option(10, "stop after so many epochs without a better dev score; 0: never")
    stop_on: str = option("loss", "which dev score chooses the best epoch: loss or per")
    batch_size: int = option(1, "utterances an update, at most; 1 in the papers")
    batch_frames: int = option(0, "frames an update, at most; 0: only --batch-size counts")
    optimizer: str = option("sgd", "sgd (with --momentum), adam or adamw (with --weight-decay)")
    learning_rate: float = option(1e-4, "step size; the loss is summed over a sequence")
    schedule: str = option("constant", "constant, or linear: warm up, then down to 0")
    warm_up: float = option(0.05, "share of the training in which schedule linear rises")
    momentum: float = option(0.9, "of sgd; ignored by adam and adamw")
    weight_decay: float = option(0.01, "of adamw: a step shrinks weights by learning rate times it")
    clip_norm: float = option(0.0, "scale gradients down to this norm; 0: never, as the papers")
    init_scale: float = option(0.1, "first weights are uniform in [-x, x]")
    dropout: float = option(-1.0, "share of layers' inputs dropped; -1: as the architecture says")
    weight_noise: float = option(0.0, "σ of Gaussian noise on all weights, drawn an update; 0.075")
    average: float = option(0.0, "decay an update of the average of weights that is kept; 0: none")
    input_noise: float = option(0.0, "σ of Gaussian noise on the normalised features")
    time_masks: int = option(0, "stretches of frames zeroed an utterance")
    time_mask_width: int = option(20, "longest such stretch, frames")
    freq_masks: int = option(0, "bands of channels zeroed an utterance")
    freq_mask_width: int = option(8, "widest such band, channels")
    speed: float = option(0.0, "speak up to this share faster or slower, formants included; 0.1")
    warp: float = option(0.0, "move formants up to this share, as another vocal tract; 0.1")
    ctc_weight: float = option(0.0, "share of a CTC loss on the encoder of a transducer")
    precision: str = option("float32", "float32, tf32 or bf16 products; the last two on a GPU")
    skip_short: bool = option(
        True, "leave out utterances too short for their tokens; false: an error"
    )
    save_every: float = option(300.0, "seconds between checkpoints within an epoch")
    timeout: float = option(10.0, "minutes that a process waits for another: torchrun, srun")
    keep_epochs: int = option(0, "weights of so many last epochs are kept, for average_models.py")
    tensorboard: bool = option(True, "write events for TensorBoard beside metrics.jsonl")
    allow_pipes: bool = option(False, "run commands that feats.scp names")
    seed: int = option(0, "the same seed gives the same model on a CPU")
    device: str = option("auto", "cpu, cuda or auto")
    threads: int = option(1, "CPU threads; more pay off for large batches on idle cores")


CHOICES = {
    "stop_on": ("loss", "per"),
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("constant", "linear"),
    "precision": ("float32", "tf32", "bf16"),
    "device": ("cpu", "cuda", "auto"),
}
ABOVE_0 = ("epochs", "batch_size", "learning_rate", "threads", "timeout")
BELOW_1 = ("average", "warm_up", "speed", "warp", "ctc_weight", "dropout")

# What may change between two runs on the same directory without making it another experiment.
RESUMABLE_CHANGES = frozenset(
    {"epochs", "patience", "device", "threads", "allow_pipes"}
    | {"save_every", "timeout", "keep_epochs", "tensorboard"}
)
