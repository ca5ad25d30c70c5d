"""The forecast of a training's memory, from facts alone. Every figure here is predicted."""

from __future__ import annotations

from dataclasses import dataclass

from backend.devices import free_bytes
from backend.forecast import lane_device, weights_bytes
from backend.parts import pruned
from backend.processmemory import process_bytes
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.training import Training

KEPT_A_TOKEN = 14  # numbers of the width of the hidden state that a layer keeps for its gradient, as measured
LOGIT_COPIES = 5  # of a call's logits in fp32: the student's, their softmax and gradient, the teacher's and theirs


@dataclass(frozen=True)
class TrainForecast:
    """Predicted bytes of one training."""

    weights_bytes: int  # the student's, in fp32
    teacher_bytes: int
    gradient_bytes: int
    optimizer_bytes: int  # two moments of what has gradients
    activation_bytes: int
    process_bytes: int
    method_bytes: int = 0  # masks, scores and the like

    @property
    def total_bytes(self) -> int:
        """All of it."""
        held = self.weights_bytes + self.teacher_bytes + self.gradient_bytes + self.optimizer_bytes
        return held + self.activation_bytes + self.process_bytes + self.method_bytes


def forecast_training(asked: Training, facts: ModelFacts, student: ModelFacts) -> TrainForecast:
    """Predict a training.

    Args:
        facts: of the model that teaches.
        student: of the model that the student is made from, the same one or a smaller one.
    """
    left = pruned(student, asked.student)
    weights = 4 * round(weights_bytes(left, asked.student) / (2 if lane_device(left, asked.student) == "cuda" else 4))
    shares = [share for method in asked.methods.values() if (share := method.trained_share(left)) is not None]
    trained = round(weights * min(shares, default=1.0))
    call = asked.pace.step_tokens // asked.pace.accumulate
    layer = 4 * (KEPT_A_TOKEN * left.hidden + 4 * left.ffn)
    layers = left.layers if not asked.pace.checkpointing else 1
    kept = call * (layers * layer + (4 * left.hidden * left.layers if asked.pace.checkpointing else 0))
    return TrainForecast(
        weights_bytes=weights,
        teacher_bytes=4 * facts.parameters if asked.losses.taught else 0,
        gradient_bytes=trained,
        optimizer_bytes=2 * trained,
        activation_bytes=kept + call * 4 * LOGIT_COPIES * left.vocab,
        process_bytes=process_bytes(facts, asked.student),
        method_bytes=trained // 4 * sum(method.bytes_a_weight for method in asked.methods.values()),
    )


def check_training_memory(asked: Training, facts: ModelFacts, student: ModelFacts) -> TrainForecast:
    """Refuse a training that does not fit into what is free now.

    Raises:
        RecipeError: with what it needs, what is free, and what would help most.
    """
    predicted = forecast_training(asked, facts, student)
    device = lane_device(facts, asked.student)
    free = free_bytes(device)
    if free is not None and predicted.total_bytes > free:
        value = f"{asked.pace.batch} windows of {asked.pace.length}: {predicted.total_bytes / 1e9:.1f} GB (predicted)"
        allowed = f"at most {free / 1e9:.1f} GB free on {device}"
        raise RecipeError("pace.batch", value, allowed, _remedy(asked, predicted))
    return predicted


def _remedy(asked: Training, predicted: TrainForecast) -> str:
    if predicted.activation_bytes > predicted.gradient_bytes + predicted.optimizer_bytes:
        more = "" if asked.pace.checkpointing else ", or switch checkpointing on"
        return f"Accumulate over more calls, take a smaller batch{more}."
    return "Train with LoRA (methods.lora), whose optimizer and gradients are small, or a smaller model."
