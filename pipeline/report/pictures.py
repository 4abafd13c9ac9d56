"""Pictures as data URIs, with words for those who do not see them."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipeline.errors import DataError, PipelineError
from pipeline.report.scores import EPS, Decoding
from pipeline.scoring.asynchronous import Asynchronous, together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.plots.sweep import SweepPoint
    from pipeline.plots.utterance import PlottedUtterance

TYPES = {"png": "image/png", "svg": "image/svg+xml"}
CAPTIONS = {
    "curves": "Dashed: loss on the training data; solid: on the development data. The dot is the "
    "epoch whose weights are kept.",
    "staleness": "Above, how many updates a shard made between a worker’s pull of the weights and "
    "its push, in percent of the pushes of each epoch. Below, each worker over the whole training: "
    "its speed, and the share of its time in which it waited for shards and coordinator.",
    "sweep": "Above, error rate with its insertions and deletions; below, the time of encoder and "
    "search as a share of the duration of the speech.",
    "confusions": "Rows are what was said, columns what was recognised, in percent of the row; the "
    "last column is what was missed, the last row what was added.",
    "lattice": "Forward variables, backward variables and their product over the lattice: time to "
    "the right, labels emitted upwards; below, the spectrogram. Each diagonal of the product sums "
    "to Pr(y|x), [G12] Fig. 2 and eq. 19.",
    "transducer": "What the output at the crosshair depends on: frames and frequencies below, "
    "labels emitted before at the left, [G12] Fig. 3.",
    "ctc": "What the outputs in red depend on: the derivative of their log-odds with respect to "
    "the filter bank, [G13] Fig. 3.",
    "posteriors": "How probable each token is at each time, the blank in grey; below, where "
    "reference and hypothesis stand, and the spectrogram.",
}


@dataclass(frozen=True)
class Table:
    """The numbers that a picture shows: a header and rows, all as text."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Picture:
    """A picture: ``alt`` says what it shows, ``caption`` how to read it; its size in pixels."""

    uri: str
    size: tuple[int, int]
    alt: str
    caption: str
    table: Table | None = None


Found: TypeAlias = tuple[list[Picture], list[str]]  # pictures, and why some are not there


def picture(
    figure: "Figure", kind: str, alt: str, caption: str, table: Table | None = None
) -> Picture:
    """A matplotlib figure as a ``png`` or ``svg`` data URI."""
    from pipeline.plots.figures import DPI, render

    width, height = (round(DPI * side) for side in figure.get_size_inches())
    text = base64.b64encode(render(figure, kind)).decode("ascii")
    return Picture(f"data:{TYPES[kind]};base64,{text}", (width, height), alt, caption, table)


class Gallery:
    """Draws the pictures of a page. What cannot be drawn is a sentence on it.

    Args:
        names: of the models.
    """

    def __init__(self, names: Mapping[Path, str]) -> None:
        self.names = names

    def curves(self, models: Sequence[Path]) -> Found:
        """The learning curves of all models that have ``metrics.jsonl``, in one picture."""
        from pipeline.plots.learning_curves import draw_training, read_run

        runs, notes = {}, []
        for model in models:
            try:
                runs[self.names[model]] = read_run(model)
            except PipelineError as error:
                notes.append(f"No curves of {self.names[model]}: {error}.")
        if not runs:
            return [], notes
        columns = ("Model", "Epochs", "Best epoch", "Loss, nats a token", "Metric", "Error rate, %")
        rows = [
            (
                name,
                str(len(run.epochs)),
                str(run.best.number),
                f"{run.best.dev_loss:.3f}",
                run.best.metric,
                f"{run.best.error_rate:.2f}",
            )
            for name, run in runs.items()
        ]
        alt = "Loss and error rate over the epochs of " + ", ".join(runs)
        caption, table = CAPTIONS["curves"], Table(columns, rows)
        return [picture(draw_training(runs), "svg", alt, caption, table)], notes

    def staleness(self, model: Path, epochs: Mapping[int, Asynchronous]) -> Picture:
        """How stale gradients were in an asynchronous training, and what its workers did."""
        from pipeline.plots.staleness import draw_staleness

        seen = {number: together(epoch.staleness) for number, epoch in epochs.items()}
        columns = ("Epoch", "Updates", "Utterances", "Mean staleness", "Largest staleness")
        rows = [
            (
                str(number),
                f"{epoch.updates:,}",
                f"{epoch.utterances:,}",
                f"{seen[number].mean:.2f}" if seen[number].pushes else "–",
                f"{seen[number].largest:,}",
            )
            for number, epoch in epochs.items()
        ]
        alt = f"Staleness and workers of {self.names[model]}"
        caption, table = CAPTIONS["staleness"], Table(columns, rows)
        return picture(draw_staleness(epochs), "svg", alt, caption, table)

    def sweeps(self, models: Sequence[Path]) -> Found:
        """Error rate against the width of the beam, a picture a ``sweep_NAME`` of any model."""
        from pipeline.plots.sweep import read_sweep

        found: dict[str, dict[Path, list[SweepPoint]]] = {}
        notes = []
        for model in models:
            for file in sorted(model.glob("sweep_*/sweep.tsv")):
                try:
                    found.setdefault(file.parent.name, {})[model] = read_sweep(file)
                except PipelineError as error:
                    notes.append(f"{error}.")
        if not found and not notes:
            notes.append(
                "No model has sweep_NAME/sweep.tsv; sweep_beam.sh makes it: error rate and time "
                "for several widths."
            )
        return [self._sweep(name, sweeps) for name, sweeps in sorted(found.items())], notes

    def _sweep(self, name: str, sweeps: "Mapping[Path, list[SweepPoint]]") -> Picture:
        from pipeline.plots.sweep import draw_sweeps

        shift_ms = _frame_shift_ms(next(iter(sweeps)))
        named = {self.names[model]: widths for model, widths in sweeps.items()}
        figure = draw_sweeps(named, frame_shift_ms=shift_ms, title=name.removeprefix("sweep_"))
        columns = ("Model", "Beam", "Error rate, %", "Insertions, %", "Deletions, %", "Real time")
        rows = [
            (
                model,
                str(w.beam),
                f"{w.error_rate:.2f}",
                f"{w.insertions:.2f}",
                f"{w.deletions:.2f}",
                f"{1000.0 * w.seconds_a_frame / shift_ms:.4f}",
            )
            for model, widths in named.items()
            for w in widths
        ]
        alt = f"Error rate and time against the width of the beam on {name.removeprefix('sweep_')}"
        return picture(figure, "svg", alt, CAPTIONS["sweep"], Table(columns, rows))

    def confusions(self, decoding: Decoding) -> Found:
        """The matrix of confusions of one system on one set."""
        from pipeline.plots.confusions import count_confusions, draw_confusions

        pairs: Counter[tuple[str, str]] = Counter()
        for utterance in decoding.utterances.values():
            pairs.update(utterance.pairs)
        title = f"{self.names[decoding.model]}, {decoding.set_name}"
        if not pairs:
            return [], [f"No matrix of {title}: there is no table of alignments."]
        bare = Counter({(_bare(ref), _bare(hyp)): n for (ref, hyp), n in pairs.items()})
        figure = draw_confusions(count_confusions(bare), title=title)
        return [picture(figure, "png", f"Confusions of {title}", CAPTIONS["confusions"])], []

    def inside(self, decodings: Sequence[Decoding], utt_id: str) -> Found:
        """The papers' pictures of an utterance, by each model."""
        pictures: list[Picture] = []
        notes = []
        for decoding in decodings:
            name = self.names[decoding.model]
            try:
                pictures += _inside(decoding, utt_id, f"{utt_id}, {name}")
            except (PipelineError, OSError) as error:
                notes.append(f"No pictures of {utt_id} by {name}: {error}.")
        return pictures, notes


def _bare(token: str) -> str:
    return "" if token == EPS else token


def _frame_shift_ms(model: Path) -> float:
    """That of the model's features; 10 ms where it does not know."""
    from pipeline.models.model_dir import ModelDir

    try:
        return ModelDir.open(model).front_end().frame_shift_ms
    except PipelineError:
        return 10.0


def _inside(decoding: Decoding, utt_id: str, title: str) -> list[Picture]:
    """What there is to see of a model and an utterance; raises PipelineError."""
    subject = _subject(decoding, utt_id)
    figures = _of_ctc if subject.directory.kind == "ctc" else _of_transducer
    return [
        picture(figure, "png", f"{what} of {title}", f"{title}. {CAPTIONS[caption]}")
        for what, caption, figure in figures(decoding, subject, title)
    ]


def _subject(decoding: Decoding, utt_id: str) -> "PlottedUtterance":
    from pipeline.models.model_dir import ModelDir
    from pipeline.plots.plot_options import PictureOptions
    from pipeline.plots.utterance import load_utterance

    data = decoding.data_dir
    if data is None or not (data / "feats.scp").is_file():
        raise DataError("the features of its set are not found from this folder")
    directory = ModelDir.open(decoding.model)
    options = PictureOptions(
        text=f"ark:{data}/text" if (data / "text").is_file() else "",
        cmvn=f"scp:{data}/cmvn.scp" if directory.by_speaker else "",
        utt2spk=f"ark:{data}/utt2spk" if directory.by_speaker else "",
    )
    return load_utterance(directory, f"scp:{data}/feats.scp", utt_id, options)


Drawn: TypeAlias = "Iterator[tuple[str, str, Figure]]"  # what, its caption's key, the figure


def _of_ctc(decoding: Decoding, subject: "PlottedUtterance", title: str) -> Drawn:
    from pipeline.plots.sensitivity_ctc import compute_ctc_sensitivity, draw_ctc_sensitivity

    yield from _posteriors(decoding, subject, title)
    found = compute_ctc_sensitivity(subject)
    yield "Sensitivity", "ctc", draw_ctc_sensitivity(subject, found, title=title)


def _of_transducer(decoding: Decoding, subject: "PlottedUtterance", title: str) -> Drawn:
    from pipeline.plots.lattice import compute_lattice, draw_lattice, need_transducer
    from pipeline.plots.sensitivity import compute_sensitivity, draw_sensitivity

    yield from _posteriors(decoding, subject, title)
    targets = subject.targets()
    lattice = compute_lattice(need_transducer(subject), subject.inputs, targets)
    yield "Lattice", "lattice", draw_lattice(subject, lattice, targets, title=title)
    found = compute_sensitivity(subject, targets)
    yield "Sensitivity", "transducer", draw_sensitivity(subject, found, title=title)


def _posteriors(decoding: Decoding, subject: "PlottedUtterance", title: str) -> Drawn:
    from pipeline.plots.posteriors import compute_posteriors, draw_posteriors, recognised_spans

    found = compute_posteriors(subject, subject.targets())
    hyp = recognised_spans(subject) if subject.reference is not None else []
    yield "Posteriors", "posteriors", draw_posteriors(subject, found, hyp=hyp, title=title)
