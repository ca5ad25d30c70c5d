"""The training's view: events folded into curves. Raw numbers: nats, bytes, seconds.

Events of a training (kind, lane, data):

    opened             None     versions, hardware, lanes: {student: label}, model, name         again after a resume
    phase              student  name, done, total, eta_s|None, text
    begun              student  step, steps, step_tokens, parameters, trained_parameters, teacher_parameters|None,
                                source, training_tokens, held_out_tokens, held_out_again, dtype, threads,
                                layers: [those of the teacher that were kept, or nothing where none can be named],
                                stage, stage_step (steps taken of it), stage_steps: [steps], stage_labels: [label]
    staged             student  as begun: the next stage of a progressive distillation
    stepped            student  number, loss, parts: {loss: nats}, rate, norm, told: {name: value}, seconds, stage,
                                memory: {weights_bytes, gradient_bytes, optimizer_bytes, peak_bytes}   one a step
    looked             student  who (student or teacher), step, stage, loss, tokens, kld, top1, accepted, accuracy,
                                sample; of an encoder cosine, ranks, grades, neighbours, sentences
    checkpointed       student  step, bytes, seconds
    checkpoint_failed  student  step, card
    not_finite         student  step, loss
    gave_way           None     seconds, waited_s
    paused             None
    ended              student  step, reason
    saved              student  name, folder, weights_bytes
    lane_failed        student  cause, detail, remedy, phase
    failed             None     card
    finished           None     wall_s, trained_s, gave_way_s
    cancelled          None
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.eventview import EventView

STUDENT = "student"  # the one lane of a training


@dataclass
class TrainedLane:
    """The student as far as it has been trained."""

    name: str
    label: str = ""
    begun: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    teacher: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)  # those after the first, as they began
    notes: list[tuple[int, str]] = field(default_factory=list)  # (step, what happened)
    ended: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] | None = None

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.steps[-1]["number"]) + 1 if self.steps else int(self.begun.get("step", 0))

    @property
    def tokens_per_s(self) -> float | None:
        """Over the last steps, looks and checkpoints left out."""
        last = self.steps[-20:]
        spent = sum(step["seconds"] for step in last)
        return len(last) * self.begun["step_tokens"] / spent if spent else None

    @property
    def recovered(self) -> float | None:
        """Share of the first look's KLD that is gone, or of its loss above the teacher's; None before a second look."""
        if len(self.looks) < 2:
            return None
        last = self.looks[-1]
        first = next(look for look in self.looks if look.get("stage", 0) == last.get("stage", 0))
        if first.get("kld"):
            return float(1 - last["kld"] / first["kld"])
        gap = first["loss"] - self.teacher.get("loss", 0.0)
        return float((first["loss"] - last["loss"]) / gap) if self.teacher and gap > 0 else None


@dataclass
class TrainingView(EventView[TrainedLane]):
    """A training as it stands after the events seen so far."""

    gave_way: list[dict[str, float]] = field(default_factory=list)

    def new_lane(self, name: str) -> TrainedLane:
        """A lane of which nothing is known but its name."""
        return TrainedLane(name)

    def _on_begun(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        """A training that goes on after a kill repeats the steps since its last checkpoint: the newer ones count."""
        if lane.begun:
            lane.notes.append((data["step"], "went on from the checkpoint"))
        lane.begun, lane.failure = data, None
        lane.steps = [step for step in lane.steps if step["number"] < data["step"]]
        lane.looks = [look for look in lane.looks if look["step"] <= data["step"]]
        if data.get("stage_step") == 0:  # a stage begins with a look, which comes again
            lane.looks = [look for look in lane.looks if look.get("stage", 0) < data["stage"]]
        lane.stages = [stage for stage in lane.stages if stage["step"] <= data["step"]]

    def _on_staged(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.stages.append(data)
        lane.begun = data

    def _on_stepped(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.steps.append(data)

    def _on_looked(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        if data["who"] == "teacher":
            lane.teacher = data
        else:
            lane.looks.append(data)

    def _on_checkpointed(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.checkpoints.append(data)

    def _on_checkpoint_failed(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.notes.append((data["step"], f"no checkpoint could be written: {data['card']['value']}"))

    def _on_not_finite(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.notes.append((data["step"], f"the loss was {data['loss']}"))

    def _on_gave_way(self, _: None, data: dict[str, Any]) -> None:
        self.gave_way.append(data)

    def _on_paused(self, _: None, data: dict[str, Any]) -> None:
        self.state = "paused"

    def _on_ended(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.ended = data

    def _on_saved(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.saved = data

    def _on_lane_failed(self, lane: TrainedLane, data: dict[str, Any]) -> None:
        lane.failure = data
