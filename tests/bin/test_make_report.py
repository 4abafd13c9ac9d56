"""make_report.py on trained models, and on other directories."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Execute = Callable[..., Any]


@pytest.fixture(scope="module")
def models(trained: Path, execute: Execute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained CTC network and transducer, decoded and scored on the toy corpus."""
    path = tmp_path_factory.mktemp("scored")
    data = trained / "toy" / "dev"
    for kind in ("ctc", "transducer"):
        shutil.copytree(trained / kind, path / kind)
        decode = path / kind / "decode_dev"
        decode.mkdir()
        feats, hyp = f"scp:{data}/feats.scp", f"ark,t:{decode}/hyp.txt"
        done = execute(f"decode_{kind}.py", "--beam=2", "--device=cpu", path / kind, feats, hyp)
        assert done.status == 0, done.err
        done = execute("score.py", data, decode)
        assert done.status == 0, done.err
    (path / "ctc" / "sweep_dev").mkdir()
    (path / "ctc" / "sweep_dev" / "sweep.tsv").write_text(
        "beam\tmetric\terror_rate\terrors\tref_tokens\tins\tdel\tsub\tframes\tseconds\n"
        "1\tPER\t20\t2\t10\t1\t1\t0\t100\t1.0\n10\tPER\t10\t1\t10\t1\t0\t0\t100\t2.0\n"
    )
    return path


def test_one_file_with_all_in_it(models: Path, execute: Execute, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = execute("make_report.py", models / "ctc", models / "transducer", "-o", page)
    assert done.status == 0, done.err
    assert "Done 2 models" in done.err
    text = page.read_text(encoding="utf-8")
    for alt in (
        "Loss and error rate over the epochs of ctc, transducer",
        "Error rate and time against the width of the beam on dev",
        "Confusions of ctc, dev",
        "Confusions of transducer, dev",
        "Posteriors of",
        "Lattice of",
        "Sensitivity of",
    ):
        assert f'alt="{alt}' in text, alt
    assert "Some recordings of dev are not here" in text
    assert "No pictures" not in text
    assert text.count("<img") == 9  # curves, sweep, 2 × confusions, 2 of CTC, 3 of the transducer


def test_the_chosen_utterance_and_set(models: Path, execute: Execute, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    options = ("--set=dev", "--utt=s0-u1", "--audio=0", "--worst=1", "--best=0", "--title=Toys")
    done = execute("make_report.py", *options, models / "ctc", f"--output={page}")
    assert done.status == 0, done.err
    text = page.read_text(encoding="utf-8")
    assert "<title>Toys</title>" in text
    assert "Posteriors of s0-u1, ctc" in text
    assert text.count('<article class="utt"') == 1
    assert "One system alone on dev" in text


def test_to_standard_output(models: Path, execute: Execute) -> None:
    done = execute("make_report.py", "--pictures=false", models / "ctc", "--output=-")
    assert done.status == 0, done.err
    assert done.out.startswith("<!doctype html>")
    assert "<img" not in done.out


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["-o", "x.html"], 2, "MODEL_DIR"),
        (["ctc"], 2, "--output"),
        (["ctc", "-o", "nowhere/x.html"], 1, "nowhere"),
        (["nothing", "-o", "x.html"], 1, "no such directory"),
        (["ctc", "--set=test", "-o", "x.html"], 1, "score.py DATA_DIR DECODE_DIR"),
        (["ctc", "--utt=nobody", "-o", "x.html"], 2, "no such utterance"),
        (["ctc", "--audio=-1", "-o", "x.html"], 2, "--audio must be 0 or more"),
    ],
)
def test_errors_say_what_to_do(
    models: Path,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    text: str,
) -> None:
    monkeypatch.chdir(models)
    done = execute("make_report.py", "--no-pictures", *arguments)
    assert done.status == status
    assert text in done.err
    assert "Traceback" not in done.err
    assert not (models / "x.html").exists()
