"""Options of the training commands: one dataclass per command, with those that it uses."""

from dataclasses import dataclass

from pipeline.options import DEVICES, Options, option, require


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of every training; those of a prediction network.

    The defaults are those of A. Graves, "Sequence Transduction with Recurrent Neural Networks",
    2012, and A. Graves, A. Mohamed, G. Hinton, "Speech Recognition with Deep Recurrent Neural
    Networks", 2013. Values are checked by `check`, once the processes of a training are connected
    and one of them can report an error.
    """

    def __post_init__(self) -> None:
        """Leave the check to the training, which calls `check`."""

    def check(self) -> None:
        """See `Options.check`."""
        super().check()
        plain = self.optimizer == "sgd" and self.momentum > 0.0
        require(
            plain or not self.nesterov, "nesterov", "false without --optimizer=sgd and --momentum"
        )
        downpour, hogwild = self.async_ == "true", self.async_ == "hogwild"
        for name, acts in (
            *((name, downpour) for name in ("shards", "fetch_every")),
            *((name, downpour or hogwild) for name in ("push_every", "divide_by_staleness")),
            ("workers", hogwild),
        ):
            given = getattr(self, name) != getattr(TrainOptions, name)
            how = {"workers": "--async=hogwild", "shards": "--async", "fetch_every": "--async"}
            require(acts or not given, name, f"left out without {how.get(name, '--async')}")
        require(not (hogwild and self.device == "cuda"), "device", "cpu with --async=hogwild")

    epochs: int = option(150, "maximum number of passes through the training data", low=1)
    patience: int = option(
        10, "number of epochs without a better dev score before training stops; 0: no limit", low=0
    )
    stop_on: str = option(
        "loss",
        "dev score for choosing the best epoch: loss or error-rate",
        choices=("loss", "error-rate"),
    )
    batch_size: int = option(1, "maximum number of utterances per update", low=1)
    sortagrad: bool = option(
        False, "first epoch in order of the batches' longest utterance, not in random order"
    )
    batch_frames: int = option(0, "maximum number of frames per update; 0: no limit", low=0)
    optimizer: str = option(
        "sgd",
        "optimiser: sgd (with --momentum), adam, adamw (with --weight-decay) or adagrad",
        choices=("sgd", "adam", "adamw", "adagrad"),
    )
    learning_rate: float = option(1e-4, "step size for the loss summed over a batch", above=0)
    schedule: str = option(
        "constant",
        "schedule of the learning rate: constant, linear (rise, fall to 0) or annealed (--anneal)",
        choices=("constant", "linear", "annealed"),
    )
    anneal: float = option(
        1.2, "divisor of the rate after each epoch of --schedule=annealed", low=1, high=1000
    )
    warm_up: float = option(
        0.05, "share of the training in which --schedule=linear raises the rate", low=0, below=1
    )
    momentum: float = option(0.9, "momentum of --optimizer=sgd", low=0)
    nesterov: bool = option(False, "momentum by the rule of Y. Nesterov, with --optimizer=sgd")
    weight_decay: float = option(
        0.01, "share of each weight that adamw subtracts, times the learning rate", low=0
    )
    clip_norm: float = option(
        0.0, "norm that larger gradients are scaled down to; 0: no limit", low=0
    )
    init_scale: float = option(
        0.1, "limit x of initial weights, uniform in [-x, x]", low=0, high=100
    )
    dropout: float = option(
        -1.0, "probability of dropout; -1: that of the architecture", low=0, below=1
    )
    weight_noise: float = option(
        0.0, "standard deviation of Gaussian noise on all weights, drawn for each update", low=0
    )
    average: float = option(
        0.0, "decay per update of a running average of the weights; 0: no average", low=0, below=1
    )
    precision: str = option(
        "float32",
        "precision of matrix products: float32, or tf32 or bf16 on a GPU",
        choices=("float32", "tf32", "bf16"),
    )
    async_: str = option(
        "false",
        "asynchronous SGD: true (workers and shards of the weights), or hogwild (shared memory)",
        choices=("false", "true", "hogwild"),
    )
    shards: int = option(1, "processes of --async among which the weights are split", low=1)
    fetch_every: int = option(
        1, "number of batches between two pulls of the weights by a worker of --async", low=1
    )
    push_every: int = option(
        1, "number of batches whose gradients a worker of --async pushes as one sum", low=1
    )
    divide_by_staleness: bool = option(
        False, "divide a step of --async by 1 + the updates since the weights were pulled"
    )
    workers: int = option(2, "processes of --async=hogwild", low=1, most=10000)
    save_every: float = option(300.0, "time between checkpoints within an epoch, in s", low=0)
    timeout: float = option(
        10.0, "time to wait for another process under torchrun or srun, in minutes", above=0
    )
    keep_epochs: int = option(
        0, "number of last epochs whose weights are kept for average_models.py", low=0
    )
    tensorboard: bool = option(True, "write events for TensorBoard beside metrics.jsonl")
    seed: int = option(0, "seed of all random numbers; it determines the model on a CPU", low=0)
    device: str = option("auto", "device to compute on: cpu, cuda or auto", choices=DEVICES)
    threads: int = option(1, "number of CPU threads; more pay off with large batches", low=1)


@dataclass(frozen=True, kw_only=True)
class AcousticTrainOptions(TrainOptions):
    """Options of a training that reads features; those of a CTC network."""

    input_noise: float = option(
        0.0, "standard deviation of Gaussian noise on the normalised features", low=0
    )
    time_masks: int = option(0, "number of stretches of frames to mask in each utterance", low=0)
    time_mask_width: int = option(20, "maximum width of a time mask, in frames", low=0)
    freq_masks: int = option(0, "number of bands of channels to mask in each utterance", low=0)
    freq_mask_width: int = option(8, "maximum width of a frequency mask, in channels", low=0)
    speed: float = option(
        0.0,
        "maximum relative change of speed and formants, such as 0.1; 0: none",
        low=0,
        below=1,
    )
    warp: float = option(
        0.0,
        "maximum relative shift of the formants, such as 0.1; 0: none",
        low=0,
        below=1,
    )
    skip_short: bool = option(
        True, "leave out utterances that are too short for their tokens; false: fail"
    )
    allow_pipes: bool = option(False, "run the commands of scp entries")


@dataclass(frozen=True, kw_only=True)
class TransducerTrainOptions(AcousticTrainOptions):
    """Options of the training of a transducer."""

    ctc_weight: float = option(
        0.0,
        "weight of a CTC loss on the encoder; the transducer loss has 1 minus it",
        low=0,
        below=1,
    )


@dataclass(frozen=True, kw_only=True)
class FramewiseTrainOptions(AcousticTrainOptions):
    """Options of the training of a frame-wise network.

    [S14] is H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Based Recurrent Neural Network
    Architectures for Large Vocabulary Speech Recognition", arXiv 1402.1128, 2014.
    """

    delay: int = option(
        -1,
        "number of frames by which outputs come late, 5 in [S14]; -1: that of the architecture",
        low=-1,
        most=1000,
    )
    bptt: int = option(
        20,
        "frames of a subsequence of truncated backpropagation, 20 in [S14]; 0: whole utterances",
        low=0,
    )
    streams: int = option(
        4, "utterances that --bptt reads side by side, 4 or 8 in [S14]", low=1, most=10000
    )

    @property
    def used_streams(self) -> int:
        """The number of streams; 0: whole utterances."""
        return self.streams if self.bptt else 0

    def check(self) -> None:
        """See `Options.check`."""
        super().check()
        require(
            not (self.bptt and self.speed),
            "speed",
            "0 with --bptt, which cuts by numbers of frames",
        )
        require(
            not (self.bptt and self.sortagrad),
            "sortagrad",
            "false with --bptt, whose updates are not batches of utterances",
        )


# Options that may differ between the runs of a training; others would make it another experiment.
RESUMABLE_CHANGES = frozenset(
    {"epochs", "patience", "device", "threads", "allow_pipes", "workers"}
    | {"save_every", "timeout", "keep_epochs", "tensorboard"}
)
