"""Utterances with the label of every frame, from the ali.scp of a data directory."""

from pathlib import Path

from pipeline.data.data_dir import DataDir
from pipeline.errors import DataDirError, DataError
from pipeline.models.normalise import speaker_cmvn
from pipeline.tables import VectorReader
from pipeline.text.tokens import Tokens
from pipeline.training.dataset import Utterance, frame_counts

SHOWN = 10  # utterances in a message


def load_aligned(
    directory: Path | str, tokens: Tokens, *, by_speaker: bool = False, allow_pipes: bool = False
) -> list[Utterance]:
    """Read the utterances of a data directory; their tokens are the labels of their frames.

    Args:
        directory: the data directory, with feats.scp and ali.scp, a table of vectors of integers.
        tokens: the tokens whose ids the labels are.
        by_speaker: whether to read the CMVN statistics of each speaker from cmvn.scp.
        allow_pipes: whether the scp files may name commands to run.

    Raises:
        DataDirError: a file is missing, or feats.scp and ali.scp have different utterances.
        DataError: an alignment has more or fewer labels than frames, or labels that are no tokens.
        TableError: an alignment cannot be read.
    """
    data = DataDir(directory)
    feats, scp = data.feats_scp, data.path / "ali.scp"
    if not scp.exists():
        raise DataDirError(
            f"{scp}: no such file; make it with align_tokens.py, from a model and the text, or "
            "with ctm_to_ali.py, from the times of phones"
        )
    frames = frame_counts(data, allow_pipes)
    found: dict[str, tuple[int, ...]] = {}
    for utt_id, labels in VectorReader(f"scp:{scp}", allow_pipes=allow_pipes):
        _check(utt_id, labels.tolist(), frames.get(utt_id), len(tokens), scp)
        found[utt_id] = tuple(map(int, labels.tolist()))
    _check_partners(directory, feats, found)
    cmvn = speaker_cmvn(data, feats, allow_pipes) if by_speaker else {}
    return [Utterance(utt, feats[utt], frames[utt], found[utt], cmvn.get(utt)) for utt in feats]


def _check(utt_id: str, labels: list[float], frames: int | None, vocab: int, scp: Path) -> None:
    if frames is not None and len(labels) != frames:
        raise DataError(
            f"{scp}: {utt_id}: {len(labels)} labels for {frames} frames; make the alignment again "
            "from these features"
        )
    wrong = next((t for t, k in enumerate(labels) if k != int(k) or not 1 <= k < vocab), None)
    if wrong is not None:
        raise DataError(
            f"{scp}: {utt_id}: the label of frame {wrong} is {labels[wrong]:g}, but tokens.txt has "
            f"the ids 1 to {vocab - 1} beside the blank; make the alignment with the same tokens"
        )


def _check_partners(
    directory: Path | str, feats: dict[str, str], found: dict[str, tuple[int, ...]]
) -> None:
    problems = [f"{utt}: in feats.scp, not in ali.scp" for utt in feats if utt not in found]
    problems += [f"{utt}: in ali.scp, not in feats.scp" for utt in found if utt not in feats]
    if problems:
        shown = "\n  ".join(problems[:SHOWN])
        raise DataDirError(
            f"{directory}: {len(problems)} utterances are in only one of feats.scp and ali.scp; "
            f"align them, or leave them out with utils/subset_data_dir.py\n  {shown}"
        )
    if not feats:
        raise DataDirError(f"{directory}: there are no utterances to train on")
