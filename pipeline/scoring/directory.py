"""A decode directory scored whole: ``DECODE_DIR/scoring`` with everything that can be told.

::

    wer                     Kaldi's %WER, %SER and Scored lines
    ref.txt hyp.txt         both sides under the rule; alignments: align-text's form
    wer_details/            per_utt, per_spk, ops, wer_bootci as Kaldi's; per_gender …
    sclite/                 for sclite: ref.trn hyp.trn ref.stm hyp.ctm; its own forms:
                            hyp.sys hyp.raw hyp.dtl hyp.pra hyp.sgml
    score.json              totals, interval, groups, confusions and the rule; written last
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.data_dir import DataDir
from pipeline.errors import DataError
from pipeline.scoring import kaldi_forms, nist_forms, summary
from pipeline.scoring.alignment import KALDI, KALDI_COUNTS, Alignments, Numbered, align_all
from pipeline.scoring.bootstrap import Interval, bootstrap, check_draws, interval
from pipeline.scoring.comparison import find_speakers
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.options import ScoringOptions, bracket
from pipeline.scoring.transcripts import Systems, read_systems
from pipeline.tables import open_output

NO_GROUPS = ("spk2utt", "spk2warp")

GroupOf = Mapping[str, Mapping[str, str]]  # speaker, gender …: utt_id -> group


@dataclass(frozen=True)
class Score:
    """What a decode directory scores.

    Attributes:
        texts: both sides under the rule.
        alignments: of them.
        counts: errors in compute-wer's kinds.
        interval: of the error rate.
        groups: each grouping's groups of utterances; "speaker" is always there.
        confusions: what was taken for what.
        note: the variants in brackets.
    """

    texts: Systems
    alignments: Alignments
    counts: ErrorCounts
    interval: Interval
    groups: summary.Groups
    confusions: summary.Confusions
    note: str


def score_directory(
    data_dir: Path,
    decode_dir: Path,
    options: ScoringOptions,
    *,
    mode: str = "strict",
    replications: int = 10000,
    seed: int = 0,
    name: str = "WER",
    sclite: bool = True,
) -> Score:
    """Score DECODE_DIR/hyp.txt against DATA_DIR/text and write DECODE_DIR/scoring.

    An older score is taken away first, so that none stands beside hypotheses it is not of.

    Args:
        data_dir: a Kaldi data directory.
        decode_dir: holds hyp.txt, and hyp.ctm if there are times.
        options: the rule.
        mode: see `read_systems`.
        replications: test sets drawn for the interval.
        seed: of the draws.
        name: of the error rate: WER, PER …
        sclite: write the files of and for sclite too.

    Raises:
        DataError: a missing file, unknown or missing utterances, no tokens.
    """
    check_draws(replications, seed)
    data, out = DataDir(data_dir), decode_dir / "scoring"
    for old in ("wer", "score.json"):
        (out / old).unlink(missing_ok=True)
    for path in (data_dir / "text", decode_dir / "hyp.txt"):
        if not path.is_file():
            raise DataError(f"{path}: missing; give DATA_DIR with text, DECODE_DIR with hyp.txt")
    tables = f"ark:{data_dir / 'text'}", f"ark:{decode_dir / 'hyp.txt'}"
    texts = read_systems(tables[0], [tables[1]], fold=options.fold(), mode=mode)
    group_of = find_groups(data, texts.utt_ids)
    score = _count(texts, options, group_of, replications=replications, seed=seed)
    _write_kaldi(out, score)
    if sclite:
        _write_sclite(out / "sclite", score, data, group_of)
        if (decode_dir / "hyp.ctm").is_file():
            ctm = ctm_lines(decode_dir / "hyp.ctm", options)
            _write(out / "sclite" / "hyp.ctm", ctm)
    lines = kaldi_forms.wer_lines(score.counts, absent=texts.absent, note=score.note)
    _write(out / "wer", [lines])
    content = {
        "format_version": summary.FORMAT_VERSION,
        "name": name,
        "rule": options.describe(),
        "variants": options.variants,
        "data_dir": str(data_dir),
        "decode_dir": str(decode_dir),
        **_numbers(score),
    }
    content["interval"] |= {"replications": replications, "seed": seed}
    _write(out / "score.json", [json.dumps(content, ensure_ascii=False, indent=1) + "\n"])
    return score


def _count(
    texts: Systems, options: ScoringOptions, group_of: GroupOf, *, replications: int, seed: int
) -> Score:
    """All that is counted; nothing is written."""
    numbered = Numbered(texts.pairs())
    found = align_all(numbered, options.rule, optional=options.optional)
    rule = KALDI_COUNTS if options.rule is KALDI else options.rule
    counts = align_all(numbered, rule, optional=options.optional).total()
    tokens, errors = found.tallies[:, :3].sum(axis=1), found.tallies[:, 1:].sum(axis=1)
    rates = bootstrap(tokens, errors[None], replications=replications, seed=seed)
    return Score(
        texts,
        found,
        counts,
        interval(rates[0]),
        summary.count_groups(found, group_of),
        summary.count_confusions(found),
        bracket(options),
    )


def _numbers(score: Score) -> dict[str, Any]:
    """A score for JSON."""
    ends = {"low": round(score.interval.low, 6), "high": round(score.interval.high, 6)}
    return {
        "total": summary.counts_as_data(score.alignments.total()),
        "interval": {"level": 0.95, **ends},
        "absent": score.texts.absent,
        "groups": {
            grouping: {group: summary.counts_as_data(counts) for group, counts in groups.items()}
            for grouping, groups in score.groups.items()
        },
        "confusions": score.confusions.substitutions,
        "insertions": score.confusions.insertions,
        "deletions": score.confusions.deletions,
        "correct": score.confusions.correct,
    }


def find_groups(data: DataDir, utt_ids: list[str]) -> GroupOf:
    """Each utterance's speaker and whatever the files spk2gender, spk2dialect, … tell of them."""
    if data.has("utt2spk"):
        speakers = find_speakers(utt_ids, f"ark:{data.path / 'utt2spk'}")
    else:
        speakers = find_speakers(utt_ids)
    groups = {"speaker": dict(zip(utt_ids, speakers, strict=True))}
    for path in sorted(data.path.glob("spk2*")):
        if path.name not in NO_GROUPS and path.is_file() and "." not in path.name:
            table = data.table(path.name)
            known = [(u, table[s]) for u, s in zip(utt_ids, speakers, strict=True) if s in table]
            groups[path.name.removeprefix("spk2")] = dict(known)
    return groups


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write a file whole or not at all, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_output(str(path)) as stream:
        for some in _batched(lines):
            stream.write(some.encode())


def _batched(lines: Iterable[str], count: int = 4096) -> Iterator[str]:
    """The text of ``count`` lines at a time."""
    rest = iter(lines)
    while some := list(islice(rest, count)):
        yield "".join(some)


def _write_kaldi(out: Path, score: Score) -> None:
    """Texts, alignments and wer_details."""
    texts, found, details = score.texts, score.alignments, out / "wer_details"
    for name, side in (("ref.txt", 1), ("hyp.txt", 2)):
        _write(out / name, (f"{' '.join([p[0], *p[side]])}\n" for p in texts.pairs()))
    _write(out / "alignments", kaldi_forms.alignment_lines(found))
    _write(details / "per_utt", kaldi_forms.per_utt_lines(found))
    _write(details / "ops", kaldi_forms.ops_lines(found))
    _write(details / "wer_bootci", [kaldi_forms.bootci_line(score.interval, note=score.note)])
    for grouping, groups in score.groups.items():
        file = "per_spk" if grouping == "speaker" else f"per_{grouping}"
        table = kaldi_forms.per_group_lines(groups, found.total(), grouping)
        _write(details / file, [table])


def _write_sclite(out: Path, score: Score, data: DataDir, group_of: GroupOf) -> None:
    """The files of sclite and for it. stm only where the data directory knows durations."""
    texts, found, speakers = score.texts, score.alignments, group_of["speaker"]
    by_speaker, total = score.groups["speaker"], found.total()
    _write(out / "ref.trn", nist_forms.trn_lines(((u, r) for u, r, _ in texts.pairs()), speakers))
    _write(out / "hyp.trn", nist_forms.trn_lines(((u, h) for u, _, h in texts.pairs()), speakers))
    for suffix, percent in (("sys", True), ("raw", False)):
        table = nist_forms.sys_table("hyp", by_speaker, total, percent=percent)
        _write(out / f"hyp.{suffix}", [table])
    wrong = nist_forms.count_wrong(found)
    _write(out / "hyp.dtl", [nist_forms.dtl_text("hyp", total, wrong, score.confusions)])
    _write(out / "hyp.pra", nist_forms.pra_lines("hyp", found, speakers))
    _write(out / "hyp.sgml", nist_forms.sgml_lines("hyp", found, speakers))
    if durations := find_durations(data):
        sexes = group_of.get("gender", {})
        missing = next((u for u in texts.utt_ids if u not in durations), None)
        if missing is not None:
            raise DataError(
                f"{data.path}: no duration of {missing}; make utt2dur or utt2num_frames again"
            )
        _write(out / "ref.stm", nist_forms.stm_lines(texts.pairs(), speakers, durations, sexes))


def find_durations(data: DataDir) -> dict[str, float]:
    """Seconds of each utterance, from utt2dur or utt2num_frames; empty if there is neither."""
    if data.has("utt2dur"):
        return data.utt2dur
    if not data.has("utt2num_frames"):
        return {}
    shift = 0.01
    if data.has("frame_shift"):
        shift = float((data.path / "frame_shift").read_text())
    return {utt_id: shift * frames for utt_id, frames in data.utt2num_frames.items()}


def ctm_lines(path: Path, options: ScoringOptions) -> Iterator[str]:
    """The lines of a ctm under the rule: names folded, what is dropped left out, runs joined.

    Raises:
        DataError: a line that is no ``utterance channel start duration token [confidence]``.
    """
    last: list[str] = []
    fold = options.fold()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        try:
            start, duration = float(fields[2]), float(fields[3])
            tokens = fold([fields[4]], f"{path}:{number}") if fold else [fields[4]]
        except (IndexError, ValueError):
            raise DataError(f"{path}:{number}: not a ctm line: {line!r}; decode again") from None
        for token in tokens:
            joined = options.collapse_repeats or (options.collapse_sil and token == options.sil)
            if joined and last[:2] == fields[:2] and last[4] == token:
                last[3] = f"{start + duration - float(last[2]):.3f}"
                continue
            if last:
                yield " ".join(last) + "\n"
            last = [*fields[:4], token, *fields[5:]]
    if last:
        yield " ".join(last) + "\n"
