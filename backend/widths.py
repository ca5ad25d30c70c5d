"""Widths that differ by layer, as a saved recipe.json tells them: a config of transformers cannot."""

from __future__ import annotations

from pydantic import field_validator

from backend.recipe.base import Config


class Widths(Config):
    """A number for every layer; an empty list is a width that does not differ."""

    heads: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    ffn: tuple[int, ...] = ()

    @field_validator("heads", "kv_heads", "ffn")
    @classmethod
    def _whole(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(width < 1 for width in value):
            raise ValueError("a number of at least 1 for every layer")
        return value

    def by_name(self) -> dict[str, tuple[int, ...]]:
        """What differs."""
        return {name: own for name, own in self.model_dump().items() if own}

    def first(self) -> dict[str, int]:
        """The first layer's."""
        return {name: own[0] for name, own in self.by_name().items()}

    def mean(self) -> dict[str, int]:
        """The rounded mean over the layers."""
        return {name: round(sum(own) / len(own)) for name, own in self.by_name().items()}
