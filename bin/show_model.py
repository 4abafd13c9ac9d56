#!/usr/bin/env python3
"""Print the layers of a model and the number of its weights.

Usage: show_model.py [options] MODEL

e.g.: show_model.py conf/ctc_3l_250h.toml
      show_model.py --json exp/ctc

MODEL is a model directory of train_*.py, or a TOML file that describes an architecture. For
LSTM layers that read forwards and an output layer, the number of weights without biases is printed
too: H. Sak, A. Senior and F. Beaufays, 2014, count LSTM and LSTMP networks so.

See also: train_ctc.py, train_predictor.py, train_transducer.py
"""

import pipeline.environment  # isort: skip  # noqa: F401

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from pipeline.cli import run
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.nn.config import ModelConfig


def main(
    model: Annotated[Path, Argument(help="model directory, or TOML file of an architecture")],
    num_tokens: Annotated[
        int, Option(help="number of tokens with the blank; 0: as stated in the TOML file")
    ] = 0,
    as_json: Annotated[bool, Option("--json/--no-json", help="print JSON")] = False,
) -> int:
    from pipeline.nn.config import load_model_config

    if model.suffix == ".toml":
        config = load_model_config(model)
        config = config.part(config.kind, str(model))
        if num_tokens:
            config = dataclasses.replace(config, num_tokens=num_tokens)
        if config.num_tokens is None or config.num_tokens < 2:
            raise ConfigError(
                f"{model}: does not state the number of tokens; give --num-tokens, 2 or more"
            )
    else:
        from pipeline.models.model_dir import ModelDir

        config = ModelDir.open(model).config
    from pipeline.nn.layers import count_weights
    from pipeline.nn.models import build_model, require_room

    assert config.num_tokens is not None
    require_room(config, num_tokens=config.num_tokens, where=model)
    network = build_model(config, num_tokens=config.num_tokens)
    layers = {n: (tuple(p.shape), p.numel()) for n, p in network.named_parameters()}
    total = sum(count for _, count in layers.values())
    plain = count_weights(network, with_biases=False) if _is_counted_so(config) else None
    if as_json:
        facts = {
            "kind": config.kind,
            "num_tokens": config.num_tokens,
            "weights": total,
            **({} if plain is None else {"weights_without_biases": plain}),
            "layers": {name: list(shape) for name, (shape, _) in layers.items()},
        }
        print(json.dumps(facts, indent=2))
        return 0
    print(f"kind    {config.kind}\ntokens  {config.num_tokens}\n")
    width = max(map(len, layers))
    for name, (shape, count) in layers.items():
        print(f"{name:{width}}  {'×'.join(map(str, shape)):>14}  {count:>12,}")
    print(f"{'total weights':{width}}  {'':>14}  {total:>12,}")
    if plain is not None:
        print(f"{'without biases':{width}}  {'':>14}  {plain:>12,}")
    return 0


def _is_counted_so(config: "ModelConfig") -> bool:
    """Whether the formula of Sak et al. counts the weights of this architecture."""
    encoder = config.encoder
    is_lstm = getattr(encoder, "cell", "") == "lstm" and not getattr(encoder, "bidirectional", True)
    return config.kind in ("ctc", "framewise") and is_lstm


if __name__ == "__main__":
    run(main)
