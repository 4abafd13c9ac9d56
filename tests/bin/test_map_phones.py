"""bin/map_phones.py as its users run it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

MAP = Path(__file__).resolve().parents[2] / "egs" / "timit" / "conf" / "phones.60-48-39.map"
Run = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def fold(run_bin: Run) -> Run:
    return lambda *args, **kwargs: run_bin("map_phones.py", *args, **kwargs)


def test_files(fold: Run, tmp_path: Path) -> None:
    text, out = tmp_path / "text", tmp_path / "text.39"
    text.write_text("u1 h# q ao bcl b\nu2 q\nu3\n")
    done = fold(MAP, f"ark:{text}", f"ark,t:{out}")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in out.read_text().splitlines()] == [
        ["u1", "sil", "aa", "sil", "b"],
        ["u2"],
        ["u3"],
    ]
    assert done.stderr.decode().splitlines()[-1] == (
        "LOG (map_phones.py) Done 3 utterances, 0 failed"
    )


@pytest.mark.parametrize("dash", ["-", "ark:-"])
def test_pipe(fold: Run, dash: str) -> None:
    done = fold(MAP, dash, dash.replace("ark:", "ark,t:"), stdin=b"u1 h# zh\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [b"u1", b"sil", b"sh"]


def test_sets(fold: Run) -> None:
    to_48 = fold("--to-set=48", MAP, "-", "-", stdin=b"u1 h# bcl zh\n", check=True)
    assert to_48.stdout.split() == [b"u1", b"sil", b"vcl", b"zh"]
    to_39 = fold("--from-set", "48", MAP, "-", "-", stdin=to_48.stdout, check=True)
    assert to_39.stdout.split() == [b"u1", b"sil", b"sil", b"sh"]
    again = fold(MAP, "-", "-", stdin=to_39.stdout, check=True)
    assert again.stdout == to_39.stdout
    assert fold("--to-set=60", MAP, "-", "-", stdin=b"u1 aa\n").returncode == 2


def test_unknown_phone(fold: Run, tmp_path: Path) -> None:
    text, out = tmp_path / "text", tmp_path / "out"
    text.write_text("u1 aa\nu2 aa axr2\n")
    done = fold(MAP, f"ark:{text}", f"ark,t:{out}")
    assert done.returncode == 1
    assert f'{text}:2: unknown phone "axr2"' in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not out.exists()


def test_permissive_skips_and_counts(fold: Run, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("u1 axr2\nu2 aa\n")
    done = fold(MAP, f"ark,p:{text}", "ark,t:-")
    assert done.returncode == 0
    assert done.stdout.split() == [b"u2", b"aa"]
    assert "Done 1 utterances, 1 failed" in done.stderr.decode()


def test_nothing_to_do_is_a_failure(fold: Run) -> None:
    assert fold(MAP, "-", "-", stdin=b"").returncode == 1


def test_no_map(fold: Run, tmp_path: Path) -> None:
    done = fold(tmp_path / "none", "-", "-", stdin=b"u1 aa\n")
    assert done.returncode == 1
    assert b"none: cannot read this phone map" in done.stderr
