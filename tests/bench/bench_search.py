#!/usr/bin/env python3
"""Search with a transducer of PreTrans-3l-250h's size, without the encoder.

Usage: bench_search.py [--threads N] [--rounds N]

e.g.: python3 tests/bench/bench_search.py --threads=1

304 frames, 62 outputs. The distributions are like those of a trained network: at 38 frames a label
is likely, but the blank is possible, at the others the blank alone is likely; see `PeakyModel`. The
reference in Python takes minutes for an utterance, so it and the compiled search are compared on
its first frames. SpeechBrain's search is measured where it can be imported; it has no prefix sum
and does not sort as [G12] does, so it does less.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from measure import Row, machine, medians, peak_extra_bytes, seconds, show, start
from torch import Tensor

from pipeline.kernels.search.transducer import transducer_beam_search, transducer_greedy
from pipeline.kernels.search.transducer_reference import transducer_beam_search as algorithm_1
from pipeline.nn.config import load_model_config
from pipeline.nn.layers import initialise
from pipeline.nn.models import BLANK, TransducerModel, build_model

FRAMES, LABELS, TOKENS, FEATURES = 304, 38, 62, 123
FEW = 12  # frames on which the reference is measured
SPEECHBRAIN = 61  # the widest beam that SpeechBrain takes with 62 outputs
CONFIG = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf" / "trans_3l_250h.toml"


class PeakyModel:
    """The network with a joiner that says what frames want it to say, a little blurred."""

    def __init__(self) -> None:
        model = build_model(load_model_config(CONFIG), num_tokens=TOKENS)
        assert isinstance(model, TransducerModel)
        self.generator = torch.Generator().manual_seed(0)
        initialise(model, scale=0.1, generator=self.generator)
        weight = torch.randn(model.joiner.output.weight.shape, generator=self.generator)
        with torch.no_grad():
            model.joiner.output.weight.copy_(0.5 * weight)
        self.model = model.eval()

    def frames(self, count: int) -> Tensor:
        """Joiner inputs (count, T, J)."""
        size = self.model.joiner.output.weight.shape[1]
        weight = 0.15 * self.model.joiner.output.weight.detach()
        frames = weight[BLANK] + 0.15 * torch.randn(count, FRAMES, size, generator=self.generator)
        for utterance in frames:
            places = torch.randperm(FRAMES, generator=self.generator)[:LABELS]
            labels = torch.randint(1, TOKENS, (LABELS,), generator=self.generator)
            utterance[places] += 1.15 * weight[labels]
        return frames


def search(model: TransducerModel, frames: Tensor, beam: int) -> Callable[[], object]:
    """A call that searches."""
    lengths = torch.full((len(frames),), frames.shape[1])
    return lambda: transducer_beam_search(frames, lengths, model, beam=beam)


def reference(model: TransducerModel, frames: Tensor, beam: int) -> Callable[[], object]:
    """A call of Algorithm 1 line by line, with a predictor that keeps its states as well."""

    def run() -> object:
        states = {(): model.start(1)}

        def log_probs(y: tuple[int, ...], t: int) -> object:
            if y not in states:
                log_probs(y[:-1], t)
                states[y] = model.step(states[y[:-1]][0], torch.tensor([y[-1]]))
            return model.log_probs(frames[0, t : t + 1], states[y][1])[0].double().numpy()

        return algorithm_1(log_probs, frames.shape[1], beam=beam)

    return run


def speechbrain_search(model: TransducerModel, frames: Tensor, beam: int) -> Callable[[], object]:
    """A call of SpeechBrain's search on the same network, as modules of the form that it takes."""
    from speechbrain.decoders.transducer import TransducerBeamSearcher
    from speechbrain.nnet.transducer.transducer_joint import Transducer_joint

    class Embedding(torch.nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens

    class LSTM(torch.nn.Module):  # by its name SpeechBrain knows that it has a state
        def forward(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
            before = state or model.predictor.start(len(tokens))
            after, projected = model.step(before, tokens[:, 0].long())
            return projected[:, None], after

    searcher = TransducerBeamSearcher(
        decode_network_lst=[Embedding(), LSTM()],
        tjoint=Transducer_joint(joint="sum", nonlinearity=torch.nn.Tanh),
        classifier_network=[model.joiner.output],
        blank_id=BLANK,
        beam_size=beam,
        nbest=1,
        state_beam=torch.inf,
        expand_beam=torch.inf,
    )
    return lambda: searcher(frames)


def main() -> None:
    """Print the table."""
    arguments = start(__doc__.splitlines()[0])
    peaky = PeakyModel()
    model, batch = peaky.model, peaky.frames(32)
    one, few = batch[:1], batch[:1, :FEW]
    print(f"{machine()}, {arguments.threads} threads")
    rows = []
    with torch.inference_mode():
        times = medians({"100": search(model, one, 100)}, arguments.rounds)
        rows.append(Row("Algorithm 1, W 100, an utterance", times["100"], "the bound", 0.1, 1.0))
        run = search(model, few, 100)
        ours = medians({"few": run}, arguments.rounds)["few"]
        theirs = seconds(reference(model, few, 100))
        what = f"Algorithm 1, W 100, {FEW} frames"
        rows.append(Row(what, ours, "line by line in Python", theirs, 100.0))
        if importlib.util.find_spec("speechbrain"):
            ours = medians({"few": search(model, few, SPEECHBRAIN)}, arguments.rounds)["few"]
            theirs = seconds(speechbrain_search(model, few, SPEECHBRAIN))
            what = f"W {SPEECHBRAIN}, {FEW} frames"
            rows.append(Row(what, ours, "SpeechBrain's", theirs, 100.0))
        else:
            print("speechbrain cannot be imported; left out")
        wide = search(model, one, 4000)
        rows.append(Row("the same, W 4000, an utterance", seconds(wide), "the bound", 5.0, 1.0))
        used = peak_extra_bytes(wide)
        rows.append(Row("the same, W 4000, memory", used, "the bound", 1e9, 1.0, "MB"))
        features = torch.randn(32, FRAMES, FEATURES)
        lengths = torch.full((32,), FRAMES)
        times = medians(
            {
                "greedy": lambda: transducer_greedy(batch, lengths, model),
                "encoder": lambda: model.encoder(features, lengths),
            },
            arguments.rounds,
        )
        rows.append(Row("greedy, N 32", times["greedy"], "its encoder", times["encoder"], 10.0))
        best = transducer_beam_search(one, lengths[:1], model, beam=100)[0][0]
    show(rows)
    print(f"{len(best.tokens)} labels found, {-best.log_prob / FRAMES:.3f} nats a frame")


if __name__ == "__main__":
    main()
