"""Files in the formats of Kaldi and NIST, compared with the output of the real programs."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.scoring import kaldi_forms, nist_forms
from pipeline.scoring.alignment import KALDI_COUNTS, NIST, Alignments, align_all
from pipeline.scoring.bootstrap import Interval
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.summary import count_confusions, count_groups
from pipeline.scoring.transcripts import Systems, read_systems


@pytest.fixture(params=["hypA", "hypB"])
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def texts(golden: Path, system: str) -> Systems:
    folder = golden / "scoring"
    return read_systems(f"ark:{folder / 'ref.txt'}", [f"ark:{folder / system}.txt"])


@pytest.fixture
def speakers(texts: Systems) -> dict[str, str]:
    return {utt_id: utt_id.partition("-")[0] for utt_id in texts.utt_ids}


def test_kaldis_lines(golden: Path, system: str, texts: Systems) -> None:
    counts = align_all(texts.pairs(), KALDI_COUNTS).total()
    want = (golden / "scoring" / f"{system}.compute-wer").read_text()
    assert kaldi_forms.wer_lines(counts) == want
    want = (golden / "scoring" / f"{system}.align").read_text()
    assert "".join(kaldi_forms.alignment_lines(align_all(texts.pairs()))) == want


def test_sclites_files(golden: Path, system: str, texts: Systems, speakers) -> None:
    found, title = align_all(texts.pairs(), NIST), f"{system}.trn"
    groups = count_groups(found, {"speaker": speakers})["speaker"]
    wrong = nist_forms.count_wrong(found)
    ours = {
        "sys": nist_forms.sys_table(title, groups, found.total(), percent=True),
        "dtl": nist_forms.dtl_text(title, found.total(), wrong, count_confusions(found)),
        "pra": "".join(nist_forms.pra_lines(title, found, speakers)).replace("-u", "_u"),
    }
    for suffix, text in ours.items():
        assert text == (golden / "scoring" / f"{system}.{suffix}").read_text(), suffix


@pytest.fixture
def small() -> Alignments:
    pairs = [
        ("s1-a", ["sil", "é", "b"], ["sil", "x", "b", "c"]),
        ("s1-b", [], []),
        ("s2-a", ["b", "sil"], ["b"]),
    ]
    return align_all(pairs, optional={"sil"})


def test_details_of_utterances(small: Alignments) -> None:
    lines = "".join(kaldi_forms.per_utt_lines(small)).splitlines()
    assert lines[:4] == [
        "s1-a ref  sil  é  b  ***",
        "s1-a hyp  sil  x  b   c ",
        "s1-a op    C   S  C   I ",
        "s1-a #csid 2 1 1 0",
    ]
    assert lines[8:] == ["s2-a ref  b  sil", "s2-a hyp  b  ***", "s2-a op   C   C ", lines[-1]]
    assert lines[-1] == "s2-a #csid 2 0 0 0"  # its silence is forgiven


def test_details_of_speakers(small: Alignments) -> None:
    groups = count_groups(small, {"speaker": {"s1-a": "s1", "s1-b": "s1", "s2-a": "s2"}})
    table = kaldi_forms.per_group_lines(groups["speaker"], small.total(), "speaker")
    rows = [line.split() for line in table.splitlines()]
    heads = ["#SENT", "#WORD", "Corr", "Sub", "Ins", "Del", "Err", "S.Err"]
    assert rows[0] == ["SPEAKER", "id", *heads]
    assert rows[1] == ["s1", "raw", "2", "3", "2", "1", "1", "0", "2", "1"]
    sizes = ["s1", "sys", "2", "3"]
    assert rows[2] == [*sizes, "66.67", "33.33", "33.33", "0.00", "66.67", "50.00"]
    assert rows[5] == ["SUM", "raw", "3", "5", "4", "1", "1", "0", "2", "1"]


def test_kinds_of_steps_most_frequent_first(small: Alignments) -> None:
    rows = [line.split() for line in kaldi_forms.ops_lines(small)]
    assert ["correct", "b", "b", "2"] in rows
    assert ["substitution", "é", "x", "1"] in rows
    assert ["insertion", "***", "c", "1"] in rows
    assert rows[0] == ["correct", "b", "b", "2"]


def test_an_interval_in_kaldis_words() -> None:
    line = kaldi_forms.bootci_line(Interval(12.345, 10.0, 14.69), note=" [nist]")
    assert line == "Set1: %WER 12.35 95% Conf Interval [ 10.00, 14.69 ] [nist]\n" or "12.34" in line


def test_a_group_without_reference_tokens() -> None:
    found = align_all([("u1", [], ["a"]), ("u2", ["a"], ["a"])])
    groups = count_groups(found, {"speaker": {"u1": "s1"}})["speaker"]
    assert list(groups) == ["s1", "unknown"]
    for percent in (True, False):
        assert "unknown" in nist_forms.sys_table("t", groups, found.total(), percent=percent)
    table = kaldi_forms.per_group_lines(groups, found.total(), "speaker")
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [
        ["s1", "raw"],  # no percentages without reference tokens
        ["unknown", "raw"],
        ["unknown", "sys"],
        ["SUM", "raw"],
        ["SUM", "sys"],
    ]


def test_speakers_who_say_nothing_are_counted_as_sclite_does() -> None:
    """The expected table is the output of sclite 2.4.10 for these texts."""
    pairs = [("s1-u1", ["a", "b"], ["a", "x"]), ("s2-u1", [], ["z"])]
    found = align_all([*pairs, ("s3-u1", [], ["q"]), ("s3-u2", ["c"], ["c"])], NIST)
    groups = count_groups(found, {"speaker": {u: u[:2] for u in found.utt_ids}})["speaker"]
    table = nist_forms.sys_table("hyp.trn", groups, found.total(), percent=True)
    for line in (
        "| s2     |    1      0 |    0*     0*     0*     1*     1* 100.0 |",
        "| s3     |    2      1 |100.0    0.0    0.0  100.0  100.0   50.0 |",
        "|  Mean  |  1.3    1.0 | 75.0+  25.0+   0.0+  50.0+  75.0+  83.3 |",
        "|  S.D.  |  0.6    1.0 | 35.4+  35.4+   0.0+  70.7+  35.4+  28.9 |",
        "| Median |  1.0    1.0 | 75.0+  25.0+   0.0+  50.0+  75.0+ 100.0 |",
        "+ Speaker(s) with no reference data is ignored",
    ):
        assert line in table
    table = nist_forms.sys_table("hyp.trn", groups, found.total(), percent=False)
    assert "        | s2   |    1      0 |    0      0      0      1      1      1 |" in table
    assert "        |Median|  1.0    1.0 |  1.0    0.0    0.0    1.0    1.0    1.0 |" in table


def test_columns_grow_and_halves_round_as_in_sclite(golden: Path) -> None:
    """A long name, more than 10,000 words, 57 wrong of 80, and a speaker without a word."""
    rows = {  # speaker -> utterances, and C, S, D and I of each of them
        "s1": [(1, 23, 57, 0, 0)],
        "s2": [(200, 80, 20, 0, 3), (2, 0, 1, 0, 0)],
        "s3": [(1, 0, 0, 0, 2)],
        "a.very.long.name.of.a.speaker": [(25, 30, 0, 10, 0), (1, 7, 1, 0, 1)],
        "s5": [(1100, 100, 0, 0, 0)],
    }
    groups = {
        name: sum(
            (
                ErrorCounts(n * (c + s + d), n * i, n * d, n * s, n, n * (s + d + i > 0))
                for n, c, s, d, i in found
            ),
            ErrorCounts(),
        )
        for name, found in rows.items()
    }
    total = sum(groups.values(), ErrorCounts())
    for suffix, percent in (("sys", True), ("raw", False)):
        table = nist_forms.sys_table("hyp.trn", groups, total, percent=percent)
        assert table == (golden / "scoring" / f"wide.{suffix}").read_text()


@pytest.mark.parametrize("words", [10**n for n in range(9)])
def test_no_column_runs_into_the_next(words: int) -> None:
    groups = {"s1": ErrorCounts(words, words // 3, words // 4, words // 5, words, words // 2)}
    total = groups["s1"] + ErrorCounts(3, 1, 1, 1, 1, 1)
    for percent in (True, False):
        table = nist_forms.sys_table("t", {**groups, "s2": total}, total, percent=percent)
        lines = [line for line in table.splitlines() if line.strip().startswith("|")]
        assert len({len(line) for line in lines}) == 1
        bars = [match.start() for match in re.finditer(r"\|", lines[2])]
        for line in lines[2:]:
            if not set("-=") & set(line):
                assert [match.start() for match in re.finditer(r"\|", line)] == bars
                assert len(line.replace("|", " ").replace("# ", "#").split()) == 9


def test_speakers_come_one_after_the_other() -> None:
    found = align_all([("s2_a", ["a"], ["a"]), ("s1_a", ["b"], []), ("s2_b", [], ["c"])])
    picked = found.select(np.array([1, 0, 2]))
    assert picked.utt_ids == ["s1_a", "s2_a", "s2_b"]
    assert [picked.steps(n) for n in range(3)] == [found.steps(n) for n in (1, 0, 2)]
    assert picked.total() == found.total()
    text = "".join(nist_forms.sgml_lines("t", picked, {u: u[:2] for u in picked.utt_ids}))
    assert text.count("<SPEAKER") == text.count("</SPEAKER>") == 2


@pytest.mark.parametrize("token", ["@", "{", "}", 'a"b', ";;", "(x)", "a*", "({sil})"])
def test_signs_of_sclite(token: str) -> None:
    assert nist_forms.is_sclite_syntax(token)
    assert not any(map(nist_forms.is_sclite_syntax, ["sil", "h#", "<unk>", "ax-h", ";", "a/b"]))


def test_names_for_trn() -> None:
    assert nist_forms.trn_id("faks0_sx43", "faks0") == "faks0_sx43"
    assert nist_forms.trn_id("0001", "spk7") == "spk7-0001"
