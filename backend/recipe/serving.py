"""Serving: how requests share one model, the load that is put on it, and what counts as served well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import LANES, Measure, Race, Sampling
from backend.recipe.recipe import Recipe

Batching = Literal["continuous", "static", "shrinking"]
PROMPT = "Once there was a lantern in the harbor."  # read by the lane as it gets ready; no request is made of it


class Limits(Config):
    """What a batch may hold, and how requests get into it.

    >>> Limits.read({"slots": 0})
    Traceback (most recent call last):
    backend.recipe.base.RecipeError: slots: '0' is not possible. Allowed: greater than or equal to 1. ...
    """

    batching: Batching = Field(
        "continuous",
        description=(
            "continuous: who ends makes room at once; static: a batch ends before the next begins, and rows that have "
            "ended are computed to its end; shrinking: static, but rows that have ended are not computed"
        ),
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
    prefix_blocks: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="blocks of prompts kept for others that begin alike, beside `blocks`; 0 is none",
    )

    def needed(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)

    def check(self, where: str, longest: int) -> None:
        """Refuse a memory limit that cannot hold a request of `longest` tokens, which could never be served.

        Raises:
            RecipeError: naming `blocks`.
        """
        needed = self.needed(longest)
        if 0 < self.blocks < needed:
            allowed = f"0, or at least {needed}: the longest request has {longest} tokens of prompt and answer"
            remedy = "Raise the memory limit, or shorten prompts or answers."
            raise RecipeError(f"{where}.blocks", self.blocks, allowed, remedy)

    @property
    def label(self) -> str:
        """A few words for the title of a lane."""
        words = [f"{self.batching} batching"]
        words += [f"{self.slots} slots"] if self.slots != 8 else []
        words += [f"{self.blocks} blocks"] if self.blocks else []
        words += [self.preemption] if self.blocks and self.admission == "grow" else []
        words += [f"TPOT {self.tpot_target_s * 1000:g} ms"] if self.tpot_target_s else []
        words += [f"prefixes in {self.prefix_blocks} blocks"] if self.prefix_blocks else []
        return ", ".join(words)


class Load(Config):
    """The requests that come, and when. Lengths are spread evenly on a logarithmic scale: many short, few long."""

    arrivals: Literal["poisson", "burst", "closed", "trace"] = Field(
        "burst",
        description=(
            "poisson: at random, so many a second; burst: so many at once; closed: clients that each wait for their "
            "answer and ask again; trace: when a file says"
        ),
    )
    requests: int = Field(48, ge=1, le=5000, description="requests in all")
    rate_per_s: float = Field(2.0, gt=0.0, le=10_000.0, description="poisson: requests a second of lane clock")
    burst: int = Field(48, ge=1, le=5000, description="burst: requests that come at once")
    every_s: float = Field(10.0, gt=0.0, le=3600.0, description="burst: seconds from one to the next")
    clients: int = Field(16, ge=1, le=1000, description="closed: clients that ask at the same time")
    trace: str = Field("", max_length=1000, description="trace: a CSV or JSON-lines file with arrivals and lengths")
    prompt_min: int = Field(16, ge=1, le=1_000_000, description="tokens of the shortest prompt")
    prompt_max: int = Field(128, ge=1, le=1_000_000, description="tokens of the longest prompt")
    output_min: int = Field(16, ge=1, le=1_000_000, description="tokens of the shortest answer")
    output_max: int = Field(256, ge=1, le=1_000_000, description="tokens of the longest answer")
    shared_prefix: int = Field(
        0, ge=0, le=1_000_000, description="tokens that all prompts begin with, before their own; in a trace among them"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("prompt", "output"):
            least, most = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if least > most:
                remedy = f"Lower {name}_min or raise {name}_max."
                raise RecipeError(f"load.{name}_min", least, f"at most {name}_max, {most}", remedy)
        if (self.arrivals == "trace") != bool(self.trace):
            allowed = "a file where arrivals come from a trace, and nothing otherwise"
            raise RecipeError("load.trace", self.trace or "nothing", allowed, "Name a file, or choose other arrivals.")
        return self

    @property
    def longest(self) -> int:
        """Tokens of prompt and answer together, at most; of a trace its file decides."""
        return self.shared_prefix + self.prompt_max + self.output_max

    @property
    def label(self) -> str:
        """How they come, in a few words."""
        if self.arrivals == "trace":
            return f"trace {Path(self.trace).name}"
        how = {
            "poisson": f"{self.rate_per_s:g} a second at random",
            "burst": f"{min(self.burst, self.requests)} at once",
            "closed": f"{self.clients} clients in a closed loop",
        }[self.arrivals]
        alike = f", {self.shared_prefix} tokens of each prompt alike" if self.shared_prefix else ""
        return f"{self.requests} requests, {how}{alike}"


class Targets(Config):
    """What a request must keep to for counting in goodput."""

    ttft_s: float = Field(2.0, gt=0.0, le=3600.0, description="seconds to the first token, waiting included")
    tpot_s: float = Field(0.1, gt=0.0, le=3600.0, description="seconds for each further token")


class ServedLane(Config):
    """One lane: a recipe, and how requests share the model that it makes."""

    recipe: Recipe = Recipe()
    limits: Limits = Limits()

    @property
    def label(self) -> str:
        """Batching, and what of the model is changed."""
        return self.limits.label + (f", {self.recipe.label}" if self.recipe.switches else "")


class Serving(Config):
    """What a job of the kind `serve` asks for: the same load on two to four lanes.

    >>> Serving.read({}).variants[0].limits.batching
    'continuous'
    """

    model: str = Field("storyteller", min_length=1, max_length=500)
    revision: str | None = Field(None, max_length=100, description="a Hub revision")
    trust_remote_code: bool = Field(False, description="run code that comes with the model; off unless you know it")
    baseline: ServedLane = ServedLane(limits=Limits(batching="static"))
    variants: tuple[ServedLane, ...] = Field((ServedLane(),), min_length=1, max_length=3)
    load: Load = Load()
    targets: Targets = Targets()
    sampling: Sampling = Sampling()
    seed: int = Field(1, ge=0, le=2**31 - 1)
    check_alone: int = Field(4, ge=0, le=100, description="answers that are written again alone and compared")

    @property
    def lanes(self) -> list[tuple[str, ServedLane]]:
        """Every lane with its name, the baseline first."""
        return list(zip(LANES, (self.baseline, *self.variants), strict=False))

    @property
    def race(self) -> Race:
        """The race whose lanes load and change the same models; it is never run."""
        return Race(
            model=self.model,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            prompt=PROMPT,
            max_new_tokens=min(8192, self.load.longest),
            sampling=self.sampling,
            seed=self.seed,
            baseline=self.baseline.recipe,
            variants=tuple(lane.recipe for lane in self.variants),
            measure=Measure(budget_s=0.0, quality_tokens=0, questions=0),
        )

    def check(self, facts: ModelFacts) -> None:
        """Refuse what cannot be served, before anything is loaded.

        Raises:
            RecipeError: for a request longer than the context or than a lane's memory, or a switch that decodes one
                request only.
        """
        if self.load.arrivals != "trace" and self.load.longest > facts.context:
            prompt = self.load.shared_prefix + self.load.prompt_max
            asked = f"{prompt} and {self.load.output_max} to write"
            allowed = f"at most {facts.context} tokens together, the context of {facts.name}"
            remedy = "Make the longest prompt (prompt_max) or answer (output_max) shorter."
            raise RecipeError("load.prompt_max", asked, allowed, remedy)
        for name, lane in self.lanes:
            if self.load.arrivals != "trace":
                lane.limits.check(f"{name}.limits", self.load.longest)
            for switch in lane.recipe.pipeline:
                if reason := switch.alone():
                    allowed = f"nothing here: {reason}"
                    raise RecipeError(f"{name}.switches.{switch.kind}", "on", allowed, "Switch it off to serve.")


class ServePreset(Config):
    """A serving with a sentence on what to look at."""

    title: str = Field(min_length=1, max_length=80)
    look_at: str = Field(min_length=1, max_length=400)
    serving: Serving


PRESETS = Path(__file__).resolve().parents[2] / "presets" / "serve"


def serve_presets(folder: Path = PRESETS) -> dict[str, ServePreset]:
    """Every preset by its file's name.

    Raises:
        RecipeError: for one that does not validate.
    """
    return {path.stem: ServePreset.read(_json(path), where=path.stem) for path in sorted(folder.glob("*.json"))}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("preset", path.name, "a JSON file", f"Correct it: {error}.") from None
