"""The commands that draw, as their users run them."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.data_dir import read_map
from pipeline.models.weights import read_weights
from pipeline.tables import MatrixWriter, read_matrix

UTT = "s1-u2"


@pytest.fixture
def draw(trained: Path, execute, tmp_path: Path) -> Callable[..., object]:
    """Draw an utterance of the toy corpus, by default ``UTT``, into ``tmp_path/picture.png``."""

    def run(command: str, kind: str, *options: object, **other: object) -> object:
        dev = trained / "toy" / "dev"
        arguments = (
            other.get("model", trained / kind),
            other.get("feats", f"scp:{dev}/feats.scp"),
            other.get("utt", UTT),
            tmp_path / other.get("picture", "picture.png"),
        )
        return execute(f"plot_{command}.py", *options, *arguments)

    return run


def is_picture(path: Path) -> bool:
    data = path.read_bytes()
    if path.suffix == ".svg":
        return data.startswith(b"<?xml") and data.rstrip().endswith(b"</svg>")
    return data.startswith(b"\x89PNG") and struct.unpack(">I", data[16:20])[0] >= 1200


def fails(done, status: int, text: str) -> None:
    assert done.status == status, done.err
    assert text in done.err
    assert "Traceback" not in done.err
    assert "unexpected" not in done.err


CASES = [
    ("lattice", "transducer"),
    ("sensitivity", "transducer"),
    ("sensitivity", "ctc"),
    ("posteriors", "transducer"),
    ("posteriors", "ctc"),
]


@pytest.mark.parametrize(("command", "kind"), CASES)
def test_a_picture_of_an_utterance(trained, draw, tmp_path, command, kind) -> None:
    """The hypothesis as PNG and the reference as SVG; both are the same when drawn again."""
    done = draw(command, kind)
    assert (done.status, done.out) == (0, ""), done.err
    assert is_picture(tmp_path / "picture.png")
    text = f"--text=ark:{trained}/toy/dev/text"
    for name in ("a.svg", "b.svg"):
        assert draw(command, kind, text, picture=name).status == 0
    assert is_picture(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_segmentation(draw, tmp_path) -> None:
    (tmp_path / "u.PHN").write_text("0 800 a\n800 2400 b\n")
    (tmp_path / "u.ctm").write_text(f"{UTT} 1 0.0 0.1 a\n")
    for option in (f"--phn={tmp_path}/u.PHN", f"--ctm={tmp_path}/u.ctm"):
        for command in ("sensitivity", "posteriors"):
            assert draw(command, "ctc", option).status == 0
    done = draw("sensitivity", "ctc", f"--phn={tmp_path}/none")
    fails(
        done,
        1,
        "none: cannot read these times: No such file or directory; give a .PHN file of TIMIT",
    )
    fails(
        draw("posteriors", "ctc", f"--ctm={tmp_path}/none"),
        1,
        "; give a file of decode_*.py --write-ctm",
    )
    fails(draw("posteriors", "ctc", f"--ctm={tmp_path}/u.PHN"), 1, "lacks utterance")


def test_options_out_of_place(draw, tmp_path) -> None:
    fails(draw("lattice", "ctc"), 1, "a transducer model is needed here")
    fails(draw("lattice", "predictor"), 1, "a transducer model is needed here")
    fails(draw("sensitivity", "predictor"), 1, "a predictor alone recognises nothing")
    fails(draw("sensitivity", "ctc", "--label=1"), 2, "applies only to a transducer model")
    fails(draw("sensitivity", "transducer", "--phones=a"), 2, "applies only to a ctc model")
    fails(
        draw("sensitivity", "transducer", "--frame=999"), 2, "--frame must be an encoder frame, 0 …"
    )
    fails(draw("sensitivity", "transducer", "--frame=-5"), 2, "or -1, not -5")
    fails(draw("sensitivity", "transducer", "--label=-2"), 2, "or -1, not -2")
    fails(draw("sensitivity", "ctc", "--frame=-5"), 2, "applies only to a transducer model")
    fails(draw("sensitivity", "transducer", "--token=zz"), 2, 'no token "zz"')
    fails(draw("sensitivity", "ctc", "--phones=a,zz"), 2, 'no token "zz"')
    fails(draw("lattice", "transducer", "--floor=-3"), 2, "--floor must be above 0 (nats)")
    fails(draw("lattice", "transducer", "--beam=0"), 2, "--beam must be")
    fails(draw("posteriors", "ctc", picture="x.jpg"), 2, "must end in .png or .svg")
    assert not list(tmp_path.glob("*.png"))


def test_tables_that_are_wrong(trained, draw, tmp_path) -> None:
    dev = trained / "toy" / "dev"
    fails(draw("lattice", "transducer", utt="nobody"), 1, 'no utterance "nobody"')
    fails(draw("posteriors", "ctc", feats=f"scp:{tmp_path}/none"), 1, "No such file")
    empty = tmp_path / "empty"
    empty.touch()
    fails(draw("posteriors", "ctc", feats=f"ark:{empty}"), 1, "no utterance")
    fails(draw("posteriors", "ctc", f"--text=ark:{empty}"), 1, "no utterance")
    cut = tmp_path / "cut.ark"
    cut.write_bytes((dev / "feats.ark").read_bytes()[:60])
    fails(draw("posteriors", "ctc", feats=f"ark:{cut}", utt="s0-u0"), 1, "truncated or damaged")
    (tmp_path / "text").write_text(f"{UTT} a zz\n")
    fails(draw("lattice", "transducer", f"--text=ark:{tmp_path}/text"), 1, 'unknown phone "zz"')
    (tmp_path / "text").write_text(f"{UTT} {'a b ' * 50}\n")
    fails(draw("posteriors", "ctc", f"--text=ark:{tmp_path}/text"), 1, "no path of")


def test_features_that_are_wrong(trained, draw, tmp_path) -> None:
    matrix = read_matrix(read_map(trained / "toy" / "dev" / "feats.scp")[UTT])
    broken = matrix.copy()
    broken[2, 1] = np.nan
    table = {"nan": broken, "narrow": matrix[:, :4], "short": matrix[:1]}
    with MatrixWriter(f"ark:{tmp_path}/feats.ark") as writer:
        for utt, values in table.items():
            writer.write(utt, values)
    feats = f"ark:{tmp_path}/feats.ark"
    fails(draw("sensitivity", "transducer", feats=feats, utt="nan"), 1, "frame 2 is not finite")
    fails(draw("posteriors", "ctc", feats=feats, utt="narrow"), 1, "the model reads 6")
    done = draw("sensitivity", "transducer", feats=feats, utt="short")
    assert done.status == 0, done.err


def test_models_that_are_wrong(trained, draw, tmp_path) -> None:
    fails(draw("lattice", "transducer", model=tmp_path / "none"), 1, "not a model directory")
    copy = Path(shutil.copytree(trained / "transducer", tmp_path / "copy"))
    shutil.rmtree(copy / "front_end")
    assert draw("sensitivity", "transducer", model=copy).status == 0
    done = draw("lattice", "transducer", "--from-audio", model=copy, feats="scp:wav.scp")
    fails(done, 1, "no record of how its features were made")
    spoil_weights(copy)
    fails(draw("lattice", "transducer", model=copy), 1, "are not finite")
    (copy / "final.safetensors").unlink()
    fails(draw("lattice", "transducer", model=copy), 1, "training has not finished")


def spoil_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = read_weights(path / "final.safetensors")
    weights["encoder.layers.0.bias"] = torch.full_like(weights["encoder.layers.0.bias"], np.nan)
    save_file(weights, path / "final.safetensors")


def test_training(trained, execute, tmp_path) -> None:
    models = [trained / kind for kind in ("ctc", "predictor", "transducer")]
    for name in ("a.png", "b.png"):
        done = execute("plot_training.py", "--title=toy", *models, tmp_path / name)
        assert done.status == 0, done.err
    assert is_picture(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    fails(execute("plot_training.py", tmp_path / "x.png"), 2, "give at least one model directory")
    fails(execute("plot_training.py", tmp_path, tmp_path / "x.png"), 1, "config.json: missing")
    fails(execute("plot_training.py", models[0], models[0], tmp_path / "x.png"), 2, "names for 2")


def test_staleness(trained, execute, asynchronous_epoch, tmp_path) -> None:
    lines = [json.dumps(asynchronous_epoch(epoch)) for epoch in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    draw = ("plot_training.py", "--what=staleness")
    done = execute(*draw, "--title=toy", tmp_path, tmp_path / "a.png")
    assert done.status == 0, done.err
    assert is_picture(tmp_path / "a.png")
    fails(execute(*draw, trained / "ctc", tmp_path / "x.png"), 1, "has no staleness")
    for more in ([tmp_path], ["--name=a"]):
        fails(execute(*draw, *more, tmp_path, tmp_path / "x.png"), 2, "draws one model, without")
    fails(execute("plot_training.py", "--what=all", tmp_path, tmp_path / "x.png"), 2, "--what")


def test_confusions(execute, tmp_path) -> None:
    (tmp_path / "al").write_text("u iy iy ; s z ; <eps> t ; n <eps> \n")
    for name in ("a.svg", "b.png"):
        done = execute("plot_confusions.py", tmp_path / "al", tmp_path / name)
        assert done.status == 0, done.err
        assert is_picture(tmp_path / name)
    fails(execute("plot_confusions.py", tmp_path / "none", tmp_path / "x.png"), 1, "No such file")
    (tmp_path / "al").write_text(json.dumps({"a": 1}))
    fails(execute("plot_confusions.py", tmp_path / "al", tmp_path / "x.png"), 1, "is not a pair")
