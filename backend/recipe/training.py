"""The training: a student made from a model, what it learns from, and for how long, as a job holds it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, field_serializer, field_validator, model_validator

from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.losses import Losses
from backend.recipe.method import Method, read_method
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.stages import Stages
from backend.recipe.switch import Group, Switch

LaneTask = Literal["decoder", "encoder", "training"]  # what a lane's process does
TRAINABLE = ("kv_heads", "device")  # beside the groups that cut, the switches after which a model can be trained


class Pace(Config):
    """How fast, how much at a time, and in which numbers."""

    tokens: int = Field(300_000, ge=256, le=10_000_000_000, description="trained on in all, repeats counted")
    batch: int = Field(8, ge=1, le=4096, description="windows a step")
    length: int = Field(128, ge=8, le=65_536, description="tokens a window")
    accumulate: int = Field(1, ge=1, le=1024, description="calls a step, each with its part of the batch")
    rate: float = Field(5e-4, gt=0.0, le=1.0, description="learning rate at its highest")
    warmup: float = Field(0.05, ge=0.0, le=1.0, description="share of the steps in which the rate rises")
    floor: float = Field(0.05, ge=0.0, le=1.0, description="share of the rate that is left at the end of the cosine")
    decay: float = Field(0.0, ge=0.0, le=1.0, description="weight decay of the matrices")
    clip: float = Field(1.0, gt=0.0, le=1e6, description="largest norm of a step's gradient")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the arithmetic; weights stay fp32. auto is bf16 where it is faster"
    )
    checkpointing: bool = Field(False, description="compute activations again instead of keeping them: slower, smaller")
    seed: int = Field(1, ge=0, le=2**31 - 1)

    @property
    def step_tokens(self) -> int:
        """Tokens a step."""
        return self.batch * self.length

    @property
    def steps(self) -> int:
        """Steps in all."""
        return max(1, round(self.tokens / self.step_tokens))

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch % self.accumulate:
            allowed = f"a number that divides the batch of {self.batch}"
            raise RecipeError("pace.accumulate", self.accumulate, allowed, "Change one of the two.")
        return self


class Looks(Config):
    """How often quality is looked at, on text that is never trained on, and when there is no more to gain."""

    every: int = Field(0, ge=0, le=10_000_000, description="steps between two looks; 0 is ten looks in all")
    windows: int = Field(8, ge=1, le=4096, description="windows of held-out text")
    questions: int = Field(40, ge=0, le=2000, description="questions, of a storyteller")
    checkpoint_s: float = Field(30.0, ge=0.0, le=86_400.0, description="seconds between two checkpoints, at least")
    patience: int = Field(0, ge=0, le=1000, description="looks without a gain after which it ends; 0: never")
    beside: bool = Field(False, description="look beside the teacher even where no loss needs it: it takes its memory")


class Training(Config):
    """What a job of the kind `train` asks for.

    >>> Training.read({"name": "healed", "student": {"switches": {"drop_layers": {"count": 4}}}}).steps
    293
    """

    model: str = Field("storyteller", min_length=1, max_length=500, description="the teacher, and what is healed")
    revision: str | None = Field(None, max_length=100)
    trust_remote_code: bool = False
    name: str = Field(min_length=1, max_length=80, description="of the model that comes out: it appears in the menu")
    student: Recipe = Field(Recipe(), description="what is done to the model before it trains")
    smaller: str = Field("", max_length=500, description="another model with the same tokenizer, to be the student")
    text: str = Field(
        "", max_length=1000, description="a text file, hub:NAME, or nothing: the model's own kind of text"
    )
    methods: dict[str, SerializeAsAny[Method]] = Field(default_factory=dict)
    losses: Losses = Losses()
    stages: Stages = Stages()
    pace: Pace = Pace()
    looks: Looks = Looks()

    @field_validator("methods", mode="before")
    @classmethod
    def _read_methods(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise RecipeError("methods", value, "an object of methods by kind", 'Write {"lora": {}}.')
        return {k: v if isinstance(v, Method) else read_method(k, v) for k, v in value.items()}

    @field_serializer("methods")
    def _write_methods(self, value: dict[str, Method]) -> dict[str, dict[str, Any]]:
        return {kind: method.model_dump(mode="json") for kind, method in value.items()}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        chosen = list(self.methods.values())
        for index, first in enumerate(chosen):
            if reason := first.unfit(self):
                raise RecipeError(f"methods.{first.kind}", first.label, reason, "Change that, or leave the method out.")
            for second in chosen[index + 1 :]:
                if reason := first.clash(second) or second.clash(first):
                    pair = f"{first.kind} + {second.kind}"
                    raise RecipeError(f"methods.{second.kind}", pair, f"one of the two: {reason}", "Leave one out.")
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if not self.stages.assistants:
            return self
        if self.smaller and self.stages.made_from == "before":
            remedy = "Make the stages from the original, or cut the student out of the teacher."
            raise RecipeError("stages.made_from", "before", "original, where the student is another model", remedy)
        if self.steps <= len(self.stages.assistants):
            allowed = f"a step at least for each of {len(self.stages.assistants) + 1} stages"
            raise RecipeError("pace.tokens", self.pace.tokens, allowed, "Train on more tokens, or smaller batches.")
        return self

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.pace.steps

    @property
    def stage_steps(self) -> list[int]:
        """Steps of each stage, the student's last."""
        left, found = self.steps, []
        for number, assistant in enumerate(self.stages.assistants):
            kept_free = len(self.stages.assistants) - number  # of the stages behind it, a step each at least
            found.append(min(max(1, round(self.steps * assistant.share)), left - kept_free))
            left -= found[-1]
        return [*found, left]

    @property
    def stage_recipes(self) -> list[Recipe]:
        """What is done to each stage's model, the student's last."""
        return [*(assistant.student for assistant in self.stages.assistants), self.student]

    def at(self, stage: int) -> Training:
        """The training of one stage by itself: its recipe, its tokens, its schedule."""
        if not self.stages.assistants:
            return self
        last = stage == len(self.stages.assistants)
        pace = self.pace.model_copy(update={"tokens": self.stage_steps[stage] * self.pace.step_tokens})
        changes = {"student": self.stage_recipes[stage], "pace": pace, "stages": Stages()}
        return self.model_copy(update=changes | ({} if last else {"smaller": ""}))

    @property
    def beside(self) -> bool:
        """Whether the teacher is in memory."""
        return self.losses.taught or self.looks.beside

    @property
    def teachers(self) -> int:
        """How many models beside the student are in memory at most: an assistant that teaches is a second one."""
        chained = self.losses.taught and self.stages.assistants and self.stages.teacher == "before"
        return int(self.beside) + bool(chained)

    @property
    def look_every(self) -> int:
        """Steps between two looks."""
        return self.looks.every or max(1, self.steps // 10)

    @property
    def label(self) -> str:
        """What is trained and how, in a few words."""
        ways = [recipe.label for recipe in self.stage_recipes]
        what = self.smaller or (", then ".join(ways) if self.stages.made_from == "before" else ways[-1])
        how = ", ".join(method.label for method in self.methods.values())
        return f"{what}, trained{' with ' if how else ''}{how}"

    @property
    def key(self) -> str:
        """The hash by which a training is known: a checkpoint belongs to one."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def race(self) -> Race:
        """A race of the model beside its untrained student, by which both are loaded."""
        data = {"model": self.model, "revision": self.revision, "trust_remote_code": self.trust_remote_code}
        return Race.read(data | {"prompt": "Once", "variants": [self.student.model_dump(mode="json")]})

    def check(self, facts: ModelFacts) -> None:
        """Refuse what this model cannot be or have, before anything is loaded.

        Raises:
            RecipeError: with the reason of a switch or a method.
        """
        self.losses.check(facts)
        if self.stages.made_from == "original":
            for recipe in self.stage_recipes:
                recipe.check(facts)
        else:
            self.stage_recipes[0].check(facts)  # the others are done to a model that is not there yet
        if facts.random_weights or facts.held_as:
            remedy = "Choose a model with weights in floats."
            raise RecipeError("model", facts.name, "a model that can be trained", remedy)
        for switch in (switch for recipe in self.stage_recipes for switch in recipe.pipeline):
            if not trainable(type(switch)):
                allowed = "switches that leave weights in floats and the model as it runs"
                remedy = "Leave it out here, and switch it on in the race afterwards."
                raise RecipeError(f"student.switches.{switch.kind}", switch.label, allowed, remedy)
        for method in self.methods.values():
            if reason := method.refuse(facts):
                raise RecipeError(f"methods.{method.kind}", method.label, reason, "Leave it out.")


def trainable(switch: type[Switch]) -> bool:
    """Whether a model can be trained that has the switch."""
    return switch.kind in TRAINABLE or switch.group in (Group.PRUNING, Group.EXPERTS)
