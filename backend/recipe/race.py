"""The race: one model, one prompt, one baseline and one to three variants. It is what a job holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.prompts import FIELD, MAX_PROMPT_CHARACTERS, prompt_lines
from backend.recipe.recipe import Recipe

LANES = ("base", "A", "B", "C")


class Sampling(Config):
    """How the next token is chosen. Temperature 0 is greedy: the most likely token, every time."""

    temperature: float = Field(0.0, ge=0.0, le=2.0, description="0 is greedy; higher is more surprising")
    top_k: int = Field(0, ge=0, le=100_000, description="only the k most likely tokens; 0 is all")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="only the likeliest tokens that hold this share")
    min_p: float = Field(0.0, ge=0.0, le=1.0, description="only tokens this likely beside the likeliest; 0 is all")
    repetition_penalty: float = Field(
        1.0, ge=0.1, le=2.0, description="above 1, tokens that the text holds are made less likely; 1 changes nothing"
    )


class Measure(Config):
    """The measurement after the race: paired whole requests until the interval is narrow or the time is spent."""

    budget_s: float = Field(12.0, ge=0.0, le=3600.0, description="seconds to spend on it; 0 leaves it out")
    width: float = Field(0.02, gt=0.0, le=1.0, description="stop when the interval of every ratio is this narrow")
    tokens: int = Field(48, ge=8, le=2048, description="most tokens a request")
    prompt_set: Literal["one", "list", "mix"] = Field(
        "one",
        description="one: the race's prompt; list: prompts of your own; mix: short chat, long prompt, long answer",
    )
    prompts: str = Field("", description="one prompt a line, where the set is a list")
    quality_tokens: int = Field(1280, ge=0, le=65_536, description="held-out tokens for perplexity; 0 leaves it out")
    questions: int = Field(24, ge=0, le=1000, description="questions of a storyteller, last words of others; 0: none")

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        if self.prompt_set == "list":
            prompt_lines(self.prompts)
        elif self.prompts:
            allowed = f"nothing while the prompt set is {self.prompt_set!r}"
            remedy = "Remove the prompts, or set measure.prompt_set to 'list'."
            raise RecipeError(FIELD, self.prompts, allowed, remedy)
        return self


class Budget(Config):
    """What a change may cost in quality: the verdict becomes pass or fail. See backend/budget.py for the rules."""

    kld: float | None = Field(None, ge=0.0, le=100.0, description="most mean KLD in nats, in decode and in prefill")
    top1: float | None = Field(None, ge=0.0, le=1.0, description="least share of tokens that both rank first")
    perplexity_ratio: float | None = Field(None, ge=1.0, le=1000.0, description="most perplexity, as times baseline")
    accuracy_points: float | None = Field(
        None, ge=0.0, le=100.0, description="most points lost of 100, in questions or in last words"
    )


class Race(Config):
    """What one job asks for.

    >>> Race(model="storyteller", prompt="Once", variants=({"switches": {}},)).lanes[1][0]
    'A'
    """

    model: str = Field("storyteller", min_length=1, max_length=500)
    revision: str | None = Field(None, max_length=100, description="a Hub revision")
    trust_remote_code: bool = Field(False, description="run code that comes with the model; off unless you know it")
    prompt: str = Field(min_length=1)
    max_new_tokens: int = Field(128, ge=1, le=8192)
    stop_at_end: bool = Field(False, description="stop at the end-of-text token, so that lanes may differ in length")
    sampling: Sampling = Sampling()
    seed: int = Field(1, ge=0, le=2**31 - 1)
    baseline: Recipe = Recipe()
    variants: tuple[Recipe, ...] = Field(min_length=1, max_length=3)
    measure: Measure = Measure()
    budget: Budget = Budget()
    price_per_hour: float = Field(0.5, ge=0.0, le=10_000.0, description="of this machine, for cost a million tokens")

    @field_validator("prompt", mode="before")
    @classmethod
    def _check_prompt(cls, value: Any) -> Any:
        if not isinstance(value, str) or not value.strip():
            raise RecipeError("prompt", "empty", "some text", "Write a prompt or pick one of the examples.")
        if "\0" in value:
            raise RecipeError("prompt", "text with NUL bytes", "text without NUL bytes", "Remove the NUL bytes.")
        if len(value) > MAX_PROMPT_CHARACTERS:
            allowed = f"at most {MAX_PROMPT_CHARACTERS:,} characters"
            raise RecipeError("prompt", f"{len(value):,} characters", allowed, "Shorten the prompt.")
        return value

    @property
    def lanes(self) -> list[tuple[str, Recipe]]:
        """Every lane's name and recipe, the baseline first."""
        return list(zip(LANES, (self.baseline, *self.variants), strict=False))

    def check(self, facts: ModelFacts) -> None:
        """Refuse what this model on this machine cannot do, before anything is loaded.

        Raises:
            RecipeError: with a switch's own reason, or for a quality budget in words that an encoder does not know.
        """
        for _, recipe in self.lanes:
            recipe.check(facts)
        asked = {name: value for name, value in self.budget.model_dump().items() if value is not None}
        if facts.task == "encoder" and self.measure.prompt_set != "one":
            remedy = "Set it to 'one': sentences of this project's own are measured."
            raise RecipeError(
                "measure.prompt_set", self.measure.prompt_set, "'one' where the model is an encoder", remedy
            )
        if facts.task == "encoder" and asked:
            name, value = next(iter(asked.items()))
            remedy = "Remove it: the verdict shows cosine, rank correlation and neighbours."
            raise RecipeError(f"budget.{name}", value, "no quality budget where the model is an encoder", remedy)

    @property
    def key(self) -> str:
        """The hash by which a race is known."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Preset(Config):
    """A recipe file with a sentence on what to look at."""

    title: str = Field(min_length=1, max_length=80)
    look_at: str = Field(min_length=1, max_length=400)
    race: Race


PRESETS = Path(__file__).resolve().parents[2] / "presets"


def read_preset(path: Path) -> Preset:
    """Read one preset file.

    Raises:
        RecipeError: when it is missing, is not JSON, or does not validate.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError("preset", path.name, "an existing preset file", "See the folder presets.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("preset", path.name, "a JSON file", f"Correct it: {error}.") from None
    return Preset.read(data, where=path.stem)


def all_presets(folder: Path = PRESETS) -> dict[str, Preset]:
    """Every preset by its file's name."""
    return {path.stem: read_preset(path) for path in sorted(folder.glob("*.json"))}
