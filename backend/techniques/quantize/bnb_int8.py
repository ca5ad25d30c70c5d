"""LLM.int8(): int8 with outlier columns kept in a float."""

from __future__ import annotations

import statistics
from typing import Any

from torch import Tensor, nn

from backend.recipe.switches.precision import BnbInt8
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import WINDOW, hear_inputs
from backend.techniques.quantize.bitsandbytes_layers import HEAD_KEPT, bitsandbytes
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.layers import head_name
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.registry import technique


@technique(BnbInt8)
class LlmInt8:
    """bitsandbytes' Linear8bitLt: runs on CPU and CUDA. Source: Dettmers et al. 2022."""

    def apply(self, subject: Subject, switch: BnbInt8) -> None:
        """Replace every linear layer but the output head."""
        bnb = bitsandbytes()
        head = head_name(subject.model)

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            if name == head:
                return HEAD_KEPT
            new = bnb.nn.Linear8bitLt(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                has_fp16_weights=False,
                threshold=switch.threshold,
                device="meta",
            )
            new.weight = bnb.nn.Int8Params(layer.weight.detach(), requires_grad=False, has_fp16_weights=False)
            new.bias = layer.bias
            return new.to(subject.device)  # the move quantizes

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: BnbInt8) -> Effect:
        """Count the layers that hold an int8 matrix, and the input columns that are outliers on some text."""
        effect = quantization_effect(subject, switch.kind, _is_llm_int8)
        states: list[Any] = [module.state for module in subject.model.modules() if _is_llm_int8(module)]
        effect.took_effect = effect.took_effect and all(state.threshold == switch.threshold for state in states)
        effect.facts["threshold"] = ", ".join(sorted({f"{state.threshold:g}" for state in states})) or None
        if effect.took_effect and subject.sample_ids:
            effect.facts |= _outliers(subject, switch.threshold)
        return effect


def _outliers(subject: Subject, threshold: float) -> dict[str, Any]:
    """The share of input columns with a number above the threshold in a call on the subject's text, and the worst."""
    layers = {name: layer for name, layer in subject.model.named_modules() if _is_llm_int8(layer)}
    shares: dict[str, float] = {}

    def hear(name: str, _: nn.Module, rows: Tensor) -> None:
        shares[name] = float((rows.abs().amax(0) > threshold).float().mean()) if threshold else 0.0

    text = CalibrationText(subject.sample_ids[:WINDOW], "a sample of the model's own text")
    hear_inputs(subject, text, layers, hear)
    worst = max(shares, key=lambda name: shares[name])
    return {
        "outlier_columns": round(statistics.fmean(shares.values()), 5),
        "outlier_columns_worst": f"{shares[worst]:.2%} in {worst}",
        "outlier_tokens": len(text.ids),
    }


def _is_llm_int8(module: nn.Module) -> bool:
    """Whether it is a Linear8bitLt whose matrix is int8. By name: the library is imported only when asked for."""
    return type(module).__name__ == "Linear8bitLt" and layer_format(module) == "int8"
