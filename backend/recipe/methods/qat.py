"""Quantization-aware training: a model that learns with the weights that its conversion will leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.method import Method
from backend.recipe.switches.four_bits import NarrowWeightOnly
from backend.recipe.switches.precision import Int4WeightOnly, Int8WeightOnly

if TYPE_CHECKING:
    from backend.recipe.training import Training

_NO_ZERO = "levels that reach from a group's smallest weight to its largest hold no exact zero"
_THIN_OUT = ("gradual_magnitude", "movement")  # they set weights to zero while the others train


class Qat(Method):
    """Every linear layer multiplies by its rounded weight from the first step to the last."""

    kind: ClassVar[str] = "qat"
    title: ClassVar[str] = "Quantization-aware training"
    summary: ClassVar[str] = (
        "Trains with the rounded weights that a switch will convert to: quality comes back at the same bits, speed "
        "and bytes come with the switch."
    )
    source: ClassVar[str] = "Jacob et al. 2018; Bengio et al. 2013 (straight-through); torchao.quantization.qat"
    bytes_a_weight: ClassVar[int] = 4  # the rounded weight

    bits: Literal[4, 3, 2, 8] = Field(4, description="of a weight, by its levels; 8 has one scale a row")
    group_size: Literal[32, 64, 128] = Field(32, description="weights that share a scale below 8 bits")
    symmetric: bool = Field(False, description="levels around an exact zero, one fewer; 8 bits always are")
    head: Literal["int4", "int8", "keep"] = Field("int8", description="the output head: int4, int8, or as it is")
    activations: Literal["float", "int8"] = Field(
        "float", description="int8 also rounds what enters a layer, a range a token: torchao's 8da4w, for 4 bits"
    )

    @property
    def label(self) -> str:
        """By its bits."""
        return f"int{self.bits} in mind" + (", int8 activations" if self.activations == "int8" else "")

    @property
    def conversion(self) -> dict[str, dict[str, Any]]:
        """The switch, as a recipe has it, that makes of the trained model what the training saw.

        No switch multiplies int8 activations by int4 weights: with those it is the one of the weights, whose
        activations are finer than those that were trained with.
        """
        if self.bits == 8:
            return {"int8_weight_only": {"head": self.head}}
        fields = {"group_size": self.group_size, "head": self.head, "symmetric": self.symmetric}
        return {"int4_weight_only": fields} if self.bits == 4 else {"narrow_weight_only": {"bits": self.bits} | fields}

    @property
    def switch(self) -> Int4WeightOnly | NarrowWeightOnly | Int8WeightOnly:
        """The conversion, validated."""
        ((kind, fields),) = self.conversion.items()
        kinds = (Int4WeightOnly, NarrowWeightOnly, Int8WeightOnly)
        return next(one for one in kinds if one.kind == kind).read(fields)

    @property
    def keeps_zeros(self) -> bool:
        """Whether a weight of zero is rounded to zero."""
        return self.symmetric or self.bits == 8

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bits == 8 and self.head == "int4":
            raise RecipeError("methods.qat.head", "int4", "int8 or keep beside 8 bits", "Choose int8.")
        if self.activations == "int8" and self.bits != 4:
            allowed = "float, or 4 bits: int8 activations are rounded for int4 weights only"
            raise RecipeError("methods.qat.activations", "int8", allowed, "Choose 4 bits or float activations.")
        return self

    def refuse(self, facts: ModelFacts) -> str | None:
        """What its switch refuses: what cannot be converted need not be trained for it."""
        return self.switch.unfit(facts)

    def unfit(self, asked: Training) -> str | None:
        """Zeros of the student that the rounding would fill."""
        if not self.keeps_zeros and any(switch.zeros.share for switch in asked.student.pipeline):
            return f"a student without single weights set to zero, or qat with symmetric: {_NO_ZERO}"
        return None

    def clash(self, other: Method) -> str | None:
        """Adapters, and zeros that the rounding would fill."""
        if other.kind == "lora":
            return "adapters are merged in floats after the last step, which moves weights off what was quantized"
        if other.kind in _THIN_OUT and not self.keeps_zeros:
            return f"{_NO_ZERO}; with qat's symmetric both can be had"
        return None
