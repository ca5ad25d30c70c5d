"""The inspection: one race whose lanes are to be looked into, as a job holds it."""

from __future__ import annotations

from pydantic import Field

from backend.recipe.base import Config
from backend.recipe.race import Race


class Inspection(Config):
    """What a job of the kind `inspect` asks for: a race, and the number of the job that it comes from, if any.

    >>> Inspection.read({"race": {"prompt": "Once", "variants": [{}]}}).job is None
    True
    """

    race: Race
    job: int | None = Field(None, ge=1, description="the race's own job")
