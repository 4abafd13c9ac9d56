"""Scoring of a decode directory; the results are written to ``DECODE_DIR/scoring``::

wer                     Kaldi's %WER, %SER and Scored lines
cer                     the same of characters, if asked for beside words
ref.txt hyp.txt         references and hypotheses after the rule was applied
alignments              their alignments, in the form of Kaldi's align-text
wer_details/            per_utt, per_spk, ops and wer_bootci of Kaldi; per_gender …
sclite/                 input for sclite: ref.trn hyp.trn ref.stm hyp.ctm; in its formats:
                        hyp.sys hyp.raw hyp.dtl hyp.pra hyp.sgml
score.json              totals, interval, groups, confusions and the rule; written last
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.data.data_dir import DataDir
from pipeline.errors import DataError
from pipeline.files import discard, file_digest, locked, replaced_directory
from pipeline.scoring import kaldi_forms, summary
from pipeline.scoring.alignment import EPS, KALDI, KALDI_COUNTS, Alignments, Numbered, align_all
from pipeline.scoring.bootstrap import Interval, bootstrap, check_draws, interval
from pipeline.scoring.comparison import find_speakers
from pipeline.scoring.counts import ErrorCounts
from pipeline.scoring.results import read_score
from pipeline.scoring.sclite_files import GroupOf, write_inputs, write_lines, write_results
from pipeline.scoring.score_options import ScoringOptions, bracket
from pipeline.scoring.transcripts import Systems, check_mode, read_systems, uncollected
from pipeline.seals import check_sidecar, sealed

NO_GROUPS = ("spk2utt", "spk2warp")


@dataclass(frozen=True)
class Score:
    """The score of a decode directory.

    Attributes:
        texts: references and hypotheses after the rule was applied.
        alignments: their alignments.
        counts: the error counts, with the kinds of Kaldi's compute-wer.
        interval: the 95 % interval of the error rate.
        groups: the error counts of each group of each grouping; always has "speaker".
        confusions: the counts of the distinct errors.
        note: the variants of the rule in brackets.
        cer: the score of the same texts in characters, if it was asked for.
    """

    texts: Systems
    alignments: Alignments
    counts: ErrorCounts
    interval: Interval
    groups: summary.Groups
    confusions: summary.Confusions
    note: str
    cer: "Score | None" = None


@uncollected()
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
    with_cer: bool = False,
) -> Score:
    """Score DECODE_DIR/hyp.txt against DATA_DIR/text and write DECODE_DIR/scoring.

    The folder is replaced when it is complete. If the texts have changed, an older folder is
    removed first, so that it does not remain after a failure. While another process decodes or
    scores in DECODE_DIR, this waits.

    Args:
        data_dir: a Kaldi data directory.
        decode_dir: holds hyp.txt, and hyp.ctm if times are known.
        options: the scoring rule.
        mode: the treatment of missing utterances, see `read_systems`.
        replications: the number of test sets to draw for the interval.
        seed: the seed of the random draws.
        name: the name of the error rate, such as WER or PER.
        sclite: whether to write the output and input files of sclite.
        with_cer: whether errors in characters are counted beside those in words.

    Raises:
        UsageError: an option is out of its range.
        DataError: a file is missing, utterances are unknown or missing, or there are no tokens.
    """
    check_draws(replications, seed)
    check_mode(mode)
    with locked(decode_dir / ".lock"):
        draws = replications, seed
        asked = {"sclite": sclite, "with_cer": with_cer}
        return _score_locked(data_dir, decode_dir, options, mode, draws, name, **asked)


def _score_locked(
    data_dir: Path,
    decode_dir: Path,
    options: ScoringOptions,
    mode: str,
    draws: tuple[int, int],
    name: str,
    *,
    sclite: bool,
    with_cer: bool,
) -> Score:
    replications, seed = draws
    data, out = DataDir(data_dir), decode_dir / "scoring"
    sides = data_dir / "text", decode_dir / "hyp.txt"
    digests = tuple(file_digest(path) for path in sides)
    if digests != _digests_of(decode_dir):
        discard(out)
    for path in sides:
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; give a DATA_DIR with text and a DECODE_DIR with hyp.txt"
            )
    check_sidecar(decode_dir / "hyp.ctm", "decode again")
    texts = _read(sides, options, mode)
    group_of = find_groups(data, texts.utt_ids)
    score = _count(sides, texts, options, group_of, *draws)
    if with_cer:
        of_chars = replace(options, cer=True)
        cer = _count(sides, _read(sides, of_chars, mode), of_chars, {}, *draws)
        score = replace(score, cer=cer)
    content = {
        "format_version": summary.FORMAT_VERSION,
        "name": name,
        "rule": options.describe(),
        "variants": options.variants,
        "mode": mode,
        "data_dir": str(data_dir),
        "decode_dir": str(decode_dir),
        "ref_digest": digests[0],
        "hyp_digest": digests[1],
        **_numbers(score),
    }
    content["interval"] |= {"replications": replications, "seed": seed}
    if score.cer:
        content["beside"] = {
            "name": "CER",
            "total": summary.counts_as_data(score.cer.counts),
            "interval": _numbers(score.cer)["interval"] | {"replications": replications},
        }
    with replaced_directory(out) as partial:
        own = "CER" if options.cer else "WER"  # as Kaldi's scripts look for it
        _write_kaldi(partial, score, own)
        if sclite:
            folder, found = partial / "sclite", score.alignments
            ctm, vocabulary = decode_dir / "hyp.ctm", found.vocabulary
            write_inputs(folder, texts, data, group_of, options, ctm, vocabulary)
            title = decode_dir.resolve().name
            write_results(folder, title, found, group_of, score.groups, score.confusions)
        lines = kaldi_forms.wer_lines(score.counts, absent=texts.absent, name=own, note=score.note)
        write_lines(partial / "wer", [lines])
        if score.cer:
            counts = score.cer.counts
            said = {"name": "CER", "note": score.note}
            lines = kaldi_forms.wer_lines(counts, absent=texts.absent, **said)
            write_lines(partial / "cer", [lines])
        files = {name: file_digest(partial / name) for name in ("wer", "alignments")}
        text = "".join(_json({**content, "files": files}))
        write_lines(partial / "score.json", [sealed(text)])
    return score


def _read(sides: Sequence[Path], options: ScoringOptions, mode: str) -> Systems:
    refs, hyps = (f"ark:{path}" for path in sides)
    return read_systems(refs, [hyps], fold=options.fold(), mode=mode)


def _json(content: Mapping[str, Any]) -> Iterator[str]:
    """JSON with one entry per line; full indentation takes minutes for a large score."""
    rows = [f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in content.items()]
    yield "{\n" + ",\n".join(rows) + "\n}\n"


def _digests_of(decode_dir: Path) -> tuple[str | None, str | None] | None:
    """The digests of the texts that were scored before; None without a usable score."""
    try:
        return read_score(decode_dir).digests
    except DataError:
        return None


def _count(
    files: Sequence[Path],
    texts: Systems,
    options: ScoringOptions,
    group_of: GroupOf,
    replications: int,
    seed: int,
) -> Score:
    """Align and count; nothing is written. ``files`` are the references and the hypotheses."""
    numbered = Numbered(texts.pairs())
    if clash := {EPS, *("" if options.cer else ";")} & numbered.vocabulary.keys():
        token = min(clash)
        utt_id, in_ref = next((u, token in r) for u, r, h in texts.pairs() if token in [*r, *h])
        what = f'the token "{token}" has a special meaning in alignments; rename it'
        raise DataError(f"{files[0 if in_ref else 1]}: {utt_id}: {what}")
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
    """The numbers of a score for JSON."""
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
    """Each utterance's speaker, and its groups from the files spk2gender, spk2dialect, …"""
    if data.has("utt2spk"):
        speakers = find_speakers(utt_ids, f"ark:{data.path / 'utt2spk'}")
    else:
        speakers = find_speakers(utt_ids)
        if speakers == utt_ids:  # the names of the utterances do not contain a speaker
            speakers = [summary.UNKNOWN] * len(utt_ids)
    groups = {"speaker": dict(zip(utt_ids, speakers, strict=True))}
    for path in sorted(data.path.glob("spk2*")):
        if path.name not in NO_GROUPS and path.is_file() and "." not in path.name:
            table = data.table(path.name)
            known = [(u, table[s]) for u, s in zip(utt_ids, speakers, strict=True) if s in table]
            groups[path.name.removeprefix("spk2")] = dict(known)
    return groups


def _write_kaldi(out: Path, score: Score, metric: str) -> None:
    """Write the texts, alignments and wer_details."""
    texts, found, details = score.texts, score.alignments, out / "wer_details"
    for name, side in (("ref.txt", 1), ("hyp.txt", 2)):
        write_lines(out / name, (f"{' '.join([p[0], *p[side]])}\n" for p in texts.pairs()))
    write_lines(out / "alignments", kaldi_forms.alignment_lines(found))
    write_lines(details / "per_utt", kaldi_forms.per_utt_lines(found))
    write_lines(details / "ops", kaldi_forms.ops_lines(found))
    line = kaldi_forms.bootci_line(score.interval, name=metric, note=score.note)
    write_lines(details / "wer_bootci", [line])
    for grouping, groups in score.groups.items():
        file = "per_spk" if grouping == "speaker" else f"per_{grouping}"
        table = kaldi_forms.per_group_lines(groups, found.total(), grouping)
        write_lines(details / file, [table])
