"""Precision and quantization: how many bits a weight has, and which kernel multiplies it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.facts import ModelFacts
from backend.recipe.grouped import Grouped
from backend.recipe.stores import (
    Ground,
    Stored,
    codebook,
    int8_channels,
    int8_outliers,
    int8_rows,
    int8_tokens,
    int8_whole,
)
from backend.recipe.switch import Group, Switch


class Cast(Switch):
    """All weights and activations in a 16-bit float."""

    kind: ClassVar[str] = "cast"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "16-bit float"
    summary: ClassVar[str] = "Halves the weights; a GPU gets faster, a CPU often does not, and quality hardly moves."
    source: ClassVar[str] = "PyTorch"
    kernel_bytes: ClassVar[int] = 15 * 10**6

    dtype: Literal["bf16", "fp16"] = Field("bf16", description="bf16 keeps the range of fp32, fp16 keeps more digits")

    @property
    def label(self) -> str:
        return self.dtype

    @property
    def multiplies(self) -> str:
        """bf16 stands for both: they are as fast as each other."""
        return "bfloat16"

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.dtype == "fp16" and not facts.has_gpu:
            return "fp16 needs a GPU: CPU kernels for it are slower than fp32; use bf16"
        return None


class Int8Dynamic(Switch):
    """Weights int8 ahead of time, activations int8 with scales found at run time."""

    kind: ClassVar[str] = "int8_dynamic"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "int8 dynamic"
    summary: ClassVar[str] = (
        "Multiplies int8 by int8, the fastest 8 bit on a CPU; one activation scale a call hurts models with outliers."
    )
    source: ClassVar[str] = "torch.ao.quantization.quantize_dynamic, engine x86"
    kernel_bytes: ClassVar[int] = 13 * 10**6

    per_channel: bool = Field(False, description="one weight scale per output channel, not one per matrix")
    scale: Literal["call", "token"] = Field(
        "call", description="activation scales: one a call, or one a token, always with a weight scale per channel"
    )

    @property
    def label(self) -> str:
        finer = {"call": ", per channel" if self.per_channel else "", "token": ", per token"}
        return "int8 dynamic" + finer[self.scale]

    @property
    def multiplies(self) -> str:
        """int8 by int8."""
        return "int8"

    @property
    def shape_dependent(self) -> bool:
        """One range a call covers all of its tokens; one a token does not."""
        return self.scale == "call"

    def stores(self, ground: Ground) -> Stored:
        """torch's own layers, or fbgemm's with another sum a row."""
        rows = int8_channels if self.per_channel else int8_whole
        store = int8_tokens if self.scale == "token" else rows
        return Stored(store, store)

    def refuse(self, facts: ModelFacts) -> str | None:
        return "its kernels run on a CPU only; choose weight-only int8" if facts.has_gpu else None


class Int8WeightOnly(Switch):
    """Weights int8 with one scale per output channel; activations stay float."""

    kind: ClassVar[str] = "int8_weight_only"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "int8 weights only"
    summary: ClassVar[str] = "Reads a quarter of fp32's bytes a token and keeps the quality; prefill may get slower."
    source: ClassVar[str] = "torch _weight_int8pack_mm (CPU), torchao (GPU)"
    kernel_bytes: ClassVar[int] = 9 * 10**6

    head: Literal["int8", "keep"] = Field("int8", description="quantize the output head too, or keep it as it is")

    @property
    def label(self) -> str:
        return "int8 weights" + (", head kept" if self.head == "keep" else "")

    def stores(self, ground: Ground) -> Stored:
        """int8 rows, the head as asked."""
        return Stored(int8_rows, None if self.head == "keep" else int8_rows)


class Int4WeightOnly(Grouped):
    """Weights int4 in groups, rounded to nearest; activations stay float."""

    kind: ClassVar[str] = "int4_weight_only"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "int4 weights only"
    summary: ClassVar[str] = "Reads an eighth of fp32's bytes a token; rounding to nearest visibly costs quality."
    source: ClassVar[str] = "torch _weight_int4pack_mm_for_cpu (CPU), torchao (GPU)"

    symmetric: bool = Field(False, description="15 levels around an exact zero, not 16 from smallest to largest")

    @property
    def label(self) -> str:
        return self.labelled("int4 symmetric" if self.symmetric else "int4")

    def refuse(self, facts: ModelFacts) -> str | None:
        if self.symmetric and facts.has_gpu:
            return "asymmetric: torchao's int4 layers on a GPU know nothing else"
        return super().refuse(facts)


class BnbInt8(Switch):
    """LLM.int8(): int8 with outlier columns kept in a float."""

    kind: ClassVar[str] = "bnb_int8"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "LLM.int8()"
    summary: ClassVar[str] = "int8 with outlier columns in float: keeps quality, made for GPUs, slow on a CPU."
    source: ClassVar[str] = "Dettmers et al. 2022; bitsandbytes Linear8bitLt"

    threshold: float = Field(6.0, ge=0.0, le=20.0, description="activations above it count as outliers; 0 is none")

    @property
    def label(self) -> str:
        return "LLM.int8()"

    @property
    def shape_dependent(self) -> bool:
        """A column is an outlier where any token of the call says so."""
        return True

    def stores(self, ground: Ground) -> Stored:
        """The head stays as it is."""
        return Stored(int8_outliers, None)


class Bnb4Bit(Switch):
    """NF4 or FP4 of bitsandbytes, blocks of 64."""

    kind: ClassVar[str] = "bnb_4bit"
    group: ClassVar[Group] = Group.PRECISION
    order: ClassVar[int] = 300
    title: ClassVar[str] = "bitsandbytes 4 bit"
    summary: ClassVar[str] = "An eighth of the bytes with a codebook made for weights; dequantizing costs speed."
    source: ClassVar[str] = "Dettmers et al. 2023 (QLoRA); bitsandbytes Linear4bit"

    format: Literal["nf4", "fp4"] = Field("nf4", description="NF4 fits normally distributed weights better than FP4")
    double_quant: bool = Field(False, description="quantize the scales too: .4 bits a weight less")

    @property
    def label(self) -> str:
        return self.format.upper() + (" double" if self.double_quant else "")

    def stores(self, ground: Ground) -> Stored:
        """The head stays as it is."""
        return Stored(codebook(self.double_quant, ground), None)
