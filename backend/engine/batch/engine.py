"""The batched engine: many requests share one model, a step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from backend.recipe.serving import Limits
from backend.serving.request import Request
from backend.techniques.base import Subject

Finished = Literal["length", "stop", "cancelled"] | None


@dataclass(frozen=True)
class Progress:
    """What one step gave one request: a token, its end, or both; `logits` (V,) are the model's own, before sampling."""

    id: int
    token: int | None
    finished: Finished
    logits: Tensor | None = None


class BatchEngine:
    """Decodes many requests at once; what each gets is what it would get alone."""

    def __init__(self, subject: Subject, limits: Limits) -> None:
        raise NotImplementedError

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RecipeError: for one that could never be served.
        """
        raise NotImplementedError

    def cancel(self, id: int) -> None:
        """Give up a request; the next step reports it as cancelled. An unknown or ended one is left alone."""
        raise NotImplementedError

    def step(self) -> list[Progress]:
        """Read a chunk of waiting prompts, or write one token for each request that is being written."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """Plain data: queue, running, batch, blocks_used, blocks_total, preemptions."""
        raise NotImplementedError
