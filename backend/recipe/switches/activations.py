"""8-bit weights and 8-bit activations with scales that are found on text: static int8 and SmoothQuant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.calibrated import Calibrated
from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Group

CPU_ONLY = "its kernels run on a CPU only; choose weight-only int8"


class Int8Static(Calibrated):
    """Weights int8 a channel, activations int8 with one scale a layer that was fixed on calibration text."""

    kind: ClassVar[str] = "int8_static"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "int8 static"
    summary: ClassVar[str] = (
        "Multiplies int8 by int8 with scales fixed beforehand: nothing is searched for at run time, outliers are cut."
    )
    source: ClassVar[str] = "Jacob et al. 2018; observers of torch.ao, layers of fbgemm"

    observer: Literal["minmax", "percentile", "mse"] = Field(
        "mse", description="what fixes the range: the extremes, a percentile, or the least squared error"
    )
    outside: float = Field(
        0.01, ge=0.0, le=1.0, description="percent of the numbers that may lie outside the range, for 'percentile'"
    )

    @property
    def label(self) -> str:
        return f"int8 static, {self.observer}"

    def refuse(self, facts: ModelFacts) -> str | None:
        return CPU_ONLY if facts.has_gpu else None


class SmoothQuant(Calibrated):
    """8-bit weights and activations after outliers were moved from the activations into the weights."""

    kind: ClassVar[str] = "smoothquant"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "SmoothQuant int8"
    summary: ClassVar[str] = (
        "Moves activation outliers into the weights, then multiplies int8 by int8; takes a calibration first."
    )
    source: ClassVar[str] = "Xiao et al. 2023, equation 4"
    decoders_only: ClassVar[str] = (
        "a decoder: an encoder's norms feed more than the matrices that would take the factors"
    )

    alpha: float = Field(0.5, ge=0.0, le=1.0, description="how much of an outlier moves: 0 none of it, 1 all")
    scale: Literal["token", "static"] = Field(
        "token", description="activation scales: one a token, found at run time, or one a layer, fixed beforehand"
    )

    @property
    def label(self) -> str:
        return f"SmoothQuant {self.alpha:g}" + (", static" if self.scale == "static" else "")

    def refuse(self, facts: ModelFacts) -> str | None:
        return CPU_ONLY if facts.has_gpu else None
