"""8-bit floats: torchao's layers on a GPU that has them, or their rounding alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.recipe.base import RecipeError
from backend.recipe.switches.floats8 import Fp8
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.census import layer_format, quantization_effect
from backend.techniques.quantize.floats import cast_weights
from backend.techniques.quantize.swap import swap_linears
from backend.techniques.quantize.torchao_layers import fp8_layer
from backend.techniques.registry import technique

TYPE = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3
NEEDED = (8, 9)  # compute capability whose tensor cores multiply 8-bit floats


class SimulatedFp8Linear(nn.Linear):
    """A float layer whose weights and inputs are rounded to e4m3 first: what fp8 computes with, at a float's cost."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return F.linear(rounded(x), self.weight, self.bias)


def rounded(x: Tensor) -> Tensor:
    """Numbers (..., K) rounded to e4m3 with one scale a row, max|x| / 448, and back."""
    scale = x.float().abs().amax(-1, keepdim=True).div_(LARGEST).clamp_min_(1e-12)
    return (x.float().div(scale).to(TYPE).float() * scale).to(x.dtype)


@technique(Fp8)
class Float8Layers:
    """The head stays as it is on a GPU: torchao's kernels want both widths in multiples of 16."""

    def apply(self, subject: Subject, switch: Fp8) -> None:
        """Replace every linear layer.

        Raises:
            RecipeError: on a device that does not multiply 8-bit floats, unless they are simulated.
        """
        if not switch.simulate:
            _needs_fp8(subject.device)
            cast_weights(subject.model, torch.bfloat16)  # the type that comes out of its kernels

        def build(name: str, layer: nn.Linear) -> nn.Module | str:
            return _simulated(layer) if switch.simulate else fp8_layer(layer)

        swap_linears(subject, switch.kind, build)

    def read_back(self, subject: Subject, switch: Fp8) -> Effect:
        """Count the layers that hold or round to 8-bit floats."""
        if not switch.simulate:
            return quantization_effect(subject, switch.kind, lambda layer: layer_format(layer) == "fp8")
        linears = subject.linears()
        own = [layer for layer in linears.values() if isinstance(layer, SimulatedFp8Linear)]
        there = all(torch.allclose(rounded(layer.weight), layer.weight, rtol=1e-5, atol=0.0) for layer in own)
        return Effect(
            kind=switch.kind,
            took_effect=bool(own) and there,
            summary=f"{len(own)} of {len(linears)} linear layers round to fp8; bytes and kernels stay those of floats",
            facts={
                "linear_layers": len(linears),
                "rounding_layers": len(own),
                "bits_per_weight": 8.0 * own[0].weight.element_size() if own else None,
            },
            simulated=True,
        )


def _needs_fp8(device: torch.device) -> None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < NEEDED:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        raise RecipeError("switches.fp8", name, "a GPU of compute capability 8.9 or more", "Simulate it, or use int8.")


def _simulated(layer: nn.Linear) -> nn.Module:
    new = SimulatedFp8Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    new.weight = nn.Parameter(rounded(layer.weight.detach()), requires_grad=False)
    new.bias = layer.bias
    return new
