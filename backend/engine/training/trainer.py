"""The trainer: one optimizer step at a time, the same for the same step whenever it is taken."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from backend.engine.training.objective import Objective
from backend.engine.training.replicas import ALONE, Replicas
from backend.engine.training.sentences import BLANK
from backend.engine.training.text import Text
from backend.recipe.training import Pace, Training
from backend.techniques.base import tensor_bytes
from backend.techniques.coach import Pupil, coaches_of
from backend.trainforecast import low_precision


class NotFinite(Exception):
    """The loss or its gradient has left the numbers; weights are those of the step before."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"the loss is {value} at step {step}")
        self.step, self.value = step, value


@dataclass(frozen=True)
class Step:
    """What one step showed: losses before weighting in nats, the sum of them weighted, and the gradient's norm."""

    number: int
    loss: float
    parts: dict[str, float]
    rate: float
    norm: float
    told: dict[str, float] = field(default_factory=dict)


def rate_at(asked: Training, step: int) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to the floor."""
    pace, steps = asked.pace, asked.steps
    warm = math.ceil(pace.warmup * steps)
    if step < warm:
        return pace.rate * (step + 1) / warm
    way = (step - warm) / max(1, steps - warm)
    return pace.rate * (pace.floor + (1 - pace.floor) * 0.5 * (1 + math.cos(math.pi * way)))


class Trainer:
    """A pupil, its optimizer, and the text that it learns from.

    `first` is how many steps other trainers have taken of the same text: the batches behind theirs are read.
    """

    def __init__(
        self, pupil: Pupil, windows: Text, dtype: torch.dtype, first: int = 0, replicas: Replicas = ALONE
    ) -> None:
        self.pupil, self.windows, self.replicas = pupil, windows, replicas
        self.done, self.first = 0, first  # steps
        self._coaches = coaches_of(pupil.asked)
        self._low = torch.autocast(pupil.subject.device.type, dtype) if dtype != torch.float32 else nullcontext()
        model: Any = pupil.subject.model
        model.requires_grad_(True).train()
        for coach, method in self._coaches:
            coach.begin(pupil, method)
        if pupil.asked.pace.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self._zeros = _zeros(pupil)
        self.objective = Objective(pupil.asked.losses, pupil.subject, pupil.teacher, pupil.asked.pace.seed)
        self.optimizer = _optimizer(self.kept, pupil.asked)

    @property
    def model(self) -> Any:
        """The student."""
        return self.pupil.subject.model

    @property
    def kept(self) -> nn.Module:
        """What a checkpoint holds: the student, and beside it the projection where one is trained with it."""
        projection = self.objective.projection
        model: nn.Module = self.model
        return model if projection is None else nn.ModuleDict({"student": model, "projection": projection})

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that have gradients, by name."""
        return {name: value for name, value in self.kept.named_parameters() if value.requires_grad}

    def step(self) -> Step:
        """Learn from the next batch.

        Raises:
            NotFinite: before the weights have moved; in every process of several.
        """
        self.replicas.go_on()
        asked, step = self.pupil.asked, self.done
        sums: dict[str, Tensor] = {}
        for ids in self.replicas.own(self._batch(step)).chunk(asked.pace.accumulate):
            parts = self._losses(ids)
            total = self._weighted(parts) / asked.pace.accumulate
            total.backward()
            for name, value in (parts | {"": total * asked.pace.accumulate}).items():
                sums[name] = sums.get(name, 0.0) + value.detach() / asked.pace.accumulate
        self.replicas.average_gradients(self.trained.values())
        sums = self.replicas.average(sums)
        for coach, method in self._coaches:
            coach.before_step(self.pupil, method, step)
        norm = nn.utils.clip_grad_norm_(self.trained.values(), asked.pace.clip)
        values = {name: float(value) for name, value in sums.items()}
        if not math.isfinite(values[""]) or not math.isfinite(float(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NotFinite(step + self.first, values[""])
        rate = self._move(step)
        return Step(step + self.first, values.pop(""), values, rate, float(norm), self._told())

    def _batch(self, step: int) -> Tensor:
        """The windows (B, T + 1) of a step, as the methods make them; of an encoder sentences (B, T)."""
        pace = self.pupil.asked.pace
        ids = self.windows.batch(step + self.first, pace.batch).to(self.pupil.subject.device)
        # Whatever is drawn in a step is drawn again after a kill.
        torch.manual_seed(pace.seed * 1_000_003 + step + self.first)
        for coach, method in self._coaches:
            ids = coach.batch(self.pupil, method, ids, step)
        return ids

    def _losses(self, ids: Tensor) -> dict[str, Tensor]:
        with self._low:
            if self.pupil.subject.facts.task == "decoder":
                return self.objective.parts(ids[:, :-1], ids[:, 1:], None)
            real = ids != BLANK
            filling = getattr(self.pupil.subject.tokenizer, "pad_token_id", None) or 0
            return self.objective.parts(torch.where(real, ids, filling), None, real.long())

    def _weighted(self, parts: dict[str, Tensor]) -> Tensor:
        weights = self.pupil.asked.losses
        return torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()

    def _move(self, step: int) -> float:
        rate = rate_at(self.pupil.asked, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for weight, there in self._zeros:
                weight.mul_(there)
        for coach, method in self._coaches:
            coach.after_step(self.pupil, method, step)
        self.done = step + 1
        return rate

    def _told(self) -> dict[str, float]:
        return {
            name: value for coach, method in self._coaches for name, value in coach.told(self.pupil, method).items()
        }

    def held_bytes(self) -> dict[str, int]:
        """Bytes by what they are for; gradients are those of a step, freed after it."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return {
            "weights_bytes": tensor_bytes(*self.model.parameters()),
            "gradient_bytes": sum(value.numel() * value.element_size() for value in self.trained.values()),
            "optimizer_bytes": tensor_bytes(*(value for value in moments if isinstance(value, Tensor))),
        }

    def finish(self) -> None:
        """Leave a plain model behind, ready to run."""
        self.objective.finish()
        for coach, method in self._coaches:
            coach.finish(self.pupil, method)
        if self.pupil.asked.pace.checkpointing:
            self.model.gradient_checkpointing_disable()
        self.model.eval().requires_grad_(False)


def numbers(pace: Pace) -> torch.dtype:
    """The arithmetic's numbers: bf16 where it is asked for, or is fast."""
    return torch.bfloat16 if low_precision(pace, torch.cuda.is_available()) else torch.float32


def _optimizer(model: nn.Module, asked: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over what has gradients; only matrices decay."""
    trained = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.ndim >= 2], "weight_decay": asked.pace.decay},
        {"params": [value for value in trained if value.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=asked.pace.rate, betas=(0.9, 0.95))


def _zeros(pupil: Pupil) -> list[tuple[Tensor, Tensor]]:
    """Where an unstructured pruning has put zeros, so that they stay: each matrix with 1 where it is not zero."""
    if not any(switch.zeros.share for switch in pupil.asked.student.pipeline):
        return []
    matrices = [layer.weight for layer in pupil.subject.linears().values()]
    return [(weight, (weight != 0).to(weight.dtype)) for weight in matrices if bool((weight == 0).any())]
