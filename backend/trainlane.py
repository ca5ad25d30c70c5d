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
from backend.engine.calibration import text_reader
from backend.engine.change import change, load_for
from backend.engine.load import load
from backend.engine.memory import MemoryMeter, give_back, module_parameters
from backend.engine.saved.write import full_disk_said, write_saved_model
from backend.engine.training.checkpoint import read_checkpoint, write_checkpoint
from backend.engine.training.look import look
from backend.engine.training.replicas import ALONE, Replicas
from backend.engine.training.text import Lesson, read_documents, read_lesson
from backend.engine.training.trainer import NotFinite, Trainer
from backend.hardware import cpu_flags
from backend.journal import state_folder
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.saved import own_folder
from backend.techniques.base import Subject, tensor_bytes
from backend.techniques.coach import Pupil
from backend.trainforecast import check_training_memory
from backend.trainingfolder import check_resumed, keep_recipe

Progress = Callable[[float, str], None]
Told = tuple[str, dict[str, Any]]
CHECKPOINT_SHARE = 0.01  # of the time that checkpoints may take
SCORED = 8 * 4096  # characters that races score: calibration begins behind them


class TrainLane:
    """One training and how far it is. Its methods are verbs."""

    def __init__(self, _: str, spec: dict[str, Any], progress: Progress, replicas: Replicas = ALONE) -> None:
        self.replicas = replicas
        self.meter = MemoryMeter()
        self.asked = Training.read(spec)
        self._progress = progress
        self._told: list[Told] = []
        self._spent, self._best, self._idle_looks = 0.0, float("inf"), 0
        self._written_at, self._write_s = time.monotonic(), 0.0
        self._ended = ""

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
        check_training_memory(self.replicas.part(asked), facts, smaller)
        teacher = load_for(asked.race, asked.student, ref, self._progress) if asked.losses.taught else None
        self._student = self._make_student()
        if teacher is not None:
            _check_pair(self._student, teacher, asked)
        pace = asked.pace
        self.lesson: Lesson = read_lesson(
            self._student, read_documents(ref, asked.text, pace.seed), pace.tokens + pace.length, pace.length,
            pace.seed, self._progress,
        )  # fmt: skip
        self._exam = ref.tells_stories and self._student.facts.task == "decoder"
        self._teacher = teacher
        self.trainer = Trainer(Pupil(self._student, teacher, asked), self.lesson.training, self._dtype(), self.replicas)
        self._folder = keep_recipe(asked)
        self._take_up()
        give_back()
        self.meter.start_peak()
        self._work = self._whole()
        return self._head()

    def _make_student(self) -> Subject:
        """The model that is trained, in fp32, after what is done to it first."""
        asked = self.asked
        ref = resolve(asked.smaller or asked.model, None if asked.smaller else asked.revision)
        device = getattr(asked.student.get("device"), "name", None)
        subject = load(ref, device=device, dtype=torch.float32, trust_remote_code=asked.trust_remote_code)
        subject.read_text = text_reader(subject, ref, SCORED)
        subject.sample_ids = (subject.read_text("", 512)).ids if subject.tokenizer else []
        subject.shelf = state_folder() / "calibrated"
        change(subject, asked.student, self._progress, self.meter)
        return subject

    def _dtype(self) -> torch.dtype:
        """The arithmetic's numbers: bf16 where it is asked for, or is fast."""
        fast = torch.cuda.is_available() or "amx_bf16" in cpu_flags()
        low = self.asked.pace.precision == "bf16" or (self.asked.pace.precision == "auto" and fast)
        return torch.bfloat16 if low else torch.float32

    def _take_up(self) -> None:
        state = read_checkpoint(self._folder, self.asked, self.trainer.model, self.trainer.optimizer)
        if state is not None:
            self.trainer.done, self._spent = state["step"], state["spent_s"]
            self._best, self._idle_looks = state["best"], state["idle_looks"]

    def _head(self) -> dict[str, Any]:
        """What stands at the head of a training."""
        trained = sum(value.numel() for value in self.trainer.trained.values())
        return {
            "step": self.trainer.done,
            "steps": self.asked.steps,
            "step_tokens": self.asked.pace.step_tokens,
            "parameters": module_parameters(self._student.model),
            "trained_parameters": trained,
            "teacher_parameters": module_parameters(self._teacher.model) if self._teacher else None,
            "source": self.lesson.source,
            "training_tokens": len(self.lesson.training.tokens),
            "held_out_tokens": len(self.lesson.held_out.tokens),
            "held_out_again": self.lesson.dropped,
            "dtype": str(self._dtype()).removeprefix("torch."),
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
        return {"told": told, "ended": self._ended, "step": self.trainer.done, "spent_s": self._spent}

    def _whole(self) -> Iterator[None]:
        """Everything that is done, a piece at a time."""
        asked = self.asked
        if self.trainer.done == 0:
            if self._teacher is not None:
                yield from self._look("teacher", self._teacher)
            yield from self._look("student", self._student)
        while self.trainer.done < asked.steps and not self._ended:
            if not self._step():
                return
            yield
            self._checkpoint_when_due()
            if self.trainer.done % asked.look_every == 0 and self.trainer.done < asked.steps:
                yield from self._look("student", self._student)
        if self.trainer.done == asked.steps:
            yield from self._look("student", self._student)
        self._ended = self._ended or "trained to the end"

    def _step(self) -> bool:
        began = time.perf_counter()
        try:
            step = self.trainer.step()
        except NotFinite as error:
            self._told.append(("not_finite", {"step": error.step, "loss": str(error.value)}))
            remedy = "Lower pace.rate, or raise pace.warmup; the last checkpoint is kept."
            raise RecipeError("pace.rate", f"{self.asked.pace.rate:g}: {error}", "a finite loss", remedy) from error
        seconds = time.perf_counter() - began
        self._told.append(("stepped", asdict(step) | {"seconds": seconds, "memory": self._memory()}))
        return True

    def _look(self, who: str, subject: Subject) -> Iterator[None]:
        """Look at the student or, once, at the teacher."""
        other = self._teacher if who == "student" else None
        subject.model.eval()
        found = yield from look(subject, other, self.lesson.held_out, self.asked.looks, self._exam)
        if who == "student":
            subject.model.train()
            self._judge(found)
        self._told.append(("looked", {"who": who, "step": self.trainer.done} | found))

    def _judge(self, found: dict[str, Any]) -> None:
        """Whether there is still something to gain."""
        value = found.get("kld", found["loss"])
        gained = value < self._best * 0.995
        self._idle_looks = 0 if gained else self._idle_looks + 1
        self._best = min(self._best, value)
        patience = self.asked.looks.patience
        if patience and self._idle_looks >= patience:
            self._ended = f"no gain in {patience} looks"

    def _memory(self) -> dict[str, int]:
        """Bytes by what they are for; gradients are those of a step, freed after it."""
        trained = list(self.trainer.trained.values())
        moments = [value for state in self.trainer.optimizer.state.values() for value in state.values()]
        return {
            "weights_bytes": tensor_bytes(*self._student.model.parameters()),
            "gradient_bytes": sum(value.numel() * value.element_size() for value in trained),
            "optimizer_bytes": tensor_bytes(*(value for value in moments if isinstance(value, torch.Tensor))),
            "peak_bytes": self.meter.note_peak(),
        }

    # Keeping

    def _checkpoint_when_due(self) -> None:
        wait = max(self.asked.looks.checkpoint_s, self._write_s / CHECKPOINT_SHARE)
        if time.monotonic() - self._written_at > wait:
            self._told.append(self._checkpoint())

    def checkpoint(self) -> dict[str, Any]:
        """Write one now."""
        kind, data = self._checkpoint()
        return {"told": [(kind, data)]}

    def _checkpoint(self) -> Told:
        """Write a checkpoint; on a full disk the last one stays, and the training goes on."""
        began = time.monotonic()
        state = {
            "step": self.trainer.done, "spent_s": self._spent, "best": self._best, "idle_looks": self._idle_looks,
            "key": self.asked.key,
        }  # fmt: skip
        try:
            with full_disk_said(self._folder):
                size = write_checkpoint(self._folder, self.trainer.model, self.trainer.optimizer, state)
        except RecipeError as error:
            return "checkpoint_failed", {"step": self.trainer.done, "card": error.card()}
        finally:
            self._written_at, self._write_s = time.monotonic(), time.monotonic() - began
        return "checkpointed", {"step": self.trainer.done, "bytes": size, "seconds": self._write_s}

    def save(self) -> dict[str, Any]:
        """Make a plain model of the student and write it down under its name.

        Raises:
            RecipeError: for a disk that is full, or a shape that no config describes.
        """
        self.trainer.finish()
        folder = own_folder(self.asked.name)
        saved = write_saved_model(
            self._student, self.asked.student, folder, self.asked.revision, self._progress, trained=self.asked.label
        )
        shutil.rmtree(self._folder)  # there is nothing left to go on with
        return {"name": self.asked.name, "folder": str(folder), "weights_bytes": saved.weights_bytes}


def _check_pair(student: Subject, teacher: Subject, asked: Training) -> None:
    """Refuse a pair that cannot learn from one another.

    Raises:
        RecipeError: for a student that is larger, or reads other tokens.
    """
    ours, theirs = module_parameters(student.model), module_parameters(teacher.model)
    name = asked.smaller or asked.model
    if ours > theirs:
        value = f"{name}, {ours / 1e6:.1f}M parameters"
        remedy = "Exchange the two, or train on labels alone (losses.logits 0)."
        raise RecipeError("smaller", value, f"at most the teacher's {theirs / 1e6:.1f}M", remedy)
    if student.tokenizer is None or teacher.tokenizer is None:
        return
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        allowed = f"a model with the tokenizer of {asked.model}"
        raise RecipeError("smaller", name, allowed, "Choose another student, or train on labels alone.")
