"""Serving: how requests share one model, and the load that is put on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from backend.recipe.base import Config


class Limits(Config):
    """What a batch may hold, and how requests get into it.

    >>> Limits.read({"slots": 0})
    Traceback (most recent call last):
    backend.recipe.base.RecipeError: slots: '0' is not possible. Allowed: greater than or equal to 1. ...
    """

    batching: Literal["continuous", "static"] = Field(
        "continuous", description="continuous: who ends makes room at once; static: a batch ends before the next begins"
    )
    slots: int = Field(8, ge=1, le=256, description="requests that decode together, at most")
    block_tokens: int = Field(16, ge=1, le=1024, description="tokens of one KV block, the unit of memory")
    blocks: int = Field(0, ge=0, le=1_000_000, description="KV blocks in all; 0 is enough for every slot's longest")
    chunk_tokens: int = Field(64, ge=1, le=8192, description="prompt tokens that are read in one step, at most")
    admission: Literal["reserve", "grow"] = Field(
        "grow", description="reserve: blocks for the whole answer at once; grow: as they are needed, with preemption"
    )
    preemption: Literal["recompute", "swap"] = Field(
        "recompute", description="what becomes of the KV cache of a request that has to make room"
    )
    tpot_target_s: float = Field(
        0.0, ge=0.0, le=3600.0, description="seconds a token that admission keeps to; 0 is no target"
    )
