"""8-bit weights and 8-bit activations with scales that are found on text: static int8 and SmoothQuant."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.calibrated import Calibrated
from backend.recipe.facts import ModelFacts
from backend.recipe.stores import Ground, Stored, int8_channels, int8_tokens
from backend.recipe.switch import Group


class Int8ByInt8(Calibrated):
    """A switch whose layers multiply int8 by int8, on kernels of a CPU."""

    @property
    def multiplies(self) -> str:
        """int8 by int8."""
        return "int8"

    def refuse(self, facts: ModelFacts) -> str | None:
        """A GPU, for which there are no such kernels."""
        return "its kernels run on a CPU only; choose weight-only int8" if facts.has_gpu else None


class Int8Static(Int8ByInt8):
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

    def stores(self, ground: Ground) -> Stored:
        """fbgemm's layers."""
        return Stored(int8_channels, int8_channels)


class SmoothQuant(Int8ByInt8):
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

    def stores(self, ground: Ground) -> Stored:
        """fbgemm's layers, with another sum a row for tokens with a range of their own."""
        store = int8_channels if self.scale == "static" else int8_tokens
        return Stored(store, store)
