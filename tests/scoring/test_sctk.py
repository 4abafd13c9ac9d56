"""Comparison with the real sclite and sc_stats, if they are installed (Debian's package sctk)."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pipeline.scoring import nist_forms
from pipeline.scoring.alignment import KALDI, NIST, Alignments, align_all
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.score_options import ScoringOptions
from pipeline.scoring.significance import compare
from pipeline.scoring.summary import Confusions

pytestmark = pytest.mark.skipif(
    shutil.which("sctk") is None, reason="NIST's sclite is not installed (apt install sctk)"
)

Texts = dict[str, list[str]]
SYMBOLS = ["a", "b", "é", "音", "ß", "ax-h", "h#", "sil"]


def corrupt(random: Random, tokens: list[str], rate: float) -> list[str]:
    found = []
    for token in tokens:
        chance = random.random() / rate
        found += [] if chance < 0.3 else [random.choice(SYMBOLS) if chance < 0.7 else token]
        found += [random.choice(SYMBOLS)] if 0.7 < chance < 1.0 else []
    return found


def random_texts(seed: int, count: int, rates: list[float]) -> tuple[Texts, list[Texts]]:
    """References with repeated symbols, some empty, and hypotheses, some empty, sorted."""
    random = Random(seed)
    refs: Texts = {}
    for number in range(count):
        symbols = SYMBOLS if number % 3 else SYMBOLS[:3]
        length = random.choice([0, 1, 2, 5, 10, 30])
        refs[f"s{number * 11 // count:02}_u{number:04}"] = random.choices(symbols, k=length)
    hyps = [
        {u: corrupt(random, ref, rate) if random.random() > 0.02 else [] for u, ref in refs.items()}
        for rate in rates
    ]
    return refs, hyps


@pytest.fixture
def sclite(tmp_path: Path) -> Callable[..., str]:
    """Run sclite on references and hypotheses: the text of the .sgml that it writes."""

    def run(refs: Texts, hyps: Texts, *options: str, optional: str = "") -> str:
        speakers = {utt_id: utt_id[:3] for utt_id in refs}
        marked = {u: [f"({t})" if t == optional else t for t in ref] for u, ref in refs.items()}
        for name, texts in (("ref", marked), ("hyp", hyps)):
            lines = nist_forms.trn_lines(texts.items(), speakers)
            (tmp_path / f"{name}.trn").write_text("".join(lines), encoding="utf-8")
        command = ["sctk", "sclite", "-s", "-i", "spu_id", "-r", "ref.trn", "trn", "-h", "hyp.trn"]
        command += ["trn", "-o", "sgml", "-O", ".", "-n", "out", *options]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "out.sgml").read_text(encoding="utf-8")

    return run


def paths(sgml: str) -> list[str]:
    """The lines of an .sgml that hold alignments or name utterances, without what varies."""
    lines = re.sub(r' (sequence|case_sense)="\d+"', "", sgml).splitlines()[1:]
    return [line.replace("(sil)", "sil") for line in lines]


def ours(found: Alignments) -> str:
    speakers = {utt_id: utt_id[:3] for utt_id in found.utt_ids}
    return "".join(nist_forms.sgml_lines("hyp", found, speakers))


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_alignments_step_by_step(sclite, seed: int) -> None:
    refs, (hyps,) = random_texts(seed, 1000, [[0.1, 0.5, 1.0][seed]])
    found = align_all(((u, refs[u], hyps[u]) for u in refs), NIST)
    assert paths(ours(found)) == paths(sclite(refs, hyps))
    kaldi = align_all(((u, refs[u], hyps[u]) for u in refs), KALDI).total()
    assert kaldi.errors <= found.total().errors


def test_optional_silence(sclite) -> None:
    refs, (hyps,) = random_texts(7, 300, [0.4])
    options = ScoringOptions(sil_optional=True, alignment="nist")
    pairs = ((u, refs[u], hyps[u]) for u in refs)
    found = align_all(pairs, options.rule, optional=options.optional)
    theirs = paths(sclite(refs, hyps, "-D", optional="sil"))
    assert [line.replace('"sil",:', '"sil","":') for line in theirs] == theirs
    assert [re.sub(r'C,"sil",""', 'C,"sil",', line) for line in theirs] == paths(ours(found))


def test_tables(sclite, tmp_path: Path) -> None:
    refs, (hyps,) = random_texts(11, 200, [0.3])
    sclite(refs, hyps)
    command = "sctk sclite -s -i spu_id -r ref.trn trn -h hyp.trn trn -o sum rsum dtl -O . -n hyp"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    from pipeline.scoring.summary import count_confusions, count_groups

    found = align_all(((u, refs[u], hyps[u]) for u in refs), NIST)
    groups = count_groups(found, {"speaker": {u: u[:3] for u in refs}})["speaker"]
    for suffix, percent in (("sys", True), ("raw", False)):
        table = nist_forms.sys_table("hyp.trn", groups, found.total(), percent=percent)
        theirs = (tmp_path / f"hyp.{suffix}").read_text()
        assert re.findall(r"\w+", table) == re.findall(r"\w+", theirs)
    wrong = nist_forms.count_wrong(found)
    text = nist_forms.dtl_text("hyp.trn", found.total(), wrong, count_confusions(found))
    assert sorted(text.split()) == sorted((tmp_path / "hyp.dtl").read_text().split())


@pytest.mark.parametrize("seed", range(6))
def test_significance(sclite, tmp_path: Path, seed: int) -> None:
    refs, hyps = random_texts(seed, [33, 90, 300][seed % 3], [0.3, [0.3, 0.34, 0.45][seed // 2]])
    for name, side in zip("AB", hyps, strict=True):
        (tmp_path / f"{name}.sgml").write_text(
            sclite(refs, side).replace('title="hyp.trn"', f'title="{name}"'), encoding="utf-8"
        )
    merged = b"".join((tmp_path / f"{name}.sgml").read_bytes() for name in "AB")
    for options in ("-t mapsswe -v -n segments", "-t std4 -u -n all"):
        command = ["sctk", "sc_stats", "-p", *options.split()]
        subprocess.run(command, cwd=tmp_path, input=merged, check=True, capture_output=True)
    found = [align_all(((u, refs[u], side[u]) for u in refs), NIST) for side in hyps]
    tests = compare(*found, [utt_id[:3] for utt_id in refs])
    segments = (tmp_path / "segments.stats.mapsswe").read_text(errors="replace")
    wanted = re.search(
        r"# segs: (\d+)\).*mean: +(\S+)\) \(std dev: +(\S+)\) \(Z Stat: +(\S+)\)", segments
    )
    assert wanted is not None
    numbers = tests[0].details
    shown = [f"{numbers[name]:.3f}" for name in ("mean", "std_dev", "z")]
    assert [str(numbers["segments"]), *shown] == list(wanted.groups())
    report = (tmp_path / "all.stats.unified").read_text(errors="replace")
    for test in tests:
        # Its binomial coefficients overflow above 12 trials.
        if test.abbreviation in ("SI", "MN") and sum(test.details.values()) > 12:
            continue
        row = re.search(rf"\|\s+{test.abbreviation}\s+\|\|.*?\|.*?\|(.*?)\|\|", report)
        assert row is not None
        p = "<0.001" if test.p < 0.001 else f"{test.p:.3f}"
        better = "AB"[test.better] if test.significant else "~"
        assert row[1].split() == [better, p, *filter(None, [test.stars])]


# ---- tables of any size --------------------------------------------------------------------------

Sentences = dict[str, list[tuple[int, int, int, int]]]  # speaker -> C, S, D and I of each utterance


def random_sentences(seed: int) -> Sentences:
    """Speakers of long and short names, some without a word, with 1 to 300,000 words together."""
    random, found = Random(seed), {}
    many = [3, 3, 3, 80, 1500][seed % 5]
    for number in range(random.choice([1, 2, 3, 9])):
        name = random.choice(["s", "speaker", "a-very-long-name-of-a-speaker" * 2, "é音"])
        longest, rows = random.choice([0, 1, 8, 16, 40, 80]), []
        for _ in range(random.choice([1, 2, many])):
            words = random.choice([longest, random.randrange(longest + 1)])
            right = random.randrange(words + 1)
            sub = random.choice([words - right, random.randrange(words - right + 1)])
            gone = words - right - sub
            rows.append((right, sub, gone, 0 if gone or not sub else random.choice([0, 1, 30])))
        found[f"{name.replace('-', '.')}{number}"] = rows
    return found


@pytest.mark.parametrize("seed", range(30))
def test_tables_of_any_size_byte_for_byte(tmp_path: Path, seed: int) -> None:
    speakers, title = random_sentences(seed), "t" * Random(seed).choice([1, 10, 64, 65, 70, 100])
    with open(tmp_path / "ref.trn", "w") as ref, open(tmp_path / "hyp.trn", "w") as hyp:
        for name, rows in speakers.items():
            for number, (right, sub, gone, more) in enumerate(rows):
                utt = f"({name}_{number:05})"
                print(*["a"] * right, *["b"] * sub, *["c"] * gone, utt, file=ref)
                print(*["a"] * right, *["x"] * sub, *["y"] * more, utt, file=hyp)
    command = ["sctk", "sclite", "-s", "-i", "spu_id", "-r", "ref.trn", "trn", "-h", "hyp.trn"]
    command += ["trn", title, "-o", "sum", "rsum", "dtl", "-O", ".", "-n", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    groups = {name: add_up(rows) for name, rows in speakers.items()}
    total = add_up([row for rows in speakers.values() for row in rows])
    for suffix, percent in (("sys", True), ("raw", False)):
        table = nist_forms.sys_table(title, groups, total, percent=percent)
        assert table == (tmp_path / f"out.{suffix}").read_text(encoding="utf-8")
    wrong = [sum(row[kind] > 0 for rows in speakers.values() for row in rows) for kind in (1, 2, 3)]
    ours = nist_forms.dtl_text(title, total, wrong, Confusions([], [], [], []))
    theirs = (tmp_path / "out.dtl").read_text(encoding="utf-8")
    end = "CONFUSION PAIRS"
    if not total.ref_tokens:  # sclite says UNDEF; score.py refuses such texts
        return
    assert ours.partition(end)[0] == theirs.partition(end)[0]


def add_up(rows: list[tuple[int, int, int, int]]) -> ErrorCounts:
    """The error counts of utterances."""
    right, sub, gone, more = map(sum, zip(*rows, strict=True))
    wrong = sum(any(row[1:]) for row in rows)
    return ErrorCounts(right + sub + gone, more, gone, sub, len(rows), wrong)
