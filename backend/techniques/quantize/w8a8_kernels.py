"""Two kernels that multiply unsigned 8-bit activations by signed 8-bit weights: bit for bit the same, not as fast.

Microseconds a call with a fixed activation scale, rounding included, on two cores with AMX, N x K = 2048 x 640 and
640 x 2048, in one run:

| M | fp32 | fbgemm | oneDNN |
| 1 | 86, 82 | 26, 27 | 40, 43 |
| 16 | 258, 480 | 59, 58 | 49, 59 |
| 64 | 664, 625 | 191, 186 | 83, 120 |
| 256 | 1967, 1879 | 691, 574 | 265, 331 |

So short calls (decode) go to fbgemm, which rounds inside of its one call, and models that only ever see long ones
(encoders) to oneDNN. To hold both would double the memory.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from backend.techniques.quantize.qengine import deprecation_unsaid, packing_for


class Fbgemm:
    """fbgemm, as torch.ao packs it: the one engine that takes a fixed activation scale and gives floats in one call."""

    name: ClassVar[str] = "fbgemm"

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        with packing_for(self.name), deprecation_unsaid():
            zeros = torch.zeros(len(scale), dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(codes, scale.double(), zeros, 0)
            self._packed = torch.ops.quantized.linear_prepack(weight, bias)

    @classmethod
    def runs(cls) -> bool:
        """Whether this torch has it."""
        return cls.name in torch.backends.quantized.supported_engines

    def multiply(self, rows: Tensor, scale: float, zero: int) -> Tensor:
        """Rows (M, K) float32, rounded to codes with this scale and zero point -> (M, N) float32."""
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows, scale, zero, self._packed
        )
        return product

    def unpacked(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes (N, K) int8, scales (N,) float32, bias (N,)."""
        with deprecation_unsaid():
            weight, bias = torch.ops.quantized.linear_unpack(self._packed)
            return weight.int_repr(), weight.q_per_channel_scales().float(), bias


class OneDnn:
    """oneDNN, which uses AMX where the CPU has it."""

    name: ClassVar[str] = "onednn"

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(codes.contiguous(), None)
        self._scale, self._zeros, self._bias = scale, torch.zeros(len(scale), dtype=torch.int32), bias

    @classmethod
    @cache
    def runs(cls) -> bool:
        """Whether it multiplies on this CPU: some have no kernel for it, which shows only when it is called."""
        try:
            with deprecation_unsaid():  # torch warns of its rounding once a process: that is here
                one = cls(torch.ones(16, 32, dtype=torch.int8), torch.ones(16), None)
                product = one.multiply(torch.ones(2, 32), 1.0, 0)
        except (RuntimeError, AttributeError, NotImplementedError):
            return False
        return bool((product == 32).all())

    def multiply(self, rows: Tensor, scale: float, zero: int) -> Tensor:
        """As Fbgemm's."""
        codes = torch.quantize_per_tensor(rows, scale, zero, torch.quint8).int_repr()
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            codes,
            scale,
            zero,
            self._packed,
            self._scale,
            self._zeros,
            self._bias,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return product

    def unpacked(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """As Fbgemm's."""
        return self._packed.to_dense().t().contiguous(), self._scale, self._bias


Kernel = Fbgemm | OneDnn
KERNELS: dict[str, type[Kernel]] = {kernel.name: kernel for kernel in (Fbgemm, OneDnn)}


def any_runs() -> bool:
    """Whether this torch on this CPU multiplies int8 by int8 at all."""
    return any(kernel.runs() for kernel in KERNELS.values())


def pick(wanted: str) -> type[Kernel]:
    """The kernel of this name, or the other one where it does not run here."""
    chosen = KERNELS[wanted]
    return chosen if chosen.runs() else next(kernel for kernel in KERNELS.values() if kernel is not chosen)
