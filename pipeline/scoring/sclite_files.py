"""The folder ``scoring/sclite``: a score in the formats of NIST's sclite, and input for sclite."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.data.data_dir import DataDir
from pipeline.data.file_kinds import number
from pipeline.errors import DataError
from pipeline.plain_text import decode_text, read_lines, shown
from pipeline.scoring import nist_forms
from pipeline.scoring.alignment import Alignments, Pair
from pipeline.scoring.score_options import ScoringOptions
from pipeline.scoring.summary import Confusions, Groups
from pipeline.scoring.transcripts import Systems
from pipeline.tables import open_output

log = logging.getLogger("pipeline")

GroupOf = Mapping[str, Mapping[str, str]]  # grouping (speaker, gender …) -> utt_id -> group


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file atomically, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rest = iter(lines)
    with open_output(str(path)) as stream:
        while some := list(islice(rest, 4096)):
            stream.write("".join(some).encode())


def write_results(
    out: Path, title: str, found: Alignments, group_of: GroupOf, groups: Groups, seen: Confusions
) -> None:
    """Write hyp.sys, hyp.raw, hyp.dtl, hyp.pra and hyp.sgml, in the order of the speakers.

    Args:
        out: the folder to write to.
        title: the name of the system.
        found: the alignments.
        group_of: the groups of each utterance; its "speaker" is used.
        groups: the error counts of each group.
        seen: the counts of the distinct errors.
    """
    speakers, total = group_of["speaker"], found.total()
    order = sorted(range(len(found)), key=lambda n: speakers[found.utt_ids[n]])  # stable
    found = found.select(np.array(order, dtype=np.int64))
    for suffix, percent in (("sys", True), ("raw", False)):
        table = nist_forms.sys_table(title, groups["speaker"], total, percent=percent)
        write_lines(out / f"hyp.{suffix}", [table])
    wrong = nist_forms.count_wrong(found)
    write_lines(out / "hyp.dtl", [nist_forms.dtl_text(title, total, wrong, seen)])
    write_lines(out / "hyp.pra", nist_forms.pra_lines(title, found, speakers))
    write_lines(out / "hyp.sgml", nist_forms.sgml_lines(title, found, speakers))


def write_inputs(
    out: Path,
    texts: Systems,
    data: DataDir,
    group_of: GroupOf,
    options: ScoringOptions,
    ctm: Path,
    vocabulary: Iterable[str],
) -> None:
    """Write ref.trn and hyp.trn, ref.stm if durations are known, and hyp.ctm if times are known.

    If sclite would read a token as a part of its own syntax, a warning names the token and nothing
    is written.

    Args:
        out: the folder to write to.
        texts: references and hypotheses.
        data: the data directory, for durations.
        group_of: the groups of each utterance; its "speaker" and "gender" are used.
        options: the scoring rule.
        ctm: the times of the hypotheses, if this file exists.
        vocabulary: all tokens of the texts.

    Raises:
        DataError: a duration is missing, or the ctm file is damaged.
    """
    signs = {token for token in vocabulary if nist_forms.is_sclite_syntax(token)}
    for utt_id, ref, hyp in texts.pairs() if signs else []:
        for token in [*ref, *hyp]:
            if token in signs:
                file = data.path / "text" if token in ref else ctm.with_name("hyp.txt")
                log.warning(
                    '%s: %s: "%s" belongs to the syntax of sclite, so no trn, stm and ctm are '
                    "written",
                    file, utt_id, token,
                )  # fmt: skip
                return
    speakers, optional = group_of["speaker"], options.optional
    refs = ((utt_id, ref) for utt_id, ref, _ in texts.pairs())
    hyps = ((utt_id, hyp) for utt_id, _, hyp in texts.pairs())
    write_lines(out / "ref.trn", nist_forms.trn_lines(refs, speakers, optional))
    write_lines(out / "hyp.trn", nist_forms.trn_lines(hyps, speakers))
    if durations := find_durations(data):
        missing = next((utt_id for utt_id in texts.utt_ids if utt_id not in durations), None)
        if missing is not None:
            raise DataError(
                f"{data.path}: has no duration of {missing}; make utt2dur or utt2num_frames again"
            )
        sexes = group_of.get("gender", {})
        lines = nist_forms.stm_lines(texts.pairs(), speakers, durations, sexes, optional)
        write_lines(out / "ref.stm", lines)
    if ctm.is_file() and (times := list(ctm_lines(ctm, list(texts.pairs()), options))):
        write_lines(out / "hyp.ctm", times)


def find_durations(data: DataDir) -> dict[str, float]:
    """The duration of each utterance in seconds, from utt2dur or utt2num_frames if one exists."""
    if data.has("utt2dur"):
        return data.utt2dur
    if not data.has("utt2num_frames"):
        return {}
    shift = 0.01
    if data.has("frame_shift"):
        path = data.path / "frame_shift"
        shift = number(decode_text(path.read_bytes(), str(path), DataError).strip())
        if not shift > 0:
            what = "expected the frame shift in seconds, such as 0.01; write it again"
            raise DataError(f"{path}: {what}")
    return {utt_id: shift * frames for utt_id, frames in data.utt2num_frames.items()}


# ---- ctm -----------------------------------------------------------------------------------------


def ctm_lines(path: Path, pairs: Sequence[Pair], options: ScoringOptions) -> Iterator[str]:
    """The lines of a ctm file for these utterances, in their order, after applying the rule.

    Tokens are folded or dropped, and runs are joined, as the rule demands. If the ctm file does not
    belong to these hypotheses, there are no lines, and a warning names the first utterance that
    differs.

    Raises:
        DataError: a line is not ``utterance channel start duration token [confidence]``.
    """
    found = read_ctm(path, options)
    for utt_id, _, hyp in pairs:
        if [fields[4] for fields in found.get(utt_id, [])] != list(hyp):
            log.warning(
                "%s: the tokens of %s differ from its hypothesis, so no ctm is written",
                path,
                utt_id,
            )
            return
    for utt_id, _, _ in pairs:
        for fields in found.get(utt_id, []):
            yield " ".join(fields) + "\n"


def read_ctm(path: Path, options: ScoringOptions) -> dict[str, list[list[str]]]:
    """The fields of each utterance's lines after applying the rule. For errors see `ctm_lines`."""
    fold = options.fold()
    found: dict[str, list[list[str]]] = {}
    for line_number, line in enumerate(read_lines(path, DataError), start=1):
        if line.startswith(";;") or not line.strip():
            continue
        fields = [field.decode() for field in line.encode().split()]  # at ASCII blanks alone
        start, duration = map(number, fields[2:4]) if len(fields) > 4 else (math.nan, math.nan)
        if not (math.isfinite(start) and math.isfinite(duration)):
            what = f"expected a ctm line, not {shown(line)!r}; decode again"
            raise DataError(f"{path}:{line_number}: {what}")
        tokens = fold([fields[4]], f"{path}:{line_number}") if fold else [fields[4]]
        own = found.setdefault(fields[0], [])
        if len(tokens) > 1:  # the characters of a word share its time
            duration /= len(tokens)
            for place, token in enumerate(tokens):
                times = [f"{start + place * duration:.3f}", f"{duration:.3f}"]
                own.append([*fields[:2], *times, token, *fields[5:]])
            continue
        for token in tokens:
            if own and own[-1][4] == token and options.joins(token):
                own[-1][3] = f"{start + duration - float(own[-1][2]):.3f}"
            else:
                own.append([*fields[:4], token, *fields[5:]])
    return found
