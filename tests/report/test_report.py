"""The page's contents: numbers, choices, escapes, and what it says where something is missing."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.report.audio import make_players
from pipeline.report.comparisons import alignments, compare_systems
from pipeline.report.model_facts import read_model
from pipeline.report.report import ReportOptions, make_report
from pipeline.report.scores import (
    EPS,
    Utterance,
    find_decodings,
    labels,
    read_alignments,
    recipe_root,
)
from pipeline.report.selection import recognised_by_all, typical, worst_and_best
from pipeline.report.views import make_systems, rivals_of

PLAIN = ReportOptions(pictures=False)
BAD = "<script>alert(1)</script>"  # in names


def models(scored: Path) -> list[Path]:
    return [scored / "exp" / "one", scored / "exp" / "two"]


def text_of(page: str) -> str:
    """What a reader sees, without tags."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def edit_score(model: Path, edit: Callable[[dict[str, object]], object]) -> Path:
    file = model / "decode_dev" / "scoring" / "score.json"
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))
    return file


# ---- scores --------------------------------------------------------------------------------------


def test_an_alignment_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "alignments"
    file.write_text("u1 a a ; b <eps> ; <eps> c ; d e \nu2 ; ; ; a <eps> ;\nu3 \n")
    found = read_alignments(file)
    assert found["u1"].kinds == "CDIS"
    assert (found["u1"].errors, found["u1"].ref_tokens) == (3, 3)
    assert found["u2"].pairs == ((";", ";"), ("a", EPS))  # a token that looks like a separator
    assert found["u3"].pairs == ()
    assert read_alignments(tmp_path / "none") == {}


def test_a_token_may_hold_blanks_that_are_not_asciis(tmp_path: Path) -> None:
    file = tmp_path / "alignments"
    file.write_text("u1 x\u00a0y x ; l\u2028m <eps> ;\tz\u3000q n\x85 \n", encoding="utf-8")
    pairs = (("x\u00a0y", "x"), ("l\u2028m", EPS), ("z\u3000q", "n\x85"))
    assert read_alignments(file)["u1"].pairs == pairs


@pytest.mark.parametrize("line", ["u1 a", "u1 a a ; b", "u1 a a b b", "u1 a a , b b"])
def test_a_line_of_another_form_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "alignments"
    file.write_text(f"u0 a a \n{line}\n")
    with pytest.raises(DataError, match=r"alignments:2: .*score\.py"):
        read_alignments(file)


def test_a_deletion_that_the_score_forgives_is_no_error(scored: Path) -> None:
    edit_score(models(scored)[0], lambda data: data.update(deletions=[]))
    (decoding,) = find_decodings(models(scored)[:1])
    assert decoding.utterances["amy-1"].kinds == "CSF"
    assert decoding.utterances["amy-1"].errors == 1
    assert "missed, which is forgiven" in make_report(models(scored), PLAIN)


def test_a_model_without_scores_says_what_to_run(scored: Path) -> None:
    (scored / "exp" / "bare" / "decode_dev").mkdir(parents=True)
    with pytest.raises(DataError, match=r"exp/bare: .*score\.py DATA_DIR DECODE_DIR"):
        make_report([scored / "exp" / "bare"], PLAIN)
    with pytest.raises(DataError, match="no such directory"):
        make_report([scored / "exp" / "nowhere"], PLAIN)
    with pytest.raises(DataError, match="decode_test"):
        make_report(models(scored), ReportOptions(sets=("test",)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data.pop("total"), 'it lacks "total"'),
        (lambda data: data["total"].update(ins="many"), "a value is of the wrong type"),
        (lambda data: data.update(confusions=[["a", "b"]]), "a value is of the wrong type"),
        (lambda data: data.update(groups=[]), "a value is of the wrong type"),
        (lambda data: data.update(format_version=2), "format 2, but this program reads 1"),
    ],
)
def test_a_damaged_score_is_named(
    scored: Path, edit: Callable[[dict[str, object]], object], said: str
) -> None:
    file = edit_score(models(scored)[0], edit)
    with pytest.raises(DataError, match=re.escape(str(file)) + f".*{said}.*score"):
        make_report(models(scored), PLAIN)
    for content, said in ((b"", "it is not JSON"), (b"\xff", "it is not a UTF-8 text")):
        file.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(str(file)) + f".*{said}"):
            make_report(models(scored), PLAIN)


def test_a_score_is_that_of_the_hypotheses_beside_it(scored: Path) -> None:
    one = models(scored)[0]
    hyp = one / "decode_dev" / "hyp.txt"
    hyp.write_bytes(b"amy-1 a b\n")
    assert find_decodings([one])  # an older score does not know its hypotheses
    digest = hashlib.sha256(hyp.read_bytes()).hexdigest()
    edit_score(one, lambda data: data.update(hyp_digest=digest))
    assert find_decodings([one])
    hyp.write_bytes(b"amy-1 a c\n")
    with pytest.raises(DataError, match=rf"score\.py DATA_DIR {hyp.parent} again"):
        find_decodings([one])
    hyp.unlink()  # nothing speaks against the score
    assert find_decodings([one])


def test_paths_of_a_recipe_are_found_from_elsewhere(tmp_path: Path) -> None:
    decode = tmp_path / "egs" / "exp" / "ctc" / "decode_dev"
    assert recipe_root(decode, "exp/ctc/decode_dev") == tmp_path / "egs"
    assert recipe_root(decode, "exp/other/decode_dev") == Path()
    assert recipe_root(decode, str(decode)) == Path()


def test_models_of_the_same_name_are_told_apart() -> None:
    paths = [Path("a/exp/ctc"), Path("b/exp/ctc"), Path("b/exp/rnn")]
    assert list(labels(paths).values()) == ["a/exp/ctc", "b/exp/ctc", "b/exp/rnn"]
    assert list(labels(paths[1:]).values()) == ["ctc", "rnn"]


def test_weights_are_counted_from_the_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 4)), "b": np.zeros(5)}, tmp_path / "final.safetensors")
    assert read_model(tmp_path).weights == 17
    assert read_model(tmp_path).note == ""


def test_damaged_weights_are_a_sentence(scored: Path) -> None:
    (models(scored)[0] / "final.safetensors").write_bytes(b"\0" * 20)
    facts = read_model(models(scored)[0])
    assert facts.weights is None
    text = text_of(make_report(models(scored), ReportOptions()))
    assert "one: final.safetensors is damaged, so its weights are not counted; copy it" in text
    assert "No pictures of amy-1 by one" in text


# ---- choices -------------------------------------------------------------------------------------


def test_the_worst_and_the_best_by_errors_a_token(scored: Path) -> None:
    recognised = recognised_by_all(find_decodings(models(scored)))
    assert [h.utt_id for h in recognised] == ["amy-1", "amy-2", "bob-1", "bob-2"]
    chosen = worst_and_best(recognised, 2, 3)
    # amy-2: 3 errors of 4 tokens in both systems; bob-2: 2 of 4; amy-1: 2 of 6; bob-1: none.
    assert [(h.utt_id, h.best) for h in chosen] == [
        ("amy-2", False),
        ("bob-2", False),
        ("bob-1", True),
        ("amy-1", True),
    ]
    assert worst_and_best(recognised, 0, 0) == []


def test_the_typical_utterance_is_as_good_as_all(scored: Path) -> None:
    recognised = recognised_by_all(find_decodings(models(scored)))
    assert typical(recognised) == "amy-1"  # 33 %, where all together have 27 %
    assert typical([]) is None


# ---- comparison ----------------------------------------------------------------------------------


def test_steps_reach_the_tests_as_they_are() -> None:
    found = alignments([Utterance("u", (("a", "a"), ("b", EPS), (EPS, "c"), ("d", "e")))])
    assert found.steps(0) == [(0, "a", "a"), (2, "b", EPS), (3, EPS, "c"), (1, "d", "e")]
    assert found.total().errors == 3


def test_every_pair_is_compared_by_four_tests(scored: Path) -> None:
    decodings = find_decodings(models(scored))
    found, notes = compare_systems(decodings, ["one", "two"], lambda utt: utt[:3])
    (pair,) = found
    assert list(pair.named) == ["Matched pairs", "Sign", "Wilcoxon", "McNemar"]
    assert all(0.0 <= p <= 1.0 for p in pair.p_values.values())
    assert pair.difference == pytest.approx(100.0 * (3 - 4) / 13)
    assert notes == []


def test_speakers_and_references_must_be_known(scored: Path) -> None:
    decodings = find_decodings(models(scored))
    (pair,), notes = compare_systems(decodings, ["one", "two"], lambda utt: "")
    assert list(pair.p_values) == ["MP", "MN"]
    assert notes == ["No tests over speakers on dev: who speaks is not known."]
    decodings[1].utterances.popitem()
    found, notes = compare_systems(decodings, ["one", "two"], lambda utt: "")
    assert found == []
    assert notes == ["one and two on dev are not compared: scored on other references."]
    assert "nothing to compare" in compare_systems(decodings[:1], ["one"], str)[1][0]


def folded(data: dict[str, object]) -> None:
    data.update(rule="folded", variants=["collapse-sil", "keep-q"])


def partial(mode: str) -> Callable[[dict[str, object]], None]:
    def edit(data: dict[str, object]) -> None:
        data["total"]["sentences"] = 7 if mode == "present" else 32
        data.update(mode=mode, absent=25)

    return edit


def test_scores_under_other_rules_are_not_compared(scored: Path) -> None:
    edit_score(models(scored)[1], folded)
    decodings = find_decodings(models(scored))
    found, notes = compare_systems(decodings, ["one", "two"], lambda utt: utt[:3])
    assert found == []
    assert notes == ["one and two on dev are not compared: scored under other rules."]
    page = make_report(models(scored), PLAIN)
    assert ">best" not in page
    assert "p&nbsp;against best" not in page
    text = text_of(page)
    assert "two – dev 23.08 [collapse-sil, keep-q]" in text
    assert "one – dev 30.77 21.77" in text


def test_the_best_under_each_of_two_rules(scored: Path) -> None:
    for name in ("three", "four"):
        shutil.copytree(scored / "exp" / "two", scored / "exp" / name)
        edit_score(scored / "exp" / name, folded)
    edit_score(scored / "exp" / "four", lambda data: data["total"].update(sub=0))
    paths = [scored / "exp" / name for name in ("one", "two", "three", "four")]
    text = text_of(make_report(paths, PLAIN))
    for system in ("one", "two best under its rule", "three", "four best under its rule"):
        assert f" {system} – dev " in text
    assert text.count("are not compared: scored under other rules") == 4
    decodings = find_decodings(paths)
    assert rivals_of(decodings) == [[1, 0], [3, 2]]
    found, _ = compare_systems(decodings, ["1", "2", "3", "4"], lambda utt: utt[:3])
    assert [(pair.first, pair.second) for pair in found] == [(0, 1), (2, 3)]
    rows = make_systems(decodings, "1234", [read_model(path) for path in paths], found)
    against = [found[0].p_values["MP"], None, found[1].p_values["MP"], None]
    assert [row.p_value for row in rows] == against


@pytest.mark.parametrize("mode", ["present", "all"])
def test_a_partial_score_says_so_and_is_never_the_best(scored: Path, mode: str) -> None:
    edit_score(models(scored)[1], partial(mode))
    text = text_of(make_report(models(scored), PLAIN))
    assert "two – dev 23.08 PARTIAL, 25 of 32 missing" in text
    assert "two is not compared on dev: PARTIAL, 25 of 32 missing." in text
    assert " best " not in text.partition("Comparison")[0].partition("Errors of tokens")[2]
    assert rivals_of(find_decodings(models(scored))) == []


def test_an_older_score_does_not_tell_its_mode(scored: Path) -> None:
    edit_score(models(scored)[0], lambda data: data.update(absent=25))
    assert find_decodings(models(scored))[0].partial == "PARTIAL, 25 missing"


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_holds_the_numbers(scored: Path) -> None:
    text = text_of(make_report(models(scored), ReportOptions("A title", pictures=False)))
    assert "A title" in text
    assert "Scoring rule: tokens as they stand & nothing forgiven." in text
    assert "one – dev 30.77 21.77 – 39.77" in text
    assert "4 / 13" in text
    assert "two best – dev 23.08" in text
    assert "b recognised as c" in text
    assert "train_ctc.py 'a b'" in text
    assert "commit c0ffee · seed 7" in text
    assert "WORDS OF amy-1" in text
    assert "Pictures were not asked for." in text


def test_scores_by_different_rules_are_told_apart(scored: Path) -> None:
    edit_score(models(scored)[1], lambda data: data.update(rule="folded.", name="WER"))
    text = text_of(make_report(models(scored), PLAIN))
    assert "Scoring rule of one on dev: tokens as they stand & nothing forgiven." in text
    assert "Scoring rule of two on dev: folded." in text
    assert "Error rate %" in text.replace("\xa0", " ")


def test_what_files_say_is_never_markup(scored: Path) -> None:
    page = make_report(models(scored), ReportOptions("<b>&", pictures=False))
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3  # a token, a list, a command
    assert "<title>&lt;b&gt;&amp;</title>" in page
    assert len(re.findall("<script", page)) == 1


def test_the_page_needs_nothing_from_outside(scored: Path) -> None:
    page = make_report(models(scored), PLAIN)
    for attribute in re.findall(r'\b(?:src|href|url|action)\s*[=(]\s*"?([^"\s)>]*)', page):
        assert attribute.startswith(("data:", "#")), attribute
    assert "http://" not in page
    assert "https://" not in page
    assert str(scored) not in page  # no path of this machine


def test_the_same_inputs_give_the_same_bytes(scored: Path) -> None:
    assert make_report(models(scored), PLAIN) == make_report(models(scored), PLAIN)


def test_recordings_are_limited_in_number_and_size(scored: Path) -> None:
    page = make_report(models(scored), ReportOptions(audio=2, pictures=False))
    assert page.count("<audio") == 2
    (decoding, _) = find_decodings(models(scored))
    wanted = [(decoding, "amy-1"), (decoding, "amy-2")]
    everything, notes = make_players(wanted)
    assert list(everything) == [("dev", "amy-1"), ("dev", "amy-2")]
    assert notes == []
    limit = len(everything["dev", "amy-1"].uri) + 1
    some, notes = make_players(wanted, limit_bytes=limit)
    assert list(some) == [("dev", "amy-1")]
    assert "are left out" in notes[0]


def test_a_segment_is_cut_out_of_its_recording(scored: Path) -> None:
    data = scored / "data" / "dev"
    (data / "segments").write_text("amy-1 amy-1 0.1 0.3\namy-2 amy-1 7.0 8.0\n")
    (decoding, _) = find_decodings(models(scored))
    players, notes = make_players([(decoding, "amy-1"), (decoding, "amy-2")])
    assert players["dev", "amy-1"].duration_s == pytest.approx(0.2)
    assert "beyond the end" in notes[0]


def test_what_is_missing_is_said(scored: Path) -> None:
    shutil.rmtree(scored / "data")
    for model in models(scored):
        (model / "provenance.json").unlink()
    text = text_of(make_report(models(scored), ReportOptions()))
    assert "Some recordings of dev are not here" in text
    assert "who speaks is not known" in text
    assert "No curves of one" in text
    assert "config.json: missing" in text
    assert "sweep_beam.sh makes it" in text
    assert "No pictures of amy-1 by one" in text
    assert "one has no provenance.json" in text


def test_scores_without_alignments_make_a_page(scored: Path) -> None:
    for model in models(scored):
        (model / "decode_dev" / "scoring" / "alignments").unlink()
    text = text_of(make_report(models(scored), PLAIN))
    assert "one has no table of alignments for dev" in text
    assert "30.77" in text


def test_a_set_without_tokens_makes_a_page(scored: Path) -> None:
    nothing = {"ref_tokens": 0, "error_rate": None, "sentence_error_rate": None}

    def empty(data: dict[str, object]) -> None:
        data["total"].update(nothing)
        data["interval"] = None

    for model in models(scored):
        edit_score(model, empty)
    text = text_of(make_report(models(scored), PLAIN))
    assert "one – dev – –" in text
    assert "two – dev – –" in text


def test_damaged_curves_are_told_in_plain_words(scored: Path) -> None:
    one = models(scored)[0]
    (one / "config.json").write_text('{"kind": "ctc"}')
    (one / "metrics.jsonl").write_text("{\n")
    (one / "sweep_dev").mkdir()
    (one / "sweep_dev" / "sweep.tsv").write_text("beam\n1\n")
    text = text_of(make_report(models(scored), ReportOptions()))
    assert "metrics.jsonl:1: not a line of train_*.py, it is not JSON; remove it" in text
    assert (
        "sweep.tsv: not a table of sweep_beam.sh: it lacks the column metric; make it again."
        in text
    )
    assert "Error(" not in text


def test_an_asynchronous_training_shows_its_workers(
    scored: Path, asynchronous_epoch: Callable[..., dict[str, object]]
) -> None:
    one = models(scored)[0]
    assert "Asynchronous training" not in make_report(models(scored), PLAIN)
    entries = [{}, {"lost": [BAD, "worker2"], "refused": 1, "items_given_back": 2}]
    lines = [json.dumps(asynchronous_epoch(n, **e)) for n, e in enumerate(entries, start=1)]
    (one / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (one / "config.json").write_text('{"kind": "ctc"}')
    page = make_report(models(scored), PLAIN)
    text = text_of(page)
    assert page.count("Asynchronous training of one") == 1
    assert "weights were 0.88 updates newer, on average, than those" in text
    assert "computed with; at most 3." in text
    assert f"In the training {BAD} and worker2 were lost, 1 gradient was refused" in text
    assert "2 batches were given back" in text
    assert BAD not in page
    assert "worker1 2.00 16 3.00 1.0 25.0 worker2 lost 2.00 16 3.00 2.0 50.0" in text
    assert "<img" not in page
    drawn = make_report(models(scored), ReportOptions())
    assert 'alt="Staleness and workers of one"' in drawn
    assert "1 8 16 0.88 3" in text_of(drawn)  # the numbers of the picture


def test_a_training_without_trouble_says_so(
    scored: Path, asynchronous_epoch: Callable[..., dict[str, object]]
) -> None:
    (models(scored)[0] / "metrics.jsonl").write_text(json.dumps(asynchronous_epoch(1)) + "\n")
    text = text_of(make_report(models(scored), PLAIN))
    assert "no worker was lost, no gradient was refused by a shard as not finite, and no" in text


def test_tokens_written_from_the_right_keep_their_order(scored: Path) -> None:
    """What was said stands before what was recognised, in whatever script."""
    edit_score(models(scored)[0], lambda data: data.update(confusions=[["שלום", "הבית", 3]]))
    page = make_report(models(scored), PLAIN)
    assert "<bdi>שלום</bdi> → <bdi>הבית</bdi>" in page


def test_what_is_typed_is_checked(scored: Path) -> None:
    with pytest.raises(UsageError, match="--utt=nobody: no such utterance in dev"):
        make_report(models(scored), ReportOptions(utts=("nobody",)))
    with pytest.raises(UsageError, match="--worst must be 0 or more"):
        make_report(models(scored), ReportOptions(worst=-1))
