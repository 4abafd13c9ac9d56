"""Algorithm 1 of [G12] with any model on any device: a search asks for what it needs, in batches.

Each utterance's search is a generator that yields the prefixes whose distributions it wants next;
all utterances are asked together, so the network runs on large batches whoever stands beside.
"""

import heapq
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.kernels.recurrent.layer import peephole_lstm_step
from pipeline.kernels.search.fusion import Automaton, LstmWeights
from pipeline.kernels.search.model import Found, SearchModel, Settings, State
from pipeline.kernels.search.transducer_greedy_plain import Greedy, greedy

__all__ = ["Beams", "Greedy", "beam_search", "greedy"]

T = TypeVar("T")
Row = NDArray[np.float64]
Beam = dict["_Node", float]
Asking = Generator[list["_Node"], None, None]

CHUNK = 256  # extensions that are asked for at a time
NEGLIGIBLE = 45.0  # e^-45 of a sum is below the rounding of float64


class _Node:
    """A prefix in the tree of hypotheses, whose predictor state is computed once an utterance."""

    __slots__ = (
        "children", "depth", "fused", "history", "language", "language_state", "parent",
        "projected", "state", "token",
    )  # fmt: skip

    def __init__(self, parent: "_Node | None", token: int, history: int, fused: float) -> None:
        self.parent, self.token = parent, token
        self.depth: int = parent.depth + 1 if parent else 0
        self.history, self.fused = history, fused  # of the language model
        self.children: dict[int, _Node] = {}
        self.state: State | None = None
        self.projected: Tensor | None = None
        self.language_state: State | None = None
        self.language: Row | None = None  # what a network adds to each token's score

    def added(self, k: int) -> float:
        """What a language model that is a network adds to the score for one more token."""
        return 0.0 if self.language is None else float(self.language[k])

    def tokens(self) -> tuple[int, ...]:
        out = []
        node: _Node | None = self
        while node is not None and node.parent is not None:
            out.append(node.token)
            node = node.parent
        return tuple(reversed(out))


class Beams:
    """Searches with the same network and settings, whose frames may come in chunks."""

    def __init__(
        self, model: SearchModel, settings: Settings, like: Tensor, *, few_states: bool
    ) -> None:
        self.model, self.settings = model, settings

    def start(self) -> "Search":
        """The search through an utterance before its first frame."""
        return Search(self.settings)

    def advance(self, searches: "Sequence[Search]", frames: Sequence[Tensor]) -> None:
        """Search on through the next frames of each utterance, (T, J)."""
        running = {n: one.run(len(frames[n])) for n, one in enumerate(searches)}
        asked: dict[int, list[_Node]] = {}
        for n in list(running):
            _resume(n, running, asked)
        while asked:
            wanted = [(frames[n], searches[n], node) for n in asked for node in asked[n]]
            _evaluate(self.model, wanted)
            for n in list(asked):
                _resume(n, running, asked)


def beam_search(
    frames: Tensor, lengths: list[int], model: SearchModel, settings: Settings
) -> list[Found]:
    """Search through each utterance; see `transducer.transducer_beam_search`."""
    beams = Beams(model, settings, frames, few_states=False)
    searches = [beams.start() for _ in lengths]
    beams.advance(searches, [rows[:n] for rows, n in zip(frames, lengths, strict=True)])
    return [one.found() for one in searches]


def _resume(n: int, running: dict[int, Asking], asked: dict[int, list[_Node]]) -> None:
    asked.pop(n, None)
    for nodes in running[n]:
        asked[n] = nodes
        return


def _evaluate(model: SearchModel, wanted: "list[tuple[Tensor, Search, _Node]]") -> None:
    """Compute the distributions of all prefixes that are asked for in one product."""
    device = wanted[0][0].device
    _advance_states(model, [node for _, _, node in wanted], device)
    projected = torch.cat([_known(node.projected) for _, _, node in wanted])
    frames = torch.stack([rows[search.t] for rows, search, _ in wanted])
    rows = model.log_probs(frames, projected).double().cpu().numpy()
    settings = wanted[0][1].settings
    if settings.network is not None:
        nodes = [node for _, _, node in wanted if node.language is None]
        _ask_network(settings.network, settings, list(dict.fromkeys(nodes)), frames)
    for (_, search, node), row in zip(wanted, rows, strict=True):
        search.rows[node] = row + search.added[node.history]
        if node.language is not None:
            search.rows[node] += node.language


def _advance_states(model: SearchModel, nodes: list[_Node], device: torch.device) -> None:
    """Compute the predictor's state of each prefix from that of its parent, all in one step."""
    new = list(dict.fromkeys(node for node in nodes if node.state is None))
    roots = [node for node in new if node.parent is None]
    if roots:
        _keep(roots, *model.start(len(roots)))
    new = [node for node in new if node.parent is not None]
    if not new:
        return
    before = [_known(_known(node.parent).state) for node in new]
    state = State(torch.cat([s.h for s in before]), torch.cat([s.c for s in before]))
    _keep(new, *model.step(state, torch.tensor([node.token for node in new], device=device)))


def _ask_network(
    network: LstmWeights, settings: Settings, nodes: list[_Node], frames: Tensor
) -> None:
    """Compute what a language model that is a network adds to the tokens after each prefix."""
    if not nodes:
        return
    weights = LstmWeights(*(w.to(frames) for w in network))
    zeros = frames.new_zeros(1, weights.recurrent.shape[1])
    before = [
        State(zeros, zeros) if node.parent is None else _known(node.parent.language_state)
        for node in nodes
    ]
    inputs = weights.inputs[[node.token for node in nodes]]
    h, c = (torch.cat(part) for part in zip(*before, strict=True))
    h, c = peephole_lstm_step(inputs, h, c, weights.recurrent, weights.peepholes)
    logits = (h @ weights.projection.t() + weights.projection_bias).double()
    logits[:, settings.blank] = -torch.inf
    rows = settings.network_weight * logits.log_softmax(dim=-1)
    rows[:, settings.blank] = 0.0
    for i, (node, row) in enumerate(zip(nodes, rows.cpu().numpy(), strict=True)):
        node.language_state = State(h[i : i + 1], c[i : i + 1])
        node.language = row


def _keep(nodes: list[_Node], state: State, projected: Tensor) -> None:
    for i, node in enumerate(nodes):
        node.state = State(state.h[i : i + 1], state.c[i : i + 1])
        node.projected = projected[i : i + 1]


def _known(value: T | None) -> T:
    assert value is not None
    return value


@dataclass
class Search:
    """The search through one utterance."""

    settings: Settings

    def __post_init__(self) -> None:
        self.tables: Automaton = self.settings.tables
        self.added = self.tables.log_probs.copy()
        self.added[:, self.settings.blank] = 0.0
        self.t = 0
        self.rows: dict[_Node, Row] = {}  # log Pr(k|y, t) at this frame, fused
        self.limit_hits = 0
        self.before: list[int] = []  # tokens of the prefix that has no parent
        self.beam: Beam = {_Node(None, self.settings.blank, self.tables.start, 0.0): 0.0}

    def run(self, num_frames: int) -> Asking:
        """Search on; yields prefixes whose rows are wanted, parents before their children."""
        for self.t in range(num_frames):
            if not self.beam:
                break
            self.rows = {}
            yield list(self.beam)
            yield from self._sum_prefixes(self.beam)
            self.beam = yield from self._advance(self.beam)
        self.rows = {}

    def settle(self) -> None:
        """Drop prefixes that begin none of the beam's, and the tokens that all of these share."""
        needed, front = set(self.beam), sorted(self.beam, key=lambda n: -n.depth)
        children: dict[_Node, dict[int, _Node]] = {}
        while len(front) > 1:
            deepest = front[0].depth
            above = dict.fromkeys(node for node in front if node.depth < deepest)
            for node in front[: len(front) - len(above)]:
                parent = _known(node.parent)
                children.setdefault(parent, {})[node.token] = node
                above.setdefault(parent)
            front = sorted(above, key=lambda n: -n.depth)
            needed |= set(front)
        for root in front:
            self.before += root.tokens()
            root.parent = None
        for node in needed:
            node.children = children.get(node, {})

    def best(self, *, length_normalise: bool) -> tuple[list[int], tuple[int, ...]]:
        """The tokens that all prefixes begin with, and the others of the best prefix so far."""
        scores = {
            node: p / max(1, node.depth) if length_normalise else p for node, p in self.beam.items()
        }
        ranked = ((-p, node.depth, node.tokens()) for node, p in scores.items())
        return self.before, min(ranked, default=(0.0, 0, ()))[2]

    def found(self) -> Found:
        """The last beam."""
        before = tuple(self.before)
        beam = [(before + n.tokens(), p, n.fused, n.history) for n, p in self.beam.items()]
        return Found(beam, self.limit_hits)

    def _sum_prefixes(self, beam: Beam) -> Generator[list[_Node], None, None]:
        """The first inner loop: Pr(y) += Σ_ŷ Pr(ŷ) Pr(y|ŷ, t) over the prefixes ŷ of y in the beam.

        The sum to the nearest such prefix suffices, if that prefix already has its own.
        """
        most = float(np.logaddexp.reduce(list(beam.values())))
        for node in sorted(beam, key=lambda n: n.depth):
            path = _path_to_nearest(node, beam)
            log_path = 0.0
            for parent, child in itertools.pairwise(path):
                if parent not in self.rows:
                    yield [parent]
                log_path += self.rows[parent][child.token]
                if most + log_path < beam[node] - NEGLIGIBLE:
                    break
            else:
                if path:
                    beam[node] = float(np.logaddexp(beam[node], beam[path[0]] + log_path))

    def _advance(self, start: Beam) -> Generator[list[_Node], None, Beam]:
        """The second inner loop: from A to the W most probable of B, by labels emitted so far.

        A prefix less probable than the W-th of B so far cannot enter B, nor can its extensions.
        """
        best = _Best(self.settings.beam)
        finished: Beam = {}
        self._end(start, best, finished)
        latest = start
        for emitted in itertools.count():
            wanted = self._extensions(latest, start, best.threshold)
            if not wanted:
                break
            if emitted == self.settings.max_tokens_per_frame:
                self.limit_hits += 1
                break
            latest = {}
            for first in range(0, len(wanted), CHUNK):
                chunk = [w for w in wanted[first : first + CHUNK] if w[0] >= best.threshold]
                if chunk and first >= self.settings.max_expansions:
                    self.limit_hits += 1
                    break
                more = {self._child(node, k): p for p, k, node in chunk}
                missing = [node for node in more if node not in self.rows]
                if missing:
                    yield missing
                self._end(more, best, finished)
                latest |= more
        ranked = sorted(finished.items(), key=lambda i: (-i[1], i[0].depth, _LazyTokens(i[0])))
        return dict(ranked[: self.settings.beam])

    def _end(self, latest: Beam, best: "_Best", finished: Beam) -> None:
        """Prefixes enter B: Pr(y) Pr(∅|y, t)."""
        for node, p in latest.items():
            ended = float(p + self.rows[node][self.settings.blank])
            if ended > -np.inf:
                finished[node] = ended
                best.add(ended)

    def _extensions(
        self, latest: Beam, start: Beam, threshold: float
    ) -> list[tuple[float, int, _Node]]:
        """(log Pr, label, prefix) of what may still enter the beam, best first.

        A prefix that A began with is left out: it holds its paths already, by the prefix sum.
        """
        wanted = []
        for node, p in latest.items():
            extended = p + self.rows[node]
            for k in np.flatnonzero((extended >= threshold) & (extended > -np.inf)).tolist():
                known = node.children.get(k)
                if k != self.settings.blank and (known is None or known not in start):
                    wanted.append((float(extended[k]), k, node))
        return sorted(wanted, key=lambda w: -w[0])

    def _child(self, node: _Node, k: int) -> _Node:
        if k not in node.children:
            fused = node.fused + float(self.tables.log_probs[node.history, k]) + node.added(k)
            history = int(self.tables.following[node.history, k])
            node.children[k] = _Node(node, k, history, fused)
        return node.children[k]


def _path_to_nearest(node: _Node, beam: Beam) -> list[_Node]:
    """From the nearest proper prefix in the beam down to ``node``; empty if there is none."""
    path = [node]
    for ancestor in _ancestors(node):
        path.append(ancestor)
        if ancestor in beam:
            return path[::-1]
    return []


def _ancestors(node: _Node) -> Iterator[_Node]:
    above = node.parent
    while above is not None:
        yield above
        above = above.parent


class _LazyTokens:
    """A prefix as a sort key: its labels are looked up only where a tie asks for them."""

    __slots__ = ("node",)

    def __init__(self, node: _Node) -> None:
        self.node = node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LazyTokens) and self.node is other.node

    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, other: "_LazyTokens") -> bool:
        return self.node.tokens() < other.node.tokens()


class _Best:
    """The scores of the W best of B so far."""

    def __init__(self, beam: int) -> None:
        self.beam = beam
        self.heap: list[float] = []

    def add(self, p: float) -> None:
        if len(self.heap) < self.beam:
            heapq.heappush(self.heap, p)
        else:
            heapq.heappushpop(self.heap, p)

    @property
    def threshold(self) -> float:
        """The W-th best score; what is below it cannot enter the beam."""
        return self.heap[0] if len(self.heap) == self.beam else -np.inf
