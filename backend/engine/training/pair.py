"""Student and teacher of each stage: loaded, cut, and, after a kill, put together again as they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from backend.catalog import model_facts, resolve
from backend.engine.calibration import give_text
from backend.engine.change import change, load_for
from backend.engine.load import load
from backend.engine.memory import MemoryMeter, module_parameters
from backend.engine.saved.write import check_subject
from backend.engine.training.checkpoint import fill, weights_of
from backend.engine.training.layermap import ORIGIN, note_origin
from backend.modelref import ModelRef
from backend.parts import pruned
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.training import Training
from backend.techniques.base import Subject

Progress = Callable[[float, str], None]
SCORED = 8 * 4096  # characters that races score: calibration begins behind them


@dataclass(frozen=True)
class Pair:
    """Who learns and who teaches. `first` is the whole model, beside which every stage's student is looked at."""

    student: Subject
    teacher: Subject | None
    first: Subject | None


class Pairs:
    """Makes the pair of any stage. What a stage has trained lies in the training's folder until the end."""

    def __init__(self, asked: Training, ref: ModelRef, folder: Path, progress: Progress, meter: MemoryMeter) -> None:
        self._asked, self._ref, self._folder = asked, ref, folder
        self._progress, self._meter = progress, meter
        self._first: Subject | None = None

    def make(self, stage: int) -> Pair:
        """The pair of a stage; the stages before it must be kept.

        Raises:
            RecipeError: for a pair that cannot learn from one another, or a student that could not be saved.
        """
        asked, first = self._asked, self._whole()
        student = self._untrained(stage)
        if stage == self._last:
            check_subject(student)  # before it is trained for nothing
        chained = stage > 0 and asked.stages.teacher == "before"
        teacher = first if not asked.losses.taught or not chained else self._trained(stage - 1)
        if teacher is not None:
            check_pair(student, teacher, asked)
        return Pair(student, teacher, first)

    def keep(self, stage: int, student: Subject) -> None:
        """Write down what a stage has made of its student, whole or not at all.

        Raises:
            OSError, SafetensorError: on a full disk.
        """
        file = self._file(stage)
        part = file.with_suffix(".part")
        save_file(weights_of(student.model), part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(file)

    def _file(self, stage: int) -> Path:
        return self._folder / f"stage-{stage}.safetensors"

    def _whole(self) -> Subject | None:
        """The first teacher, loaded once; None where nothing is looked at beside it."""
        asked = self._asked
        if self._first is None and asked.beside:
            self._first = load_for(asked.race, asked.student, self._ref, self._progress)
            self._first.notes[ORIGIN] = list(range(self._first.facts.layers))
        return self._first

    def _untrained(self, stage: int) -> Subject:
        """A stage's student as it begins: from the original, or out of what the stage before has trained."""
        asked = self._asked.at(stage)
        chained = stage > 0 and self._asked.stages.made_from == "before"
        subject = self._trained(stage - 1) if chained else self._load(asked)
        before = subject.notes[ORIGIN]
        subject.notes = {}
        change(subject, asked.student, self._progress, self._meter)
        if not asked.smaller:
            note_origin(subject, before)
        subject.facts = subject.facts if stage == self._last else pruned(subject.facts, asked.student)
        return subject

    @property
    def _last(self) -> int:
        return len(self._asked.stages.assistants)

    def _load(self, asked: Training) -> Subject:
        """The model that is trained, in fp32."""
        ref = resolve(asked.smaller or asked.model, None if asked.smaller else asked.revision)
        device = getattr(asked.student.get("device"), "name", None)
        subject = load(ref, device=device, dtype=torch.float32, trust_remote_code=asked.trust_remote_code)
        read = give_text(subject, ref, SCORED)
        subject.sample_ids = read("", 512).ids if subject.tokenizer else []
        subject.notes[ORIGIN] = list(range(subject.facts.layers))
        return subject

    def _trained(self, stage: int) -> Subject:
        """What a stage has made, put together from the recipes before it and the weights that were kept."""
        subject = self._untrained(stage)
        try:
            weights = load_file(self._file(stage))
        except (OSError, ValueError) as error:
            remedy = f"Remove the folder {self._folder} to begin anew."
            allowed = f"weights of stage {stage + 1} that can be read: {error}"
            raise RecipeError("name", self._asked.name, allowed, remedy) from error
        fill(subject.model, weights)
        subject.model.eval().requires_grad_(False)
        return subject


def check_pair(student: Subject, teacher: Subject, asked: Training) -> None:
    """Refuse a pair that cannot learn from one another, or cannot be compared.

    Raises:
        RecipeError: for a student that is larger than who teaches it, does another task, or reads other tokens.
    """
    ours, theirs = module_parameters(student.model), module_parameters(teacher.model)
    name = asked.smaller or asked.model
    if student.facts.task != teacher.facts.task:
        remedy = "Choose another student."
        raise RecipeError("smaller", f"{name}, an {student.facts.task}", f"a {teacher.facts.task}", remedy)
    if ours > theirs and asked.losses.taught:
        value = f"{name}, {ours / 1e6:.1f}M parameters"
        remedy = "Exchange the two, or train on labels alone (losses.logits 0)."
        raise RecipeError("smaller", value, f"at most the teacher's {theirs / 1e6:.1f}M", remedy)
    if student.tokenizer is None or teacher.tokenizer is None:
        return
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        allowed = f"a model with the tokenizer of {asked.model}"
        raise RecipeError("smaller", name, allowed, "Choose another student, or train it on labels alone.")


def check_stages(asked: Training, facts: ModelFacts) -> None:
    """Refuse stages that do not get smaller, before the first is trained; sizes are predicted from facts.

    Raises:
        RecipeError: with the stage that is larger than the one before, or a switch that the one before leaves no
            room for.
    """
    before, current = facts.parameters, facts
    for stage, recipe in enumerate(asked.stage_recipes):
        last = stage == len(asked.stages.assistants)
        start = current if asked.stages.made_from == "before" else facts
        if stage and asked.stages.made_from == "before":
            recipe.check(start)
        if last and asked.smaller:
            start = model_facts(resolve(asked.smaller))
        current = pruned(start, recipe)
        if asked.stages.assistants and current.parameters > before:
            field = "student" if last else f"stages.assistants.{stage}.student"
            value = f"{recipe.label}: {current.parameters / 1e6:.1f}M parameters"
            allowed = f"at most the {before / 1e6:.1f}M of the stage before"
            raise RecipeError(field, value, allowed, "Put the stages in order, the largest first.")
        before = current.parameters
