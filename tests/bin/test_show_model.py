"""bin/show_model.py as its users run it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

CONF = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf"
Run = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def show(run_bin: Run) -> Run:
    return lambda *args, **kwargs: run_bin("show_model.py", *args, **kwargs)


def test_the_total_is_the_papers(show: Run) -> None:
    lines = show(CONF / "trans_3l_250h.toml", check=True).stdout.decode().splitlines()
    assert lines[0].split() == ["kind", "transducer"]
    assert lines[1].split() == ["tokens", "62"]
    assert lines[-1].split() == ["total", "weights", "4,335,312"]
    layers = [line.split() for line in lines[3:-1]]
    assert sum(int(count.replace(",", "")) for _, _, count in layers) == 4_335_312
    assert ["encoder.layers.0.w_input", "2×1000×123", "246,000"] in layers


def test_json(show: Run) -> None:
    facts = json.loads(show("--json", CONF / "g12_predictor.toml", check=True).stdout)
    assert (facts["kind"], facts["num_tokens"], facts["weights"]) == ("predictor", 40, 91_431)
    assert facts["layers"]["predictor.layer.w_input"] == [1, 512, 39]


def test_num_tokens_for_a_file_that_does_not_say(show: Run) -> None:
    refused = show(CONF / "demo.toml")
    assert refused.returncode == 2
    assert b"demo.toml: does not state the number of tokens; give --num-tokens" in refused.stderr
    assert refused.stdout == b""
    shown = show("--num-tokens=62", CONF / "demo.toml", check=True)
    assert b"kind    transducer" in shown.stdout


def write_toml(folder: Path, text: str) -> Path:
    path = folder / "model.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("[predictor]\ncells=3", ["--num-tokens=-3"], "--num-tokens must be 2 or more, not -3"),
        ("[predictor]\ncells=3", ["--num-tokens=1"], "--num-tokens must be 2 or more, not 1"),
        ("num_tokens=1\n[predictor]\ncells=3", [], "num_tokens must be 2 or more, not 1"),
        (
            "num_tokens=5\n[encoder]\ninput_dim=3\nlayers=1\ncells=2\n[predictor]\ncells=3",
            [],
            "a transducer model needs [joiner]; add it",
        ),
        ("num_tokens=5\n[predictor]\ncels=3", [], "predictor.cels: unknown key; did you mean"),
    ],
)
def test_a_wrong_architecture_is_a_message_and_no_traceback(
    show: Run, tmp_path: Path, text: str, options: list[str], said: str
) -> None:
    done = show(*options, write_toml(tmp_path, text))
    message = done.stderr.decode()
    assert done.returncode == 2
    assert said in message
    assert "Traceback" not in message
    assert done.stdout == b""


def test_what_is_no_model(show: Run, tmp_path: Path) -> None:
    missing = show(tmp_path / "none.toml")
    assert missing.returncode == 2
    assert b"cannot read this architecture" in missing.stderr
    empty = show(tmp_path)
    assert empty.returncode == 1
    assert b"has no readable config.json" in empty.stderr
    nowhere = show(tmp_path / "exp")
    assert nowhere.returncode == 1
    assert b"not a model directory" in nowhere.stderr


def test_a_model_directory(show: Run, tmp_path: Path) -> None:
    from pipeline.nn.config import load_model_config, to_data

    config = load_model_config(CONF / "g12_ctc.toml")
    data = {"format_version": 1, "kind": "ctc", "model": to_data(config), "options": {}}
    (tmp_path / "config.json").write_text(json.dumps(data))
    symbols = ["<blk>", *(f"p{n}" for n in range(1, 40))]
    (tmp_path / "tokens.txt").write_text("".join(f"{s} {n}\n" for n, s in enumerate(symbols)))
    shown = show(tmp_path, check=True)
    assert shown.stdout.decode().splitlines()[-1].split()[-1] == "169,768"
