"""Sparsity: single weights set to zero, chosen one way or another, in matrices that stay dense."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from backend.recipe.calibrated import Calibrated
from backend.recipe.facts import ModelFacts
from backend.recipe.stores import Zeros
from backend.recipe.switch import Group, Switch

Pattern = Literal["none", "2:4", "4:8", "64x1"]
Scope = Literal["layer", "global"]
WINDOWS: dict[str, tuple[int, int]] = {"2:4": (2, 4), "4:8": (4, 8)}  # zeros, and the weights of a row they are among
BLOCK_ROWS = 64  # of 64x1: so many rows share the columns that they keep
DENSE = "dense kernels gain nothing, so its speed is simulated"
_WALKS = "a decoder: it goes through the layers of one, and encoders are built otherwise"


class Sparsity(Switch):
    """Some weights of every matrix set to zero. A subclass says by what they are chosen."""

    group: ClassVar[Group] = Group.PRUNING
    order: ClassVar[int] = 140
    simulated: ClassVar[bool] = True
    hint: ClassVar[str] = "Sparse kernels, beside it, make a gain of many zeros, or say that there is none."
    name: ClassVar[str] = ""  # before the share of zeros in the title of a lane
    by_row: ClassVar[bool] = False  # the ratio is that of every row and not only of every matrix

    ratio: float = Field(0.5, ge=0.0, lt=1.0, description="share of the weights that becomes zero")
    pattern: Pattern = Field(
        "none",
        description="where zeros may lie: anywhere; 2 of every 4 or 4 of every 8 weights in a row; or in blocks, the "
        "same inputs for 64 outputs",
    )

    @property
    def label(self) -> str:
        where = "" if self.pattern == "none" else f" {self.pattern}"
        return f"{self.name} {self.ratio:.0%} zeros{where}".strip()

    @property
    def zeros(self) -> Zeros:
        """As asked."""
        return Zeros(self.ratio, self.pattern == "64x1")

    def refuse(self, facts: ModelFacts) -> str | None:
        """A ratio of 0, or one that the pattern does not have."""
        if self.ratio == 0:
            return "a ratio above 0: at 0 nothing is set to zero"
        if self.pattern in WINDOWS and self.ratio != 0.5:
            return f"a ratio of 0.5: {self.pattern} sets half of the weights to zero"
        return None

    def clash(self, other: Switch) -> str | None:
        """Another that chooses."""
        return "both choose which weights become zero" if isinstance(other, Sparsity) else None


class Scoped(Sparsity):
    """One that may compare the weights of all matrices with each other."""

    scope: Scope = Field(
        "layer", description="the share of every matrix, or of all together: then some matrices lose more than others"
    )

    @property
    def label(self) -> str:
        return super().label + (" over all layers" if self.scope == "global" else "")

    def refuse(self, facts: ModelFacts) -> str | None:
        """A pattern, which fixes the share of every matrix."""
        if self.scope == "global" and self.pattern != "none":
            return f"the scope 'layer': {self.pattern} fixes the share of every matrix"
        return super().refuse(facts)


class Magnitude(Scoped):
    """The smallest weights set to zero."""

    kind: ClassVar[str] = "magnitude"
    title: ClassVar[str] = "Smallest weights to zero"
    summary: ClassVar[str] = f"Sets the smallest weights to zero; {DENSE}."
    source: ClassVar[str] = "Han et al. 2015"


class Wanda(Calibrated, Sparsity):
    """The weights set to zero that, times the norm of what enters them, are the smallest of their row."""

    kind: ClassVar[str] = "wanda"
    title: ClassVar[str] = "Wanda"
    summary: ClassVar[str] = (
        f"Sets the weights to zero that are small, or whose input is small on a little text; {DENSE}."
    )
    source: ClassVar[str] = "Sun et al. 2023"
    name: ClassVar[str] = "Wanda"
    by_row: ClassVar[bool] = True


class SparseGpt(Calibrated, Sparsity):
    """Weights set to zero one column after the other, the weights that are left making good for it."""

    kind: ClassVar[str] = "sparsegpt"
    title: ClassVar[str] = "SparseGPT"
    summary: ClassVar[str] = f"Sets weights to zero and lets those behind them in a row make up for it; {DENSE}."
    source: ClassVar[str] = "Frantar and Alistarh 2023; the update of Hassibi and Stork 1993 (OBS)"
    name: ClassVar[str] = "SparseGPT"
    decoders_only: ClassVar[str] = _WALKS

    damping: float = Field(
        0.01,
        gt=0.0,
        le=1.0,
        description="added to the Hessian's diagonal, as a share of its mean: more is more careful",
    )


class GradientSparsity(Calibrated, Scoped):
    """Weights set to zero by what the loss is expected to rise without them."""

    kind: ClassVar[str] = "gradient"
    title: ClassVar[str] = "Least gradient times weight"
    summary: ClassVar[str] = f"Sets the weights to zero that the loss of a little text hangs on least; {DENSE}."
    source: ClassVar[str] = "Molchanov et al. 2019 (Taylor), Theis et al. 2018 (Fisher), LeCun et al. 1989 (OBD)"
    decoders_only: ClassVar[str] = "a decoder: an encoder predicts no token, so there is no loss"

    by: Literal["taylor", "fisher", "obd"] = Field(
        "taylor",
        description="taylor: |g w|, g the gradient on the text. fisher: g^2 w^2, g^2 the mean over windows of text. "
        "obd: h w^2 / 2, h the curvature (Gauss-Newton) from tokens that the model draws itself",
    )

    @property
    def label(self) -> str:
        names = {"taylor": "Taylor", "fisher": "Fisher", "obd": "OBD"}
        return f"{names[self.by]} {super().label}"
