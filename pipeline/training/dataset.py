"""Utterances with features and tokens, and batches of them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pipeline.data.data_dir import DataDir
from pipeline.errors import DataDirError, TableError
from pipeline.frontend.cmvn import CmvnStats
from pipeline.models.normalise import normalise_features, speaker_cmvn
from pipeline.tables import read_matrix
from pipeline.text.tokens import Tokens


@dataclass(frozen=True)
class Utterance:
    """One training example, whose features are read when a batch is made."""

    utt_id: str
    features: str  # rxfilename
    num_frames: int
    tokens: tuple[int, ...]
    cmvn: CmvnStats | None = None  # statistics of its speaker; None: no normalisation by speaker


@dataclass(frozen=True)
class Batch:
    """Some utterances as padded tensors."""

    utt_ids: list[str]
    features: Tensor  # (N, T, F), zero in the padding
    lengths: Tensor  # (N,) frames
    targets: Tensor  # (N, U), 0 in the padding
    target_lengths: Tensor  # (N,)

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        return dataclasses.replace(
            self,
            features=self.features.to(device),
            lengths=self.lengths.to(device),
            targets=self.targets.to(device),
            target_lengths=self.target_lengths.to(device),
        )

    def each(self) -> Iterator["Batch"]:
        """Split the batch into batches of one utterance."""
        for n, utt_id in enumerate(self.utt_ids):
            frames, tokens = int(self.lengths[n]), int(self.target_lengths[n])
            one = slice(n, n + 1)
            yield Batch(
                [utt_id],
                self.features[one, :frames],
                self.lengths[one],
                self.targets[one, :tokens],
                self.target_lengths[one],
            )


def load_dataset(
    directory: Path | str,
    tokens: Tokens,
    *,
    with_features: bool = True,
    by_speaker: bool = False,
    allow_pipes: bool = False,
) -> list[Utterance]:
    """Read the utterances of a data directory.

    Args:
        directory: the data directory.
        tokens: the tokens of its text.
        with_features: whether to read feats.scp; if not, the length of an utterance is counted in
            tokens.
        by_speaker: whether to read the CMVN statistics of each speaker from cmvn.scp.
        allow_pipes: whether feats.scp and cmvn.scp may name commands to run.

    Raises:
        DataDirError: a file is missing, or feats.scp and text have different utterances.
        PhoneError: the text has a symbol that is not a token.
    """
    data = DataDir(directory)
    text = data.text
    feats = data.feats_scp if with_features else dict.fromkeys(text, "")
    _check_partners(directory, feats, text)
    places = (
        (f"{directory}/text:{line}: {utt}", words.split())
        for line, (utt, words) in enumerate(text.items(), start=1)
    )
    encoded = dict(zip(text, map(tuple, tokens.encode_all(places)), strict=True))
    frames = (
        frame_counts(data, allow_pipes)
        if with_features
        else {u: len(t) for u, t in encoded.items()}
    )
    cmvn = speaker_cmvn(data, feats, allow_pipes) if by_speaker and with_features else {}
    return [Utterance(utt, feats[utt], frames[utt], encoded[utt], cmvn.get(utt)) for utt in feats]


def _check_partners(directory: Path | str, feats: dict[str, str], text: dict[str, str]) -> None:
    problems = [f"{utt}: in feats.scp, not in text" for utt in feats if utt not in text]
    problems += [f"{utt}: in text, not in feats.scp" for utt in text if utt not in feats]
    if problems:
        shown = "\n  ".join(problems[:10])
        raise DataDirError(
            f"{directory}: {len(problems)} utterances are in only one of feats.scp and text; run "
            f"utils/fix_data_dir.py {directory}\n  {shown}"
        )
    if not feats:
        raise DataDirError(f"{directory}: there are no utterances to train on")


def frame_counts(data: DataDir, allow_pipes: bool) -> dict[str, int]:
    """The number of frames of each utterance, from utt2num_frames or else from the features."""
    if data.has("utt2num_frames") and data.utt2num_frames.keys() >= data.feats_scp.keys():
        return data.utt2num_frames
    return {
        utt: len(read_matrix(rx, allow_pipes=allow_pipes)) for utt, rx in data.feats_scp.items()
    }


def load_features(
    rxfilename: str, utt_id: str, dim: int, cmvn: CmvnStats | None, *, allow_pipes: bool = False
) -> np.ndarray:
    """Read and normalise the features of one utterance, (T, F) float32.

    Raises:
        FeatureError: the dimension is wrong, there are no frames, or a value is not finite.
        TableError: the features cannot be read.
    """
    try:
        matrix = read_matrix(rxfilename, allow_pipes=allow_pipes)
    except TableError as error:
        raise TableError(f"{utt_id} in feats.scp: {error}") from error
    return normalise_features(matrix, utt_id, dim, cmvn)


def _its_tokens(utterance: Utterance, frames: int) -> Sequence[int]:
    return utterance.tokens


def make_batch(
    utterances: Sequence[Utterance],
    load: Callable[[Utterance], np.ndarray],
    targets_of: Callable[[Utterance, int], Sequence[int]] = _its_tokens,
) -> Batch:
    """Read and pad some utterances.

    Args:
        utterances: the utterances of the batch.
        load: reads the features of an utterance, (T, F).
        targets_of: the target ids of an utterance, given its number of frames.
    """
    features = [torch.from_numpy(load(utterance)) for utterance in utterances]
    targets = [
        torch.tensor(targets_of(utterance, len(x)), dtype=torch.int64)
        for utterance, x in zip(utterances, features, strict=True)
    ]
    return Batch(
        [utterance.utt_id for utterance in utterances],
        torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
        torch.tensor([len(f) for f in features]),
        torch.nn.utils.rnn.pad_sequence(targets, batch_first=True),
        torch.tensor([len(t) for t in targets]),
    )


def shuffled_batches(
    utterances: Sequence[Utterance],
    size: int,
    generator: torch.Generator,
    *,
    frames: int = 0,
) -> list[list[Utterance]]:
    """Batches in random order, each with utterances of similar length.

    The utterances are shuffled and cut into pools of ``16 · size``; each pool is sorted by length
    and cut into batches.

    Args:
        utterances: the utterances, each of which gets into exactly one batch.
        size: the maximum number of utterances in a batch.
        generator: the source of the random order.
        frames: the maximum number of frames in a batch, with padding; 0: any number. A longer
            utterance is a batch of its own.
    """
    order = torch.randperm(len(utterances), generator=generator).tolist()
    batches: list[list[Utterance]] = []
    for start in range(0, len(order), 16 * size):
        pool = [utterances[i] for i in order[start : start + 16 * size]]
        if size > 1:
            pool.sort(key=lambda u: (u.num_frames, u.utt_id))
        batches += _cut(pool, size, frames)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def by_longest(batches: Sequence[list[Utterance]]) -> list[list[Utterance]]:
    """Batches in order of their longest utterance, the shortest first.

    SortaGrad does so in the first epoch: D. Amodei et al., "Deep Speech 2: End-to-End Speech
    Recognition in English and Mandarin", 2016.
    """
    return sorted(batches, key=lambda batch: max((u.num_frames, u.utt_id) for u in batch))


def _cut(pool: Sequence[Utterance], size: int, frames: int) -> Iterator[list[Utterance]]:
    batch: list[Utterance] = []
    for utterance in pool:
        longest = max(u.num_frames for u in [*batch, utterance])
        too_long = 0 < frames < longest * (len(batch) + 1)
        if batch and (len(batch) == size or too_long):
            yield batch
            batch = []
        batch.append(utterance)
    if batch:
        yield batch


def batches_by_length(utterances: Sequence[Utterance], size: int) -> Iterator[list[Utterance]]:
    """Batches for evaluation, the longest utterances first."""
    ordered = sorted(utterances, key=lambda u: (-u.num_frames, u.utt_id))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
