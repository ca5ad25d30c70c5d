"""Four bits chosen with care, and fewer: all of them in the CPU's packed int4 layers."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.calibrated import Calibrated
from backend.recipe.grouped import PackedForCpu
from backend.recipe.switch import Group


class Gptq(Calibrated, PackedForCpu):
    """int4 whose rounding errors are made good by the columns that follow."""

    kind: ClassVar[str] = "gptq"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "GPTQ 4 bit"
    summary: ClassVar[str] = (
        "int4 at the speed and size of rounding to nearest: on a little text, later weights make up for earlier errors."
    )
    source: ClassVar[str] = "Frantar et al. 2022; own code on the int4 kernel"
    decoders_only: ClassVar[str] = "a decoder: it goes through the layers of one, and encoders are built otherwise"

    damping: float = Field(
        0.01,
        gt=0.0,
        le=1.0,
        description="added to the Hessian's diagonal, as a share of its mean: more is more careful",
    )
    act_order: bool = Field(True, description="columns with the largest activations are rounded first")
    search: bool = Field(True, description="shrink a group's range where its output then errs less")

    @property
    def label(self) -> str:
        return self.labelled("GPTQ")


class Awq(Calibrated, PackedForCpu):
    """int4 after the inputs that matter most were scaled up."""

    kind: ClassVar[str] = "awq"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "AWQ 4 bit"
    summary: ClassVar[str] = (
        "int4 at the speed and size of rounding to nearest: weights of large inputs are scaled up before rounding."
    )
    source: ClassVar[str] = "Lin et al. 2023; own code on the int4 kernel"
    decoders_only: ClassVar[str] = "a decoder: it goes through the layers of one, and encoders are built otherwise"

    search: bool = Field(True, description="also shrink a group's range where its output then errs less")

    @property
    def label(self) -> str:
        return self.labelled("AWQ")


class Hqq(PackedForCpu):
    """int4 whose zeros are fitted to the weights, without any text."""

    kind: ClassVar[str] = "hqq"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "HQQ 4 bit"
    summary: ClassVar[str] = (
        "int4 at the speed and size of rounding to nearest: zeros are fitted to the weights alone, no text is needed."
    )
    source: ClassVar[str] = "Badri and Shaji 2023; torchao's solver"

    @property
    def label(self) -> str:
        return self.labelled("HQQ")


class NarrowWeightOnly(PackedForCpu):
    """2 or 3 bits a weight by their levels, held in four."""

    kind: ClassVar[str] = "narrow_weight_only"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "int3 and int2 weights only"
    summary: ClassVar[str] = (
        "The quality of 3 or 2 bits at the speed and bytes of int4, whose layout holds them: no CPU kernel is narrower."
    )
    source: ClassVar[str] = "torch _weight_int4pack_mm_for_cpu, fewer levels"

    bits: Literal[3, 2] = Field(3, description="levels of a weight: 8 or 4; held in 4 bits, speed and size are int4's")
    symmetric: bool = Field(False, description="levels around an exact zero, one fewer: 7 or 3")

    @property
    def label(self) -> str:
        return self.labelled(f"int{self.bits} in int4" + (" symmetric" if self.symmetric else ""))
