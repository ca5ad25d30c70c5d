"""The training lane: one process, a student and its teacher. It trains when it has the turn, and idles otherwise.

The work is one generator that stops after every step and after every piece of a look, so that whoever wants the
machine waits for no more than that.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from backend.catalog import model_facts, resolve
from backend.engine.memory import MemoryMeter, give_back, module_parameters
from backend.engine.saved.write import full_disk_said, write_saved_model
from backend.engine.training.checkpoint import read_checkpoint
from backend.engine.training.keeper import Keeper, Told
from backend.engine.training.layermap import ORIGIN
from backend.engine.training.look import look
from backend.engine.training.pair import Pairs, check_stages
from backend.engine.training.replicas import ALONE, Replicas
from backend.engine.training.text import Lesson, read_documents, read_lesson
from backend.engine.training.trainer import NotFinite, Trainer, numbers
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.saved import own_folder
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.trainforecast import check_training_memory
from backend.trainingfolder import check_resumed, keep_recipe, last_state, training_folder

Progress = Callable[[float, str], None]


class TrainLane:
    """One training and how far it is. Its methods are verbs."""

    def __init__(self, _: str, spec: dict[str, Any], progress: Progress, replicas: Replicas = ALONE) -> None:
        self.replicas = replicas
        self.meter = MemoryMeter()
        self.asked = Training.read(spec)
        self._progress = progress
        self._told: list[Told] = []
        self._spent, self._best, self._idle_looks = 0.0, float("inf"), 0
        self._looked = -1  # the step at which the student was last looked at
        self._ended, self._gained_nothing = "", ""

    def answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do what a verb says."""
        return dict(getattr(self, verb)(**arguments))

    def load(self) -> dict[str, Any]:
        """Make student and teacher, read the text, and take up a training that was begun before.

        Raises:
            RecipeError: for what cannot be trained, before the first step.
        """
        asked = self.asked
        own_folder(asked.name)
        check_resumed(asked)
        ref = resolve(asked.model, asked.revision)
        facts = model_facts(ref, asked.trust_remote_code)
        asked.check(facts)
        smaller = model_facts(resolve(asked.smaller)) if asked.smaller else facts
        check_stages(asked, facts)
        check_training_memory(self.replicas.part(asked), facts, smaller)
        self._folder = training_folder(asked.name)
        self._keeper = Keeper(self._folder, asked.looks.checkpoint_s)
        self._pairs = Pairs(asked, ref, self._folder, self._progress, self.meter)
        self.stage = int((last_state(asked.name) or {}).get("stage", 0))
        self._pair = self._pairs.make(self.stage)
        pace = asked.pace
        self.lesson: Lesson = read_lesson(
            self._pair.student, read_documents(ref, asked.text, pace.seed), pace.tokens + pace.length, pace.length,
            pace.seed, self._progress,
        )  # fmt: skip
        self._exam = ref.tells_stories
        self._parameters = module_parameters(self._pair.student.model)
        self.trainer = self._new_trainer()
        keep_recipe(asked)
        self._take_up()
        give_back()
        self.meter.start_peak()
        self._work = self._whole()
        return self._head()

    def _new_trainer(self) -> Trainer:
        """Of the stage: its own schedule, on text behind that of the stages before."""
        asked, pair = self.asked.at(self.stage), self._pair
        first = sum(self.asked.stage_steps[: self.stage])
        pupil = Pupil(pair.student, pair.teacher, asked)
        return Trainer(pupil, self.lesson.training, numbers(self.asked.pace), first, self.replicas)

    @property
    def step(self) -> int:
        """Steps taken, of all stages."""
        return self.trainer.first + self.trainer.done

    def _take_up(self) -> None:
        state = read_checkpoint(self._folder, self.asked, self.trainer.kept, self.trainer.optimizer)
        if state is not None:
            self.trainer.done, self._spent = state["step"] - self.trainer.first, state["spent_s"]
            self._best, self._idle_looks, self._looked = state["best"], state["idle_looks"], state["looked"]

    def _head(self) -> dict[str, Any]:
        """What stands at the head of a training."""
        trained = sum(value.numel() for value in self.trainer.trained.values())
        teacher = self._pair.teacher
        return {
            "step": self.step,
            "steps": self.asked.steps,
            "stage": self.stage,
            "stage_step": self.trainer.done,
            "stage_steps": self.asked.stage_steps,
            "stage_labels": [recipe.label for recipe in self.asked.stage_recipes],
            "step_tokens": self.asked.pace.step_tokens,
            "layers": self._pair.student.notes.get(ORIGIN, []),
            "parameters": self._parameters,
            "trained_parameters": trained,
            "teacher_parameters": module_parameters(teacher.model) if teacher else None,
            "source": self.lesson.source,
            "training_tokens": self.lesson.training.total,
            "held_out_tokens": self.lesson.held_out.total,
            "held_out_again": self.lesson.dropped,
            "dtype": str(numbers(self.asked.pace)).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    # The training

    def train(self, seconds: float) -> dict[str, Any]:
        """Go on for about so long, one piece at least. Returns what happened, and `ended` with the reason or ''."""
        began = time.monotonic()
        for _ in self._work:
            if time.monotonic() - began >= seconds:
                break
        self._spent += time.monotonic() - began
        told, self._told = self._told, []
        return {"told": told, "ended": self._ended, "step": self.step, "spent_s": self._spent}

    def _whole(self) -> Iterator[None]:
        """Everything that is done, a piece at a time."""
        if self.step == 0 and self._pair.first is not None:
            yield from self._look("teacher", self._pair.first)
        yield from self._one_stage()
        while self.stage < len(self.asked.stages.assistants):
            self._next_stage()
            yield
            yield from self._one_stage()
        self._ended = self._gained_nothing or "trained to the end"

    def _one_stage(self) -> Iterator[None]:
        trainer, every = self.trainer, self.asked.look_every
        steps = trainer.pupil.steps
        while True:
            due = trainer.done % every == 0 or trainer.done == steps
            if due and self._looked != self.step:  # who was killed or paused before a look that was due looks now
                yield from self._look("student", self._pair.student)
            if trainer.done == steps or self._gained_nothing:
                return
            self._step()
            yield
            self._checkpoint_when_due()

    def _next_stage(self) -> None:
        """Keep what was trained, and begin with the next student; a checkpoint is written, so that a kill finds it.

        Raises:
            RecipeError: for a disk that is full.
        """
        self.trainer.finish()
        with full_disk_said(self._folder):
            self._pairs.keep(self.stage, self._pair.student)
        self.stage += 1
        del self.trainer, self._pair  # before the next ones are in memory
        give_back()
        self._pair = self._pairs.make(self.stage)
        self._parameters = module_parameters(self._pair.student.model)
        self.trainer = self._new_trainer()
        self._best, self._idle_looks, self._looked, self._gained_nothing = float("inf"), 0, -1, ""
        self._told += [("staged", self._head()), self._checkpoint()]

    def _step(self) -> None:
        began = time.perf_counter()
        try:
            step = self.trainer.step()
        except NotFinite as error:
            self._told.append(("not_finite", {"step": error.step, "loss": str(error.value)}))
            remedy = "Lower pace.rate, or raise pace.warmup; the last checkpoint is kept."
            raise RecipeError("pace.rate", f"{self.asked.pace.rate:g}: {error}", "a finite loss", remedy) from error
        seconds = time.perf_counter() - began
        more = {
            "seconds": seconds,
            "memory": self.trainer.held_bytes() | {"peak_bytes": self.meter.note_peak()},
            "stage": self.stage,
        }
        self._told.append(("stepped", asdict(step) | more))

    def _look(self, who: str, subject: Subject) -> Iterator[None]:
        """Look at the student or, once, at the first teacher."""
        other = self._pair.first if who == "student" else None
        subject.model.eval()
        found = yield from look(subject, other, self.lesson.held_out, self.asked.looks, self._exam)
        if who == "student":
            subject.model.train()
            self._judge(found)
            self._looked = self.step
        self._told.append(("looked", {"who": who, "step": self.step, "stage": self.stage} | found))

    def _judge(self, found: dict[str, Any]) -> None:
        """Whether there is still something to gain."""
        value = found.get("kld", found["loss"])
        gained = value < self._best * 0.995
        self._idle_looks = 0 if gained else self._idle_looks + 1
        self._best = min(self._best, value)
        patience = self.asked.looks.patience
        if patience and self._idle_looks >= patience:
            self._gained_nothing = f"no gain in {patience} looks"

    # Keeping

    def _checkpoint_when_due(self) -> None:
        if self._keeper.due:
            self._told.append(self._checkpoint())

    def checkpoint(self) -> dict[str, Any]:
        """Write one now."""
        return {"told": [self._checkpoint()]}

    def _checkpoint(self) -> Told:
        state = {
            "step": self.step, "stage": self.stage, "spent_s": self._spent, "best": self._best,
            "idle_looks": self._idle_looks, "looked": self._looked, "key": self.asked.key,
        }  # fmt: skip
        return self._keeper.write(self.trainer, state)

    def save(self) -> dict[str, Any]:
        """Make a plain model of the student and write it down under its name.

        Raises:
            RecipeError: for a disk that is full, or a shape that no config describes.
        """
        self.trainer.finish()
        folder = own_folder(self.asked.name)
        subject, asked = self._pair.student, self.asked
        saved = write_saved_model(subject, asked.student, folder, asked.revision, self._progress, trained=asked.label)
        shutil.rmtree(self._folder)  # there is nothing left to go on with
        return {"name": self.asked.name, "folder": str(folder), "weights_bytes": saved.weights_bytes}
