"""Quantization-aware training: the rounded weights of a conversion, from the first step to the last."""

from __future__ import annotations

from typing import Any

from transformers.pytorch_utils import Conv1D

from backend.recipe.base import RecipeError
from backend.recipe.methods.qat import Qat
from backend.techniques.base import replace_module
from backend.techniques.coach import Coach, Pupil, coach
from backend.techniques.rounding import int8_tokens, roundings
from backend.techniques.train.fake_quantize import FakeQuantizedLinear


@coach(Qat)
class QuantizationAware(Coach):
    """Rounding in the forward pass, the gradient straight through it (Bengio et al. 2013; Jacob et al. 2018).

    The layers that `Qat.conversion` would replace are rounded just as it rounds them, so that a look before the first
    step shows post-training quantization of the same bits, and the last one what the conversion will give.

    The schedule: fake quantization is never switched off again. Steps in float at the end, or a start from them with
    the rounding late, would train a model that nobody runs. Ranges are not observed here: those of the weights follow
    the weights at every step, as the conversion takes them, and those of int8 activations are found token by token.
    Fixed ranges would have to be observed and frozen before the end, so that the last steps train with those that are
    kept; the switch with fixed ranges (int8_static) finds its own on text, so there is no method for it.
    """

    def begin(self, pupil: Pupil, method: Qat) -> None:
        """Put a fake-quantized layer in the place of every layer that the conversion would replace.

        Raises:
            RecipeError: when there is none, or the model has layers of GPT-2's kind.
        """
        model = pupil.subject.model
        if any(isinstance(module, Conv1D) for module in model.modules()):
            allowed = "a model of plain linear layers: GPT-2's are turned over when they are packed"
            raise RecipeError("methods.qat", pupil.subject.facts.name, allowed, "Choose another model.")
        found = roundings(model, method.switch)
        if not found:
            allowed = f"a model with linear layers of at least {method.group_size} inputs"
            raise RecipeError("methods.qat", pupil.subject.facts.name, allowed, "Choose another model.")
        head = model.get_output_embeddings()
        for name, rounding in found.items():
            layer: Any = model.get_submodule(name)
            inputs = int8_tokens() if method.activations == "int8" and layer is not head else None
            replace_module(model, name, FakeQuantizedLinear(layer, rounding, inputs).train(layer.training))

    def finish(self, pupil: Pupil, method: Qat) -> None:
        """Plain linear layers again, their float weights those that the conversion rounds to what was trained with."""
        model = pupil.subject.model
        for name, layer in list(model.named_modules()):
            if isinstance(layer, FakeQuantizedLinear):
                replace_module(model, name, layer.plain())
