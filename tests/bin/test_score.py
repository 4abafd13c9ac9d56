"""score.py: the files of a scored decode directory, the variants, and refused input."""

import json
import os
import random
import re
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.data.data_dir import read_map
from pipeline.scoring.results import read_score
from pipeline.seals import unsealed

ROOT = Path(__file__).resolve().parents[2]

MAP = "aa\taa\taa\nao\tao\taa\nb\tb\tb\nd\td\td\nq\nsil\tsil\tsil\n"


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    """References, hypotheses with one error of each kind, speakers, times and a map."""
    data, decode = tmp_path / "data", tmp_path / "decode"
    data.mkdir()
    decode.mkdir()
    (data / "text").write_text("s1-u1 sil aa ao b q sil\ns1-u2\ns2-u1 sil b d sil sil\n")
    (data / "utt2spk").write_text("s1-u1 s1\ns1-u2 s1\ns2-u1 s2\n")
    (data / "spk2gender").write_text("s1 f\ns2 m\n")
    (data / "spk2dialect").write_text("s1 dr1\n")
    (data / "utt2dur").write_text("s1-u1 1.5\ns1-u2 0.5\ns2-u1 1\n")
    (decode / "hyp.txt").write_text("s1-u1 sil aa aa d sil b\ns1-u2\ns2-u1 sil sil\n")
    recognised = [("s1-u1", "sil ao q aa d sil b"), ("s2-u1", "sil sil")]
    lines = [
        f"{utt_id} 1 {n / 10:.2f} 0.10 {token} 0.9\n"
        for utt_id, text in recognised
        for n, token in enumerate(text.split())
    ]
    (decode / "hyp.ctm").write_text("".join(lines))
    (tmp_path / "phones.map").write_text(MAP)
    return decode


def run(execute, decoded: Path, *options: str):
    return execute(
        "score.py", f"--map={decoded.parent}/phones.map", *options, decoded.parent / "data", decoded
    )


def test_everything_is_written(execute, decoded: Path) -> None:
    done = run(execute, decoded)
    assert done.status == 0, done.err
    assert done.out.splitlines() == [
        "%PER 50.00 [ 5 / 10, 1 ins, 3 del, 1 sub ]",
        "%SER 66.67 [ 2 / 3 ]",
        "Scored 3 sentences, 0 not present in hyp.",
        done.out.splitlines()[3],
        "Rule: folded to 39 phones by phones.map, q dropped; sil scored; repeats kept; "
        "kaldi alignment, costs 1, 1, 1 of sub, del, ins",
    ]
    assert done.out.splitlines()[3].startswith("95 % interval [ ")
    scoring = decoded / "scoring"
    assert (scoring / "wer").read_text().startswith("%WER 50.00 [ 5 / 10, ")
    assert (scoring / "ref.txt").read_text().splitlines()[:2] == ["s1-u1 sil aa aa b sil", "s1-u2"]
    assert (scoring / "alignments").read_text().splitlines() == [
        "s1-u1 sil sil ; aa aa ; aa aa ; b d ; sil sil ; <eps> b ",
        "s1-u2 ",
        "s2-u1 sil <eps> ; b <eps> ; d <eps> ; sil sil ; sil sil ",
    ]
    files = {path.name for path in (scoring / "wer_details").iterdir()}
    assert files == {"per_utt", "per_spk", "per_gender", "per_dialect", "ops", "wer_bootci"}
    assert "unknown" in (scoring / "wer_details" / "per_dialect").read_text()
    files = {path.name for path in (scoring / "sclite").iterdir()}
    assert files == {f"hyp.{s}" for s in ("sys", "raw", "dtl", "pra", "sgml", "trn", "ctm")} | {
        "ref.trn",
        "ref.stm",
    }
    ctm = (scoring / "sclite" / "hyp.ctm").read_text().splitlines()
    assert ctm[1:3] == ["s1-u1 1 0.10 0.10 aa 0.9", "s1-u1 1 0.30 0.10 aa 0.9"]  # no q
    stm = (scoring / "sclite" / "ref.stm").read_text().splitlines()
    assert stm[3] == "s1-u1 1 s1 0.00 1.500 <O,F> sil aa aa b sil"


def test_the_numbers_for_programs(execute, decoded: Path) -> None:
    assert run(execute, decoded).status == 0
    score = json.loads((decoded / "scoring" / "score.json").read_text())
    total = score["total"]
    assert (total["errors"], total["ref_tokens"], total["hyp_tokens"]) == (5, 10, 8)
    assert score["name"] == "PER"
    assert score["interval"]["low"] < total["error_rate"] < score["interval"]["high"]
    for groups in score["groups"].values():
        for key in ("ref_tokens", "errors", "sentences", "ins", "del", "sub", "cor"):
            assert sum(group[key] for group in groups.values()) == total[key]
    assert set(score["groups"]) == {"speaker", "gender", "dialect"}
    counts = {key: sum(row[-1] for row in score[key]) for key in ("insertions", "deletions")}
    assert counts == {"insertions": total["ins"], "deletions": total["del"]}
    assert sum(row[-1] for row in score["confusions"]) == total["sub"]
    assert sum(row[-1] for row in score["correct"]) == total["cor"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--collapse-sil"], "%PER 55.56 [ 5 / 9, 1 ins, 3 del, 1 sub ] [collapse-sil]"),
        (["--sil-optional"], "%PER 40.00 [ 4 / 10, 1 ins, 1 del, 2 sub ] [sil-optional]"),
        (["--drop-sil"], "%PER 60.00 [ 3 / 5, 1 ins, 2 del, 0 sub ] [drop-sil]"),
        (["--keep-q"], "%PER 54.55 [ 6 / 11, 1 ins, 4 del, 1 sub ] [keep-q]"),
        (["--alignment=nist", "--name=X"], "%X 50.00 [ 5 / 10, 1 ins, 3 del, 1 sub ] [alignm"),
        (["--collapse-repeats", "--drop-sil"], "%PER 75.00 [ 3 / 4, 1 ins, 2 del, 0 sub ] ["),
    ],
)
def test_variants(execute, decoded: Path, options: list[str], line: str) -> None:
    done = run(execute, decoded, *options)
    assert done.out.startswith(line), done.out + done.err
    name = options[0].removeprefix("--")
    assert name in (decoded / "scoring" / "wer").read_text()
    assert name in json.loads((decoded / "scoring" / "score.json").read_text())["variants"]


def test_without_a_map_and_without_sclite(execute, decoded: Path) -> None:
    done = execute("score.py", "--map", "", "--sclite=false", decoded.parent / "data", decoded)
    assert done.out.startswith("%WER 63.64 [ 7 / 11, 1 ins, 4 del, 2 sub ]"), done.out + done.err
    assert not (decoded / "scoring" / "sclite").exists()
    assert read_map(decoded / "scoring" / "ref.txt")["s1-u1"] == "sil aa ao b q sil"


def test_characters_are_counted_beside_words(execute, decoded: Path) -> None:
    (decoded / "hyp.txt").write_text("s1-u1 the cad\ns1-u2\ns2-u1 sat\n")
    (decoded / "hyp.ctm").unlink()
    (decoded.parent / "data" / "text").write_text("s1-u1 the cat\ns1-u2\ns2-u1 sat on\n")
    data = decoded.parent / "data"
    done = execute("score.py", "--with-cer", data, decoded)
    lines = done.out.splitlines()
    assert lines[0] == "%WER 50.00 [ 2 / 4, 0 ins, 1 del, 1 sub ]", done.err
    assert lines[4] == "%CER 27.27 [ 3 / 11, 0 ins, 2 del, 1 sub ]"
    assert lines[3].startswith("95 % interval [ ")
    assert lines[5].startswith("95 % interval [ ")
    assert (decoded / "scoring" / "cer").read_text().startswith("%CER 27.27 [ 3 / 11, ")
    score = read_score(decoded)
    assert (score.name, score.beside.name, score.beside.total.errors) == ("WER", "CER", 3)
    assert score.beside.interval.low < 27.27 < score.beside.interval.high
    done = execute("print_scores.py", decoded)
    assert [line.split()[1] for line in done.out.splitlines()] == ["%WER", "%CER"]
    for option in ("--cer", f"--map={decoded.parent}/phones.map"):
        done = execute("score.py", "--with-cer", option, data, decoded)
        assert done.status == 2
        assert "--with-cer counts beside words; leave off --cer and --map" in done.err


def test_runs_of_silence_are_joined_in_time(execute, decoded: Path) -> None:
    assert run(execute, decoded, "--collapse-sil").status == 0
    found = (decoded / "scoring" / "sclite" / "hyp.ctm").read_text().splitlines()
    assert found[-1] == "s2-u1 1 0.00 0.200 sil 0.9"


def test_optional_silences_are_marked_for_sclite(execute, decoded: Path) -> None:
    assert run(execute, decoded, "--sil-optional").status == 0
    ref = (decoded / "scoring" / "sclite" / "ref.trn").read_text().splitlines()
    assert ref[0] == "(sil) aa aa b (sil) (s1-u1)"


def test_times_of_other_hypotheses_are_left_out(execute, decoded: Path) -> None:
    (decoded / "hyp.ctm").write_text("s1-u1 1 0.00 0.10 b 0.9\n")
    done = run(execute, decoded)
    assert (done.status, "hyp.ctm: the tokens of s1-u1 differ from its hyp" in done.err) == (
        0,
        True,
    )
    assert not (decoded / "scoring" / "sclite" / "hyp.ctm").exists()


def test_tokens_in_the_syntax_of_sclite_are_left_out(execute, decoded: Path) -> None:
    (decoded / "hyp.txt").write_text("s1-u1 (x) @\ns1-u2\ns2-u1 a\n")
    done = execute("score.py", decoded.parent / "data", decoded)
    assert (done.status, 's1-u1: "(x)" belongs to the syntax of sclite' in done.err) == (0, True)
    files = {path.name for path in (decoded / "scoring" / "sclite").iterdir()}
    assert files == {f"hyp.{suffix}" for suffix in ("sys", "raw", "dtl", "pra", "sgml")}


def test_a_score_takes_the_place_of_an_older_one_whole(execute, decoded: Path) -> None:
    assert run(execute, decoded).status == 0
    before = json.loads((decoded / "scoring" / "score.json").read_text())
    assert run(execute, decoded, "--mode=foo").status == 2
    assert run(execute, decoded, "--replications=1").status == 2
    assert json.loads((decoded / "scoring" / "score.json").read_text()) == before
    (decoded.parent / "data" / "spk2gender").unlink()
    assert run(execute, decoded, "--sclite=false").status == 0
    assert not (decoded / "scoring" / "sclite").exists()
    assert not (decoded / "scoring" / "wer_details" / "per_gender").exists()
    assert [path.name for path in decoded.iterdir() if path.name.startswith(".")] == []
    assert before["mode"] == "strict"
    assert before["hyp_digest"] == sha256((decoded / "hyp.txt").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "decode/hyp.txt",
            "s1-u1 sil zz\ns1-u2\ns2-u1 sil\n",
            'hyp.txt: s1-u1: unknown phone "zz"',
        ),
        (
            "decode/hyp.txt",
            "s1-u1 sil\n",
            "hyp.txt: s1-u2: there is no hypothesis for this utterance (nor",
        ),
        ("decode/hyp.txt", "", "hyp.txt: has no utterances; decode them first"),
        ("decode/hyp.txt", "s1-u1\ns1-u2\ns2-u1\nzz aa\n", "hyp.txt: zz: there is no reference"),
        ("decode/hyp.txt", "s1-u1\ns1-u1\n", "s1-u1 occurs twice"),
        ("decode/hyp.txt", b"s1-u1 \xe9\n", "not UTF-8"),
        (
            "decode/hyp.txt",
            None,
            "hyp.txt: no such file; give a DATA_DIR with text and a DECODE_DIR",
        ),
        ("data/text", None, "text: no such file; give a DATA_DIR with text"),
        ("data/text", "s1-u1\ns1-u2\ns2-u1\n", "the references hold no tokens"),
    ],
)
def test_bad_input_keeps_no_score(execute, decoded: Path, file: str, text, message: str) -> None:
    assert run(execute, decoded).status == 0
    path = decoded.parent / file
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = run(execute, decoded)
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    for name in ("wer", "score.json"):
        assert not (decoded / "scoring" / name).exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("data/utt2spk", "s1-u1 s1\n", "utt2spk: has no speaker of s1-u2; add a line"),
        (
            "data/utt2spk",
            "s1-u1 s1 x\ns1-u2 s1\ns2-u1 s2\n",
            "expected one speaker of s1-u1, not 's1 x'",
        ),
        ("data/utt2dur", "s1-u1 1\n", "no duration of s1-u2; make utt2dur or utt2num_frames again"),
        ("decode/hyp.ctm", "s1-u1 1 0.1\n", "hyp.ctm:1: expected a ctm line"),
        ("decode/hyp.ctm", "s1-u1 1 nan 0.1 a\n", "hyp.ctm:1: expected a ctm line"),
        ("decode/hyp.ctm", b"s1-u1 1 0.1 0.1 \xe9\n", "hyp.ctm:1: not UTF-8"),
    ],
)
def test_bad_files_beside_keep_the_old_score(
    execute, decoded: Path, file: str, text, message: str
) -> None:
    assert run(execute, decoded).status == 0
    wer = (decoded / "scoring" / "wer").read_bytes()
    path = decoded.parent / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = run(execute, decoded)
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    assert (decoded / "scoring" / "wer").read_bytes() == wer


def test_signs_of_the_alignments_are_refused(execute, decoded: Path) -> None:
    (decoded / "hyp.txt").write_text("s1-u1 a\ns1-u2 <eps>\ns2-u1 a\n")
    done = execute("score.py", decoded.parent / "data", decoded)
    assert (done.status, 's1-u2: the token "<eps>" has a special meaning' in done.err) == (1, True)


def test_other_modes(execute, decoded: Path) -> None:
    (decoded / "hyp.txt").write_text("s2-u1 sil b d sil sil\nzz aa\n")
    done = run(execute, decoded, "--mode=present")
    assert done.out.startswith("%PER 0.00 [ 0 / 5, 0 ins, 0 del, 0 sub ] [PARTIAL]\n"), done.err
    assert "zz: there is no reference for this utterance; left out" in done.err
    done = run(execute, decoded, "--mode=all")
    assert done.out.startswith("%PER 50.00 [ 5 / 10, 0 ins, 5 del, 0 sub ] [PARTIAL]\n"), done.err
    assert run(execute, decoded, "--mode=most").status == 2
    assert run(execute, decoded, "--replications=1").status == 2
    assert run(execute, decoded, "--alignment=best").status == 2


WORDS = {"s1-u1": "the cat; sat", "s1-u2": "", "s2-u1": "ab ba"}
HEARD = {"s1-u1": "the cats; sa", "s1-u2": "", "s2-u1": "abba"}


def test_characters_are_counted_under_their_own_name(execute, decoded: Path) -> None:
    data = decoded.parent / "data"
    for path, texts in ((data / "text", WORDS), (decoded / "hyp.txt", HEARD)):
        path.write_text("".join(f"{u} {t}".rstrip() + "\n" for u, t in texts.items()))
    times = [(u, w, n) for u, t in HEARD.items() for n, w in enumerate(t.split())]
    (decoded / "hyp.ctm").write_text(
        ";; a comment\n" + "".join(f"{u} 1 {n}.0 1.0 {w} 0.9\n" for u, w, n in times)
    )
    done = execute("score.py", "--cer", data, decoded)
    assert done.status == 0, done.err
    line = "%CER 14.29 [ 2 / 14, 1 ins, 1 del, 0 sub ]"
    assert done.out.startswith(f"{line}\n")
    scoring = decoded / "scoring"
    assert (scoring / "wer").read_text().startswith(f"{line}\n")
    assert "%CER" in (scoring / "wer_details" / "wer_bootci").read_text()
    assert execute("print_scores.py", decoded).out == f"{decoded}: {line}\n"
    assert (scoring / "ref.txt").read_text().startswith("s1-u1 t h e c a t ; s a t\n")
    ctm = (scoring / "sclite" / "hyp.ctm").read_text().splitlines()
    assert ctm[:3] == [f"s1-u1 1 {t} 0.333 {c} 0.9" for t, c in zip(TIMES, "the", strict=True)]
    wer = execute("compute_wer.py", "--cer", f"ark:{data}/text", f"ark:{decoded}/hyp.txt")
    assert wer.out.startswith(f"{line}\n")
    rspecifiers = [f"ark:{data}/text", *[f"ark:{decoded}/hyp.txt"] * 2]
    done = execute("compare_wer.py", "--cer", "--name=a", "--name=b", *rspecifiers)
    assert "%CER 14.29 [ 2 / 14 ]" in done.out
    assert "Set1: %CER" in execute("compute_wer_bootci.py", "--cer", *rspecifiers[:2]).out
    assert run(execute, decoded, "--cer").status == 2


TIMES = ("0.000", "0.333", "0.667")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_comments_marks_and_line_ends_in_a_ctm_change_nothing(
    execute, decoded: Path, mark: str, end: str
) -> None:
    run(execute, decoded)
    expected = (decoded / "scoring" / "sclite" / "hyp.ctm").read_bytes()
    lines = (decoded / "hyp.ctm").read_text().splitlines()
    lines = [";; by another decoder", *lines[:3], ";;", "", *lines[3:], ";; the end"]
    (decoded / "hyp.ctm").write_bytes((mark + "".join(x + end for x in lines)).encode())
    done = run(execute, decoded)
    assert done.status == 0, done.err
    assert (decoded / "scoring" / "sclite" / "hyp.ctm").read_bytes() == expected


def test_the_heads_of_tables_stand_over_their_columns(execute, decoded: Path) -> None:
    run(execute, decoded)
    for name in ("per_spk", "per_gender", "per_dialect"):
        head, *rows = (decoded / "scoring" / "wer_details" / name).read_text().splitlines()
        assert head[16:19] == "id "
        assert {len(row) for row in rows} == {len(head)}


# ---- several at once, and damage -----------------------------------------------------------------


def start(decoded: Path, *options: str) -> subprocess.Popen[bytes]:
    program = ROOT / "bin" / "score.py"
    command = [sys.executable, program, f"--map={decoded.parent}/phones.map", *options]
    return subprocess.Popen(
        [*map(str, command), str(decoded.parent / "data"), str(decoded)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_of_two_at_once_one_wins_wholly(execute, decoded: Path) -> None:
    """Under different rules, of which each file of the folder tells."""
    rules = (("--replications=50",), ("--collapse-sil", "--replications=50"))
    expected = []
    for rule in rules:
        assert run(execute, decoded, *rule).status == 0
        expected.append(files_of(decoded / "scoring"))
    assert expected[0] != expected[1]
    four = [start(decoded, *rule) for rule in (*rules, *rules)]
    for process in four:
        assert process.communicate()[1].count(b"ERROR") == 0
    assert [process.returncode for process in four] == [0, 0, 0, 0]
    assert files_of(decoded / "scoring") in expected
    assert sorted(p.name for p in decoded.iterdir()) == ["hyp.ctm", "hyp.txt", "scoring"]


def files_of(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: re.sub(rb"Creation date: .*", b"", data) for name, data in found.items()}


def test_killed_while_it_writes_it_leaves_the_old_score_or_the_new_one(
    execute, decoded: Path
) -> None:
    assert run(execute, decoded).status == 0
    randomly = random.Random(1)
    for _ in range(4):
        process = start(decoded, "--collapse-sil")
        time.sleep(randomly.uniform(0.2, 0.9))
        process.kill()
        process.communicate()
        assert execute("print_scores.py", decoded).status == 0
    assert run(execute, decoded).status == 0
    assert sorted(p.name for p in decoded.iterdir()) == ["hyp.ctm", "hyp.txt", "scoring"]


@pytest.mark.parametrize("name", ["score.json", "wer"])
def test_a_flipped_bit_of_a_score_is_named(execute, decoded: Path, name: str) -> None:
    assert run(execute, decoded).status == 0
    path = decoded / "scoring" / name
    data = path.read_bytes()
    for place in range(0, 8 * len(data), 8 * len(data) // 12 - 1):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        path.write_bytes(changed)
        done = execute("print_scores.py", decoded)
        assert done.status == 1
        assert f"scoring/{name}: " in done.err
        assert "run score.py" in done.err
        assert "unexpected" not in done.err


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 9999])
def test_a_number_that_is_none(execute, decoded: Path, value: str) -> None:
    assert run(execute, decoded).status == 0
    path = decoded / "scoring" / "score.json"
    data = unsealed(path.read_text())
    for place in ("total", "interval"):
        changed = json.dumps({**data, place: dict.fromkeys(data[place], "HERE")})
        path.write_text(changed.replace('"HERE"', value))
        done = execute("print_scores.py", decoded)
        assert (done.status, "unexpected" in done.err) == (1, False)
        assert "score.json: cannot be used, " in done.err
