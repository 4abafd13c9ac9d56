"""compare_wer.py: the table, JSON, several systems, what is refused."""

import json
from pathlib import Path

import pytest


def test_two_systems_of_the_golden_files(execute, golden: Path) -> None:
    folder = golden / "scoring"
    tables = [f"ark:{folder}/{name}.txt" for name in ("ref", "hypA", "hypB")]
    done = execute("compare_wer.py", "--alignment=nist", "--name=A", "--name=B", *tables)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "A  %WER 31.52 [ 1963 / 6228 ] [alignment=nist]"
    rows = [line.split() for line in lines[4:8]]
    assert [row[:4] for row in rows[:3]] == [[t, "B", "<0.001", "***"] for t in ("MP", "SI", "WI")]
    assert rows[3][:3] == ["MN", "~", "1.000"]


def test_the_error_rate_has_its_name(execute, golden: Path, tmp_path: Path) -> None:
    folder = golden / "scoring"
    tables = [f"ark:{folder}/{name}.txt" for name in ("ref", "hypA", "hypB")]
    texts = [Path(table.removeprefix("ark:")).read_text() for table in tables]
    phones = {phone for line in "".join(texts).splitlines() for phone in line.split()[1:]}
    (tmp_path / "map").write_text("".join(f"{phone} {phone} {phone}\n" for phone in phones))
    for options, name in (
        ([], "WER"),
        (["--metric=CER"], "CER"),
        ([f"--map={tmp_path}/map"], "PER"),
    ):
        done = execute("compare_wer.py", *options, "--name=A", "--name=B", *tables)
        assert [line.split()[1] for line in done.out.splitlines()[:2]] == [f"%{name}"] * 2, done.err
    assert execute("compare_wer.py", "--metric=a b", *tables).status == 2


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    texts = {
        "ref": "s1_a x y z\ns1_b x\ns2_a x y\n",
        "one": "s1_a x y z\ns1_b x\ns2_a x\n",
        "two": "s1_a x z\ns1_b y\ns2_a x y\n",
        "three": "s1_a x y z\ns1_b x\ns2_a x y\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [f"ark:{tmp_path / name}" for name in texts]


def test_every_pair_of_three(execute, tables: list[str]) -> None:
    names = [f"--name={name}" for name in ("one", "two", "three")]
    done = execute("compare_wer.py", "--json", *names, *tables)
    assert done.status == 0, done.err
    data = json.loads(done.out)
    assert [system["errors"] for system in data["systems"]] == [1, 2, 0]
    pairs = [row["systems"] for row in data["comparisons"] if row["test"] == "MN"]
    assert pairs == [["one", "two"], ["one", "three"], ["two", "three"]]
    by_test = {row["test"]: row for row in data["comparisons"][:4]}
    assert by_test["SI"]["first_better"] == by_test["SI"]["second_better"] == 1
    assert by_test["MN"]["only_first_right"] == 2
    assert data["rule"].startswith("tokens as they stand")


def test_what_is_refused(execute, tables: list[str], tmp_path: Path) -> None:
    assert execute("compare_wer.py", *tables[:2]).status == 2
    assert "two systems or more" in execute("compare_wer.py", *tables[:2]).err
    assert "1 names for 2 systems" in execute("compare_wer.py", "--name=a", *tables[:3]).err
    done = execute("compare_wer.py", tables[0], tables[1], tables[1])
    assert (done.status, "two systems are named" in done.err) == (2, True)
    (tmp_path / "utt2spk").write_text("s1_a s1\n")
    done = execute("compare_wer.py", f"--utt2spk=ark:{tmp_path}/utt2spk", *tables)
    assert (done.status, "no speaker of s1_b" in done.err) == (1, True)
    (tmp_path / "two").write_text("s1_a x\n")
    done = execute("compare_wer.py", *tables)
    assert (done.status, "two: s1_b: there is no hypothesis" in done.err) == (1, True)
    assert execute("compare_wer.py", "--mode=present", *tables).status == 0
    (tmp_path / "ref").write_text("s1_a\n")
    done = execute("compare_wer.py", "--mode=present", *tables)
    assert (done.status, "references hold no tokens" in done.err) == (1, True)
