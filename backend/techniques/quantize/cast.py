"""All weights and activations in a 16-bit float."""

from __future__ import annotations

from collections import Counter

import torch

from backend.recipe.base import RecipeError
from backend.recipe.switches.precision import Cast
from backend.techniques.base import Effect, Skipped, Subject
from backend.techniques.quantize.counting import float_name, weight_bytes
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.release import release_memory
from backend.techniques.registry import technique

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@technique(Cast)
class CastWeights:
    """Casts the parameters; activations follow, since the embedding sets their type."""

    def apply(self, subject: Subject, switch: Cast) -> None:
        """Cast in place, parameter by parameter."""
        if switch.dtype == "fp16" and subject.device.type == "cpu":
            raise RecipeError("switches.cast.dtype", "fp16", "bf16 on a CPU", "Choose bf16.")
        before = {float_name(parameter.dtype) for parameter in subject.model.parameters()}
        subject.notes[switch.kind] = {"bytes_before": weight_bytes(subject.model), "types_before": before}
        cast_weights(subject.model, DTYPES[switch.dtype])
        release_memory(subject.device)

    def read_back(self, subject: Subject, switch: Cast) -> Effect:
        """Count numbers by their type in the live parameters."""
        wanted = float_name(DTYPES[switch.dtype])
        held = Counter[str]()
        for parameter in subject.model.parameters():
            held[float_name(parameter.dtype)] += parameter.numel()
        total, hits = sum(held.values()), held[wanted]
        notes = subject.notes.get(switch.kind, {})
        there = notes.get("types_before", {wanted}) == {wanted}  # a GPU's baseline is bf16 already
        done = hits > total / 2
        left = [Skipped(f"all {word} weights", "still there") for word in held if word != wanted]
        return Effect(
            kind=switch.kind,
            took_effect=done and not there,
            summary=f"{hits / max(1, total):.0%} of the weights {wanted}" + (", as before" if done and there else ""),
            facts={
                "weights": ", ".join(f"{word} x {count}" for word, count in held.most_common()),
                "weight_bytes": weight_bytes(subject.model),
                "weight_bytes_before": notes.get("bytes_before"),
            },
            skipped=left + _float32_buffers(subject),
        )


def _float32_buffers(subject: Subject) -> list[Skipped]:
    """Buffers that stay fp32 on purpose, folded into one entry."""
    names = [name for name, buffer in subject.model.named_buffers() if buffer.dtype == torch.float32]
    if not names:
        return []
    return [Skipped(", ".join(names[:4]), f"{len(names)} small buffers, not saved with the model, stay float32")]
