"""NF4 and FP4: four bits a weight from a codebook, a scale for every 64 weights."""

from __future__ import annotations

from torch import nn

from backend.recipe.switches.precision import Bnb4Bit
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.bitsandbytes_layers import HEAD_KEPT, bitsandbytes
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.layers import head_name
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.registry import technique

BLOCK = 64  # weights that share a scale


@technique(Bnb4Bit)
class FourBit:
    """bitsandbytes' Linear4bit: runs on CPU and CUDA. Source: Dettmers et al. 2023 (QLoRA).

    On a CPU with AVX-512 bf16 the first call packs the weights for a kernel that needs out_features in multiples of
    32 and in_features in multiples of 64; a layer of another width raises there and stays as it was. That packing
    also stores the scales as bf16 and undoes double quantization: the receipt reads what is left of it.
    """

    def apply(self, subject: Subject, switch: Bnb4Bit) -> None:
        """Replace every linear layer but the output head."""
        bnb = bitsandbytes()
        head = head_name(subject.model)

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            if name == head:
                return HEAD_KEPT
            new = bnb.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=layer.weight.dtype,
                quant_type=switch.format,
                device="meta",
            )
            new.weight = bnb.nn.Params4bit(
                layer.weight.detach(),
                requires_grad=False,
                quant_type=switch.format,
                compress_statistics=switch.double_quant,
                blocksize=BLOCK,
                module=new,
            )
            new.bias = layer.bias
            return new.to(subject.device)  # the move quantizes

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: Bnb4Bit) -> Effect:
        """Count the layers whose live weight has the format, and those whose scales are quantized too."""
        effect = quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) == switch.format)
        states = [getattr(p, "quant_state", None) for p in subject.model.parameters()]
        nested = sum(bool(state.nested) for state in states if state is not None)
        effect.facts["double_quantized_layers"] = nested
        if switch.double_quant and not nested and effect.took_effect:
            effect.summary += ", scales not quantized: the CPU kernel stores them as bf16"
        return effect
