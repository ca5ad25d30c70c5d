"""The request: what one client asks of a server, as tokens."""

from __future__ import annotations

from dataclasses import dataclass

from backend.recipe.race import Sampling


@dataclass(frozen=True)
class Request:
    """One prompt to continue. `sampling` of None is greedy; writing ends at a token of `stop_ids`, which is given out.

    `arrival_s` is on the clock of whoever submits it: lane clock in a load, 0 where requests come as they come.
    """

    id: int
    prompt: tuple[int, ...]
    max_new_tokens: int
    arrival_s: float = 0.0
    sampling: Sampling | None = None
    seed: int = 0
    stop_ids: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return len(self.prompt) + self.max_new_tokens
