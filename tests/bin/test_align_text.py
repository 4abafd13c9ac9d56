"""align_text.py: the bytes of Kaldi, and texts that cannot be aligned."""

from pathlib import Path

import pytest


@pytest.mark.parametrize("system", ["hypA", "hypB"])
def test_the_same_bytes_as_kaldi(run_bin, golden: Path, tmp_path: Path, system: str) -> None:
    folder = golden / "scoring"
    ref, hyp = f"ark:{folder / 'ref.txt'}", f"ark:{folder / system}.txt"
    done = run_bin("align_text.py", "--special-symbol=<eps>", ref, hyp, "ark,t:-")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == (folder / f"{system}.align").read_bytes()
    run_bin("align_text.py", ref, hyp, f"ark,t:{tmp_path / 'out'}", check=True)
    assert (tmp_path / "out").read_bytes() == done.stdout


def test_symbols_can_be_chosen(run_bin, tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("u1 a ;\nu2\n")
    (tmp_path / "hyp").write_text("u1 ;\nu2\n")
    args = [f"ark:{tmp_path / 'ref'}", f"ark:{tmp_path / 'hyp'}", "ark:-"]
    done = run_bin("align_text.py", "--special-symbol=***", "--separator=|", *args)
    assert (done.returncode, done.stdout) == (0, b"u1 a *** | ; ; \nu2 \n")
    done = run_bin("align_text.py", *args)
    assert done.returncode == 1
    assert b'u1: the text holds the symbol ";"' in done.stderr
    assert run_bin("align_text.py", *args[:2], "ark,scp:a,b").returncode == 2
    assert run_bin("align_text.py", "--separator=<eps>", *args).returncode == 2
    assert run_bin("align_text.py", "--separator=a b", *args).returncode == 2


def test_a_missing_hypothesis_fails_its_utterance_alone(run_bin, tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("u1 a\nu2 b\n")
    (tmp_path / "hyp").write_text("u2 b\n")
    hyp = f"ark:{tmp_path / 'hyp'}"
    done = run_bin("align_text.py", f"ark:{tmp_path / 'ref'}", hyp, "ark:-")
    assert (done.returncode, done.stdout) == (1, b"u2 b b \n")
    assert b"u1: there is no hypothesis" in done.stderr
    assert done.stderr.decode().splitlines()[-1].endswith("Done 1 utterances, 1 failed")
    assert run_bin("align_text.py", f"ark,p:{tmp_path / 'ref'}", hyp, "ark:-").returncode == 0


def test_both_sides_can_be_folded(run_bin, tmp_path: Path) -> None:
    (tmp_path / "map").write_text("ao ao aa\nq\n")
    (tmp_path / "ref").write_text("u1 ao q\n")
    done = run_bin(
        "align_text.py",
        f"--map={tmp_path / 'map'}",
        f"ark:{tmp_path / 'ref'}",
        f"ark:{tmp_path / 'ref'}",
        "ark:-",
    )
    assert done.stdout == b"u1 aa aa \n", done.stderr.decode()
