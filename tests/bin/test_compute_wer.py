"""compute_wer.py: Kaldi's lines, its modes, folding, and what is refused."""

from pathlib import Path
from random import Random

import pytest
from rapidfuzz.distance import Levenshtein


@pytest.fixture
def text(tmp_path: Path):
    """Write a text table and return its rspecifier."""

    def write(name: str, content: str) -> str:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return f"ark:{tmp_path / name}"

    return write


@pytest.mark.parametrize("system", ["hypA", "hypB"])
def test_the_same_bytes_as_kaldi(run_bin, golden: Path, system: str) -> None:
    folder = golden / "scoring"
    done = run_bin(
        "compute_wer.py",
        "--text",
        "--mode=strict",
        f"ark:{folder / 'ref.txt'}",
        f"ark:{folder / system}.txt",
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == (folder / f"{system}.compute-wer").read_bytes()
    assert done.stderr.decode().splitlines()[-1].endswith("Done 200 utterances, 0 failed")


@pytest.mark.parametrize(
    ("mode", "code", "out"),
    [
        ("strict", 1, ""),
        (
            "present",
            0,
            "%WER 0.00 [ 0 / 1, 0 ins, 0 del, 0 sub ] [PARTIAL]\n"
            "%SER 0.00 [ 0 / 1 ]\nScored 1 sentences, 1 not present in hyp.\n",
        ),
        (
            "all",
            0,
            "%WER 50.00 [ 1 / 2, 0 ins, 1 del, 0 sub ] [PARTIAL]\n"
            "%SER 50.00 [ 1 / 2 ]\nScored 2 sentences, 1 not present in hyp.\n",
        ),
    ],
)
def test_modes(run_bin, text, mode: str, code: int, out: str) -> None:
    ref, hyp = text("ref", "u1 a\nu2 é\n"), text("hyp", "u2 é\nu3 c\n")
    done = run_bin("compute_wer.py", f"--mode={mode}", ref, hyp)
    assert (done.returncode, done.stdout.decode()) == (code, out)
    if mode == "strict":
        assert b"u1: there is no hypothesis" in done.stderr
    else:
        assert b"u3: there is no reference for this utterance; left out" in done.stderr


def test_a_thousand_random_pairs_have_the_distance_of_rapidfuzz(run_bin, text) -> None:
    random = Random(7)
    symbols = ["a", "é", "音", "ax-h", "h#", "ß\u3000"]
    pairs = [[random.choices(symbols, k=random.randrange(9)) for _ in "rh"] for _ in range(1000)]
    sides = [
        "".join(f"u{n:04} {' '.join(pair[side])}\n" for n, pair in enumerate(pairs))
        for side in (0, 1)
    ]
    done = run_bin("compute_wer.py", text("ref", sides[0]), text("hyp", sides[1]))
    errors = sum(Levenshtein.distance(ref, hyp) for ref, hyp in pairs)
    tokens = sum(len(ref) for ref, _ in pairs)
    wrong = sum(ref != hyp for ref, hyp in pairs)
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith(f"%WER {100 * errors / tokens:.2f} [ {errors} / {tokens}, ")
    assert lines[1] == f"%SER {100 * wrong / 1000:.2f} [ {wrong} / 1000 ]"


def test_empty_references_count(run_bin, text) -> None:
    ref, hyp = text("ref", "u1\nu2 a b\n"), text("hyp", "u1 x\nu2\n")
    done = run_bin("compute_wer.py", ref, hyp)
    assert done.stdout.startswith(b"%WER 150.00 [ 3 / 2, 1 ins, 2 del, 0 sub ]\n")


def test_no_reference_tokens(run_bin, text) -> None:
    done = run_bin("compute_wer.py", text("ref", "u1\n"), text("hyp", "u1 x\n"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"references hold no tokens" in done.stderr
    assert b"Traceback" not in done.stderr


def test_nothing_in_common(run_bin, text) -> None:
    done = run_bin("compute_wer.py", "--mode=present", text("ref", "a x\n"), text("hyp", "b x\n"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no utterance was scored" in done.stderr


def test_both_sides_are_folded_and_the_rate_is_named(run_bin, text) -> None:
    text("map", "aa\taa\taa\nao\tao\taa\nh#\tsil\tsil\nq\n")
    ref, hyp = text("ref", "u1 h# ao q\n"), text("hyp", "u1 sil aa\n")
    phone_map = text("map2", "aa\taa\taa\nao\tao\taa\nh#\tsil\tsil\nq\n").removeprefix("ark:")
    options = [f"--map={phone_map}", "--map-to=39", "--name=PER"]
    done = run_bin("compute_wer.py", *options, ref, hyp)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"%PER 0.00 [ 0 / 2, 0 ins, 0 del, 0 sub ]\n%SER 0.00")
    done = run_bin("compute_wer.py", *options, text("ref", "u1 xx\n"), hyp)
    assert done.returncode == 1
    assert b'ref: u1: unknown phone "xx"' in done.stderr


def test_the_hypotheses_may_come_from_a_pipe(run_bin, text) -> None:
    done = run_bin("compute_wer.py", text("ref", "u1 a b\n"), "ark:-", stdin=b"u1 a c\n")
    assert done.stdout.startswith(b"%WER 50.00 [ 1 / 2, 0 ins, 0 del, 1 sub ]\n")


def test_usage_errors(run_bin, text) -> None:
    ref = text("ref", "u1 a\n")
    assert run_bin("compute_wer.py", "--mode=most", ref, ref).returncode == 2
    assert run_bin("compute_wer.py", ref).returncode == 2


def test_duplicates_are_refused(run_bin, text) -> None:
    done = run_bin("compute_wer.py", text("ref", "u1 a\n"), text("hyp", "u1 a\nu1 b\n"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"u1" in done.stderr
