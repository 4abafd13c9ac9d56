"""The networks in the tables of both Graves papers: gradients, and learning two utterances."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.nn.config import ModelConfig, load_model_config
from pipeline.nn.layers import initialise
from pipeline.nn.models import Model, build_model
from pipeline.notations import read_config_options
from pipeline.text.tokens import Tokens
from pipeline.training.dataset import Batch
from pipeline.training.objectives.ctc import CtcObjective
from pipeline.training.objectives.next_token import NextTokenObjective
from pipeline.training.objectives.objective import Objective, token_metric
from pipeline.training.objectives.transducer import TransducerObjective

torch.set_num_threads(1)

CONF = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf"
ROWS = sorted(path.stem for path in (CONF / "rows").glob("*.row"))
each_row = pytest.mark.parametrize("row", ROWS)


def settings(row: str) -> dict[str, str]:
    """The assignments in the file of a row."""
    text = (CONF / "rows" / f"{row}.row").read_text()
    lines = " ".join(line for line in text.splitlines() if not line.startswith("#"))
    return {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|\S+)', lines)}


def config_of(row: str) -> ModelConfig:
    found = settings(row)
    return load_model_config(CONF.parent / found["model"]).part(found["kind"], row)


def task_of(model: Model, kind: str) -> Objective:
    symbols = Tokens(["<blk>", *(f"p{k}" for k in range(1, 62))])
    if kind == "ctc":
        return CtcObjective(model, token_metric(symbols))
    if kind == "predictor":
        return NextTokenObjective(model)
    return TransducerObjective(model, token_metric(symbols))


def batch_of(
    config: ModelConfig, frames: list[int], labels: list[int], dtype: torch.dtype
) -> Batch:
    generator = torch.Generator().manual_seed(1)
    dim = config.encoder.input_dim if config.encoder else 1
    shape = (len(frames), max(frames), dim)
    tokens = torch.randint(1, config.num_tokens, (len(frames), max(labels)), generator=generator)
    if not config.encoder:  # the tokens so far must determine the next one
        tokens[:] = tokens[0]
    return Batch(
        [f"u{n}" for n in range(len(frames))],
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype),
        torch.tensor(frames),
        tokens,
        torch.tensor(labels),
    )


def test_both_tables_are_there() -> None:
    rows = {name: settings(name) for name in ROWS if not name.endswith("_b")}
    of = lambda table: {found["row"] for found in rows.values() if found["table"] == table}  # noqa: E731
    assert of("G12") == {"Prediction", "CTC", "Transducer"}
    assert of("G13") == {
        *("CTC-3l-500h-tanh", "CTC-1l-250h", "CTC-1l-622h", "CTC-2l-250h", "CTC-3l-421h-uni"),
        *("CTC-3l-250h", "CTC-5l-250h", "Trans-3l-250h", "PreTrans-3l-250h"),
    }


@each_row
def test_every_phase_has_its_options(row: str) -> None:
    """As in the papers: batches of one sequence, weight noise in the phases named after it."""
    found = settings(row)
    phases = [
        found[k].split() for k in ("pretrain_ctc", "pretrain_predictor", "phases") if k in found
    ]
    assert phases
    for number, phase in enumerate([name for part in phases for name in part]):
        options = dict(
            line.removeprefix("--").split("=")
            for line in read_config_options(CONF / f"{phase}.conf")
        )
        assert options["optimizer"] == "sgd"
        assert float(options["learning-rate"]) == 1e-4
        assert float(options["momentum"]) == 0.9
        assert options["batch-size"] == "1"
        noisy = phase.endswith("_noise") or phase.startswith("g12/")
        assert ("weight-noise" in options) == noisy, (number, phase)
        if noisy:
            assert float(options["weight-noise"]) == 0.075
    if row == "ctc_3l_500h_tanh":
        assert phases == [["g13/train_ctc"]]


@each_row
def test_the_gradient_is_the_slope_of_the_loss(row: str) -> None:
    """The gradient of the whole network in float64, along random directions in weight space."""
    config, kind = config_of(row), settings(row)["kind"]
    assert config.num_tokens is not None
    model = build_model(config, num_tokens=config.num_tokens).double()
    initialise(model, scale=0.1, generator=torch.Generator().manual_seed(0))
    objective, batch = task_of(model, kind), batch_of(config, [7, 5], [3, 2], torch.float64)
    parameters = list(model.parameters())
    objective.losses(batch).sum().backward()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _ in range(2):
            directions = [
                torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters
            ]
            slope = sum(
                (p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True)
            )

            def loss_at(step: float, directions: list[Tensor] = directions) -> float:
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(d, alpha=step)
                loss = objective.losses(batch).sum().item()
                for p, d in zip(parameters, directions, strict=True):
                    p.sub_(d, alpha=step)
                return loss

            found = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6
            assert found == pytest.approx(slope, rel=1e-6, abs=1e-6)


SMALL = {
    "bidirectional": "[encoder]\ninput_dim = 3\nlayers = 2\ncells = 2\n",
    "unidirectional": "[encoder]\ninput_dim = 3\nlayers = 2\ncells = 2\nbidirectional = false\n",
    "tanh": '[encoder]\ninput_dim = 3\nlayers = 2\ncells = 2\ncell = "tanh"\n',
    "prediction": "[predictor]\ncells = 2\n",
    "sum": "[encoder]\ninput_dim = 3\nlayers = 1\ncells = 2\n[predictor]\ncells = 2\n"
    '[joiner]\nkind = "sum"\n',
    "output network": "[encoder]\ninput_dim = 3\nlayers = 1\ncells = 2\n[predictor]\ncells = 2\n"
    '[joiner]\nkind = "tanh"\ndim = 2\n',
}


@pytest.mark.parametrize("kind", SMALL)
def test_gradcheck_of_every_weight(kind: str, tmp_path: Path) -> None:
    """A small network of each kind in the tables."""
    (tmp_path / "model.toml").write_text("num_tokens = 4\n" + SMALL[kind])
    config = load_model_config(tmp_path / "model.toml")
    model = build_model(config, num_tokens=4).double()
    initialise(model, scale=0.5, generator=torch.Generator().manual_seed(0))
    objective, batch = task_of(model, config.kind), batch_of(config, [5, 4], [2, 1], torch.float64)
    names = [name for name, _ in model.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def losses(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        with torch.nn.utils.stateless._reparametrize_module(model, given):
            return objective.losses(batch)

    assert torch.autograd.gradcheck(losses, weights)


@pytest.mark.slow
@each_row
def test_two_utterances_are_learnt(row: str) -> None:
    """Greedy decoding has 0 % PER; a prediction network predicts every next token."""
    config, kind = config_of(row), settings(row)["kind"]
    assert config.num_tokens is not None
    model = build_model(config, num_tokens=config.num_tokens)
    initialise(model, scale=0.1, generator=torch.Generator().manual_seed(0))
    objective, batch = task_of(model, kind), batch_of(config, [40, 30], [8, 6], torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(1500):
        optimizer.zero_grad()
        objective.losses(batch).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 20 == 19:
            model.eval()
            with torch.no_grad():
                scores = objective.evaluate([batch])
            model.train()
            if scores.error_rate == 0.0:
                return
    pytest.fail(f"{scores.error_rate} % after {step + 1} updates, loss {scores.loss}")
