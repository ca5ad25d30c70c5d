"""The forecast of a training's memory, from facts alone. Every figure here is predicted."""

from __future__ import annotations

from dataclasses import dataclass

from backend.devices import free_bytes
from backend.forecast import lane_device
from backend.hardware import cpu_flags
from backend.parts import pruned
from backend.processmemory import process_bytes
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.training import Pace, Training

# As measured on an x86 processor: fp32 numbers of the width of the hidden state that a layer keeps for its gradient.
KEPT_FP32, KEPT_BF16 = 20, 11
LOGIT_COPIES = 9  # of a call's logits in fp32: student's and teacher's, their casts, softmaxes and gradients
MAP_COPIES = 6  # of a student's layer's attention maps in fp32 where they are compared: 4.5 to 6.5 measured
COMPUTED_AGAIN = 3  # layers whose activations are there at once where they are computed again


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


def low_precision(pace: Pace, gpu: bool) -> bool:
    """Whether a training multiplies in bf16: where it is asked for, or is fast."""
    fast = gpu or "amx_bf16" in cpu_flags()
    return pace.precision == "bf16" or (pace.precision == "auto" and fast)


def forecast_training(asked: Training, facts: ModelFacts, student: ModelFacts) -> TrainForecast:
    """Predict a training.

    Args:
        facts: of the model that teaches.
        student: of the model that the student is made from, the same one or a smaller one.
    """
    stages = [pruned(facts, assistant.student) for assistant in asked.stages.assistants]
    left = max([*stages, pruned(student, asked.student)], key=lambda one: one.parameters)
    weights = 4 * left.parameters
    shares = [share for method in asked.methods.values() if (share := method.trained_share(left)) is not None]
    trained = round(weights * min(shares, default=1.0))
    call = asked.pace.step_tokens // asked.pace.accumulate
    low = low_precision(asked.pace, facts.has_gpu)
    layer = 4 * ((KEPT_BF16 if low else KEPT_FP32) * left.hidden + 4 * left.ffn)
    again = asked.pace.checkpointing
    layers = min(left.layers, COMPUTED_AGAIN) if again else left.layers
    kept = call * (layers * layer + (4 * left.hidden * left.layers if again else 0)) + (weights // 2 if low else 0)
    one_map = 4 * call * asked.pace.length * left.heads if asked.losses.attention else 0
    maps = one_map * (facts.layers + MAP_COPIES * left.layers)
    return TrainForecast(
        weights_bytes=weights,
        teacher_bytes=4 * facts.parameters * asked.teachers,
        gradient_bytes=trained,
        optimizer_bytes=2 * trained,
        activation_bytes=kept + maps + call * 4 * LOGIT_COPIES * left.vocab,
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
