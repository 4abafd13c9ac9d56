"""Options of the training commands: one dataclass a command, each with what acts there."""

from dataclasses import dataclass

from pipeline.options import DEVICES, Options, option


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of every training, and all that a prediction network has.

    The defaults are the regime of both Graves papers. Values are checked by `check`, when all
    processes of a training have met and one of them can tell what is wrong.
    """

    def __post_init__(self) -> None:
        """Leave the check to the training."""

    epochs: int = option(150, "passes through the training data, at most", low=1)
    patience: int = option(
        10, "epochs without a better dev score after which training stops; 0: never", low=0
    )
    stop_on: str = option(
        "loss",
        "dev score that chooses the best epoch: loss or error-rate",
        choices=("loss", "error-rate"),
    )
    batch_size: int = option(1, "utterances an update, at most; 1 in the papers", low=1)
    batch_frames: int = option(0, "frames an update, at most; 0: only --batch-size counts", low=0)
    optimizer: str = option(
        "sgd",
        "sgd (with --momentum), adam or adamw (with --weight-decay)",
        choices=("sgd", "adam", "adamw"),
    )
    learning_rate: float = option(1e-4, "step size; the loss is summed over a sequence", above=0)
    schedule: str = option(
        "constant",
        "constant, or linear: warm up, then down to 0",
        choices=("constant", "linear"),
    )
    warm_up: float = option(
        0.05, "share of the training in which schedule linear rises", low=0, below=1
    )
    momentum: float = option(0.9, "momentum of sgd; ignored by adam and adamw", low=0)
    weight_decay: float = option(
        0.01, "decay of adamw: a step shrinks weights by learning rate times it", low=0
    )
    clip_norm: float = option(
        0.0, "norm that gradients are scaled down to; 0: never, as the papers", low=0
    )
    init_scale: float = option(0.1, "first weights are uniform in [-x, x]", low=0)
    dropout: float = option(
        -1.0, "share of layers' inputs dropped; -1: as the architecture says", low=0, below=1
    )
    weight_noise: float = option(
        0.0, "σ of Gaussian noise on all weights, drawn an update; 0.075 in [G13]", low=0
    )
    average: float = option(
        0.0, "decay an update of the average of weights that is kept; 0: none", low=0, below=1
    )
    precision: str = option(
        "float32",
        "precision of products: float32, or tf32 or bf16 on a GPU",
        choices=("float32", "tf32", "bf16"),
    )
    save_every: float = option(300.0, "seconds between checkpoints within an epoch", low=0)
    timeout: float = option(
        10.0, "minutes that a process waits for another under torchrun or srun", above=0
    )
    keep_epochs: int = option(0, "last epochs whose weights are kept, for average_models.py", low=0)
    tensorboard: bool = option(True, "write events for TensorBoard beside metrics.jsonl")
    seed: int = option(0, "seed; the same one gives the same model on a CPU", low=0)
    device: str = option("auto", "device: cpu, cuda or auto", choices=DEVICES)
    threads: int = option(1, "CPU threads; more pay off for large batches on idle cores", low=1)


@dataclass(frozen=True, kw_only=True)
class AcousticTrainOptions(TrainOptions):
    """Options of a training that reads features: a CTC network's."""

    input_noise: float = option(0.0, "σ of Gaussian noise on the normalised features", low=0)
    time_masks: int = option(0, "stretches of frames zeroed an utterance", low=0)
    time_mask_width: int = option(20, "longest such stretch, in frames", low=0)
    freq_masks: int = option(0, "bands of channels zeroed an utterance", low=0)
    freq_mask_width: int = option(8, "widest such band, in channels", low=0)
    speed: float = option(
        0.0,
        "share by which utterances are made faster or slower, formants included; such as 0.1",
        low=0,
        below=1,
    )
    warp: float = option(
        0.0,
        "share by which formants are moved, as by another vocal tract; such as 0.1",
        low=0,
        below=1,
    )
    skip_short: bool = option(
        True, "leave out utterances too short for their tokens; false: an error"
    )
    allow_pipes: bool = option(False, "run commands that feats.scp names")


@dataclass(frozen=True, kw_only=True)
class TransducerTrainOptions(AcousticTrainOptions):
    """Options of a transducer's training."""

    ctc_weight: float = option(
        0.0, "share of a CTC loss on the encoder in the whole loss", low=0, below=1
    )


# What may change between two runs on the same directory without making it another experiment.
RESUMABLE_CHANGES = frozenset(
    {"epochs", "patience", "device", "threads", "allow_pipes"}
    | {"save_every", "timeout", "keep_epochs", "tensorboard"}
)
