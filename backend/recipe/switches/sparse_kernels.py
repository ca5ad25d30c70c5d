"""Sparse kernels: what makes a gain of zeros, where there is one."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from backend.recipe.stores import Ground, Stored, sparse_rows
from backend.recipe.switch import Group, Switch
from backend.recipe.switches.sparsity import Sparsity


class SparseKernels(Switch):
    """Matrices with many zeros held and multiplied without them, where that is faster on this machine."""

    kind: ClassVar[str] = "sparse_kernels"
    group: ClassVar[Group] = Group.RUNTIME
    order: ClassVar[int] = 590
    title: ClassVar[str] = "Sparse kernels"
    summary: ClassVar[str] = (
        "Times every shape of matrix dense and without its zeros, and keeps the faster: below the break-even nothing "
        "gains."
    )
    source: ClassVar[str] = "torch.sparse: CSR (MKL), 2:4 (cuSPARSELt, CUTLASS); own blocks on torch.bmm"
    hint: ClassVar[str] = (
        "It needs zeros: choose how weights become zero under pruning, 64x1 for the lowest break-even."
    )

    gain: float = Field(
        1.05,
        ge=0.0,
        le=4.0,
        description="a matrix is held sparse where that is at least so many times as fast; 0: always, even if slower",
    )

    def makes_real(self, other: Switch) -> bool:
        """Zeros."""
        return isinstance(other, Sparsity)

    def stores(self, ground: Ground) -> Stored | None:
        """Without zeros where there are enough of them for a gain, as far as that can be known before it is timed."""
        store = sparse_rows(ground)
        return Stored(store, None) if store else None

    def clash(self, other: Switch) -> str | None:
        """Packed weights, and compiled code."""
        if other.group is Group.PRECISION and other.kind != "cast":
            return "packed weights are multiplied by kernels of their own, which hold zeros as they hold any weight"
        if other.kind == "compile":
            return "the compiler does not take sparse matrices"
        return None
