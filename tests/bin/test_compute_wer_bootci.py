"""compute_wer_bootci.py: Kaldi's lines and, within the noise of random draws, its numbers."""

import re
from pathlib import Path

import numpy as np
import pytest


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.\d+", text)]


def test_it_prints_what_kaldi_prints(golden: Path, execute) -> None:
    folder = golden / "scoring"
    tables = [f"ark:{folder}/{name}.txt" for name in ("ref", "hypA", "hypB")]
    done = execute("compute_wer_bootci.py", "--mode=strict", *tables)
    assert done.status == 0, done.err
    wanted = (folder / "bootci").read_text()
    digits = re.compile(r"\d+\.\d+")
    assert digits.sub("N", done.out) == digits.sub("N", wanted)
    np.testing.assert_allclose(numbers(done.out), numbers(wanted), atol=0.06)
    again = execute("compute_wer_bootci.py", *tables)
    assert again.out == done.out
    one = execute("compute_wer_bootci.py", *tables[:2])
    assert one.out == done.out.splitlines(keepends=True)[0]


def test_the_interval_is_that_of_many_utterances(execute, tmp_path: Path) -> None:
    """400 utterances of one token, a quarter wrong: a binomial's standard deviation."""
    lines = [f"u{n:03d}" for n in range(400)]
    (tmp_path / "ref").write_text("".join(f"{u} a\n" for u in lines))
    (tmp_path / "hyp").write_text(
        "".join(f"{u} {'b' if n % 4 == 0 else 'a'}\n" for n, u in enumerate(lines))
    )
    done = execute("compute_wer_bootci.py", f"ark:{tmp_path}/ref", f"ark:{tmp_path}/hyp")
    mean, _, low, high = numbers(done.out.replace("95%", "95.0%"))
    assert mean == pytest.approx(25.0, abs=0.1)
    margin = 196 * (0.25 * 0.75 / 400) ** 0.5
    assert (high - low) / 2 == pytest.approx(margin, rel=0.03)


def test_equal_systems_do_not_beat_each_other(golden: Path, execute) -> None:
    folder = golden / "scoring"
    tables = [f"ark:{folder}/{name}.txt" for name in ("ref", "hypA", "hypA")]
    assert "improving Set1: 0.00" in execute("compute_wer_bootci.py", *tables).out


def test_modes_and_errors(execute, tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("a x y\nb x\n")
    (tmp_path / "hyp").write_text("a x y\n")
    (tmp_path / "empty").write_text("a\nb\n")
    pair = (f"ark:{tmp_path}/ref", f"ark:{tmp_path}/hyp")
    done = execute("compute_wer_bootci.py", *pair)
    assert (done.status, "b: there is no hypothesis for this utterance" in done.err) == (1, True)
    assert execute("compute_wer_bootci.py", "--mode=present", *pair).out.startswith(
        "Set1: %WER 0.00"
    )
    done = execute("compute_wer_bootci.py", "--mode=all", *pair)
    assert done.status == 0
    assert numbers(done.out)[0] > 20.0
    done = execute("compute_wer_bootci.py", f"ark:{tmp_path}/empty", f"ark:{tmp_path}/empty")
    assert (done.status, "no tokens" in done.err) == (1, True)
    assert execute("compute_wer_bootci.py", "--mode=some", *pair).status == 2
    assert execute("compute_wer_bootci.py", "--replications=1", *pair).status == 2
