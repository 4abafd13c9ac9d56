"""The greedy path with any transducer on any device: see `transducer.transducer_greedy`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.kernels.search.model import SearchModel, State


@dataclass
class Path:
    """The greedy path through an utterance as far as it has come, and the predictor's state."""

    state: State
    projected: Tensor
    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0


class Greedy:
    """Greedy searches with the same network, whose frames may come in chunks."""

    def __init__(
        self, model: SearchModel, blank: int, max_tokens_per_frame: int, like: Tensor
    ) -> None:
        self.model, self.blank, self.limit = model, blank, max_tokens_per_frame

    def start(self) -> Path:
        """The path through an utterance before its first frame."""
        return Path(*self.model.start(1))

    def advance(self, paths: Sequence[Path], frames: Tensor, lengths: list[int]) -> None:
        """Follow the next ``lengths`` frames of utterances, (N, T, J)."""
        if not paths:
            return
        ends = torch.tensor(lengths, device=frames.device)
        t, emitted = torch.zeros_like(ends), torch.zeros_like(ends)  # labels at this frame
        log_probs = torch.tensor([p.log_prob for p in paths], dtype=torch.float64).to(frames.device)
        h, c = zip(*(path.state for path in paths), strict=True)
        state, projected = (
            State(torch.cat(h), torch.cat(c)),
            torch.cat([p.projected for p in paths]),
        )
        everyone = torch.arange(len(paths), device=frames.device)
        while bool((t < ends).any()):
            tokens = torch.full_like(ends, self.blank)
            while bool((going := (t < ends) & (tokens == self.blank)).any()):
                at = everyone[going]
                rows = self.model.log_probs(frames[at, t[at]], projected[at])
                full = emitted[at] == self.limit
                tokens[at] = rows.argmax(dim=-1).masked_fill(full, self.blank)
                log_probs[at] += rows.gather(1, tokens[at][:, None])[:, 0].double()
                stays = going & (tokens == self.blank)
                t, emitted = t + stays, emitted.masked_fill(stays, 0)
            new = tokens != self.blank
            for n in new.nonzero().flatten().tolist():
                paths[n].tokens.append(int(tokens[n]))
            emitted = emitted + new
            after, after_projected = self.model.step(state, tokens)
            keep = new[:, None]
            state = State(torch.where(keep, after.h, state.h), torch.where(keep, after.c, state.c))
            projected = torch.where(keep, after_projected, projected)
        for n, path in enumerate(paths):
            path.state = State(state.h[n : n + 1], state.c[n : n + 1])
            path.projected = projected[n : n + 1]
            path.log_prob = float(log_probs[n])


def greedy(
    frames: Tensor, lengths: list[int], model: SearchModel, blank: int, max_tokens_per_frame: int
) -> list[list[int]]:
    """Follow the most probable tokens; see `transducer.transducer_greedy`."""
    search = Greedy(model, blank, max_tokens_per_frame, frames)
    paths = [search.start() for _ in lengths]
    search.advance(paths, frames, lengths)
    return [path.tokens for path in paths]
