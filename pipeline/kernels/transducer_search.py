"""Search with a transducer: Algorithm 1 of [G12], and the greedy path.

The search knows a model only by three functions, so it serves both joiners.
"""

import heapq
import itertools
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class State(NamedTuple):
    """Hidden and cell vectors of the predictor, (N, H) each; [G12] 2.6 keeps both."""

    h: Tensor
    c: Tensor


class SearchModel(Protocol):
    """What a search needs of a transducer. J is the size of the joiner's input."""

    def start(self, count: int) -> tuple[State, Tensor]:
        """State and projection (N, J) of the predictor after ∅."""

    def step(self, state: State, tokens: Tensor) -> tuple[State, Tensor]:
        """State and projection (N, J) after one more token each, (N,)."""

    def log_probs(self, frames: Tensor, projected: Tensor) -> Tensor:
        """log Pr(k|t,u): (N, J) or (1, J) and (N, J) -> (N, V)."""


class Hypothesis(NamedTuple):
    """A token sequence and log Pr(y|x), natural."""

    tokens: tuple[int, ...]
    log_prob: float

    @property
    def normalised(self) -> float:
        """log Pr(y) / |y|, by which [G12] sorts; the empty sequence counts as one token."""
        return self.log_prob / max(1, len(self.tokens))


class _Node:
    """A prefix in the tree of hypotheses; its predictor state is computed once an utterance."""

    __slots__ = ("children", "depth", "parent", "projected", "state", "token")

    def __init__(self, parent: "_Node | None", token: int) -> None:
        self.parent, self.token = parent, token
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[int, _Node] = {}
        self.state: State | None = None
        self.projected: Tensor | None = None

    def child(self, token: int) -> "_Node":
        if token not in self.children:
            self.children[token] = _Node(self, token)
        return self.children[token]

    def tokens(self) -> tuple[int, ...]:
        out = []
        node: _Node | None = self
        while node is not None and node.parent is not None:
            out.append(node.token)
            node = node.parent
        return tuple(reversed(out))


Row = NDArray[np.float64]
Beam = dict[_Node, float]


def transducer_beam_search(
    frames: Tensor,
    model: SearchModel,
    *,
    width: int,
    blank: int = 0,
    length_normalise: bool = False,
) -> list[Hypothesis]:
    """Algorithm 1 of [G12], prefix sum included.

    As printed, a prefix is multiplied by Pr(∅|y, t) before its extensions are made from it; they
    are made from Pr(y) without that factor here, or no sum of paths would be Pr(y|x). An extension
    that is in A from the start is left as it is: the prefix sum has its paths already.

    A child is dropped at once where it cannot enter the beam any more: its probability is not
    above a lower bound of that of the W-th best of B. This changes no result.

    Args:
        frames: the joiner's encoder projections, (T, J).
        model: predictor and joiner.
        width: W, hypotheses kept after each frame.
        blank: id of ∅.
        length_normalise: sort by log Pr(y)/|y| ([G12]) and not by log Pr(y) ([G13]).

    Returns:
        At most W hypotheses, best first.
    """
    root = _Node(None, blank)
    root.state, root.projected = model.start(1)
    beam: Beam = {root: 0.0}
    for frame in frames[:, None, :]:
        rows = _Rows(frame, model)
        beam = _advance(_prefix_sums(beam, rows), rows, width, blank)
    hyps = [Hypothesis(node.tokens(), score) for node, score in beam.items()]
    return sorted(hyps, key=lambda h: -(h.normalised if length_normalise else h.log_prob))


class _Rows:
    """log Pr(k|y, t) of the prefixes that a frame asks for, each computed once."""

    def __init__(self, frame: Tensor, model: SearchModel) -> None:
        self.frame, self.model = frame, model
        self.rows: dict[_Node, Row] = {}

    def compute(self, nodes: list[_Node]) -> None:
        """Those of several prefixes, whose states are known, in one product."""
        nodes = [node for node in nodes if node not in self.rows]
        if nodes:
            projected = torch.cat([self._projected(node) for node in nodes])
            log_probs = self.model.log_probs(self.frame, projected).double().cpu().numpy()
            self.rows.update(zip(nodes, log_probs, strict=True))

    def __getitem__(self, node: _Node) -> Row:
        if node not in self.rows:
            self.compute([node])
        return self.rows[node]

    def _projected(self, node: _Node) -> Tensor:
        if node.projected is None:
            assert node.parent is not None
            assert node.parent.state is not None
            token = torch.tensor([node.token], device=self.frame.device)
            node.state, node.projected = self.model.step(node.parent.state, token)
        return node.projected


def _prefix_sums(beam: Beam, rows: _Rows) -> Beam:
    """The first inner loop: Pr(y) += Σ_ŷ Pr(ŷ) Pr(y|ŷ, t) over the prefixes ŷ of y in the beam.

    The sum to the nearest such prefix suffices, if that prefix already has its own.
    """
    paths: dict[_Node, list[_Node]] = {}
    for node in beam:
        path = [node]
        while path[-1].parent is not None:
            path.append(path[-1].parent)
            if path[-1] in beam:
                paths[node] = path
                break
    inner = {step for path in paths.values() for step in path[1:]}
    rows.compute([*beam, *(node for node in inner if node not in beam)])
    summed = dict(beam)
    for node in sorted(paths, key=lambda n: n.depth):
        path = paths[node]
        log_path = sum(rows[parent][child.token] for child, parent in itertools.pairwise(path))
        summed[node] = float(np.logaddexp(beam[node], summed[path[-1]] + log_path))
    return summed


def _advance(start: Beam, rows: _Rows, width: int, blank: int) -> Beam:
    """The second inner loop: from A to the W most probable of B."""
    count = itertools.count()
    # A: (-log Pr, order of arrival, prefix to extend, its token or blank for the prefix itself)
    candidates = [(-score, next(count), node, blank) for node, score in start.items()]
    heapq.heapify(candidates)
    finished: Beam = {}
    best: list[float] = []  # the W best of B, a heap with the W-th best on top
    # Each of a full beam ends this frame in B, or stays in A below the W-th of B; so the least of
    # their probabilities after a blank bounds the W-th of B from the start.
    floor = -np.inf
    if len(start) == width:
        floor = min(score + rows[node][blank] for node, score in start.items())
    while candidates:
        score, prefix, token = -candidates[0][0], candidates[0][2], candidates[0][3]
        if len(best) == width and best[0] > score:
            break
        heapq.heappop(candidates)
        node = prefix if token == blank else prefix.child(token)
        row = rows[node]
        finished[node] = score + row[blank]
        if len(best) < width:
            heapq.heappush(best, finished[node])
        else:
            heapq.heappushpop(best, finished[node])
        limit = max(floor, best[0]) if len(best) == width else floor
        extended = score + row
        for k in np.flatnonzero(extended > limit).tolist():
            # A prefix that A began with already holds this path, by the prefix sum.
            if k != blank and not (k in node.children and node.children[k] in start):
                heapq.heappush(candidates, (-float(extended[k]), next(count), node, k))
    kept = heapq.nlargest(width, finished.items(), key=lambda item: item[1])
    return dict(kept)


def transducer_greedy(
    frames: Tensor,
    lengths: Tensor,
    model: SearchModel,
    *,
    blank: int = 0,
    max_tokens_per_frame: int = 10,
) -> list[list[int]]:
    """The most probable token at each step, for a batch; an approximation of any search.

    Args:
        frames: the joiner's encoder projections, (N, T, J).
        lengths: (N,) frames.
        model: predictor and joiner.
        blank: id of ∅.
        max_tokens_per_frame: then the next frame is taken, so that it always ends.

    Returns:
        Token ids of each utterance.
    """
    n, num_frames, _ = frames.shape
    hyps: list[list[int]] = [[] for _ in range(n)]
    state, projected = model.start(n)
    for t in range(num_frames):
        active = t < lengths
        for _ in range(max_tokens_per_frame):
            tokens = model.log_probs(frames[:, t], projected).argmax(dim=-1)
            active = active & (tokens != blank)
            if not bool(active.any()):
                break
            new, new_projected = model.step(state, tokens)
            keep = active[:, None]
            state = State(torch.where(keep, new.h, state.h), torch.where(keep, new.c, state.c))
            projected = torch.where(keep, new_projected, projected)
            for row in active.nonzero().flatten().tolist():
                hyps[row].append(int(tokens[row]))
    return hyps
