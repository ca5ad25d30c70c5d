"""Linear layers that hold no zeros, each for the kernel of one library."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import to_sparse_semi_structured

from backend.recipe.switches.sparsity import BLOCK_ROWS
from backend.techniques.prune.masks import in_blocks

ROWS_AT_A_TIME = 256  # of a long call: gathered inputs are several times as large as the inputs


class SparseLinear(nn.Module):
    """y = x W^T + bias with W (N, K) of which most is zero and not held."""

    sparse_format: ClassVar[str]  # what a receipt calls it

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        self._hold(linear.weight.detach())

    def _hold(self, weight: Tensor) -> None:
        """Take what is needed of W (N, K)."""
        raise NotImplementedError

    def _product(self, rows: Tensor) -> Tensor:
        """(M, K) -> (M, N)."""
        raise NotImplementedError

    def dense_weight(self) -> Tensor:
        """W (N, K) with its zeros, made anew."""
        raise NotImplementedError

    @property
    def multiplied(self) -> int:
        """Weights that a row of the input is really multiplied with."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N) of the same type."""
        out = self._product(x.reshape(-1, self.in_features))  # (M, N)
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class CsrLinear(SparseLinear):
    """Compressed sparse rows for torch.sparse, on a CPU MKL: a value and a column (int32) for each weight that is left.

    In float32 that is 8 bytes for a weight that is left against 4 for any in a dense matrix.
    """

    sparse_format: ClassVar[str] = "csr"
    values: Tensor  # (nonzeros,)
    columns: Tensor  # (nonzeros,) int32
    starts: Tensor  # (N + 1,) int32: where each row begins

    def _hold(self, weight: Tensor) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            found = weight.to_sparse_csr()
            self.register_buffer("values", found.values())
            self.register_buffer("columns", found.col_indices().int())
            self.register_buffer("starts", found.crow_indices().int())
            self._matrix = torch.sparse_csr_tensor(
                self.starts, self.columns, self.values, size=weight.shape, check_invariants=False
            )

    def _product(self, rows: Tensor) -> Tensor:
        if len(rows) == 1:
            return torch.mv(self._matrix, rows[0])[None]
        return (self._matrix @ rows.T.contiguous()).T

    @property
    def multiplied(self) -> int:
        """Every one that is held."""
        return self.values.numel()

    def dense_weight(self) -> Tensor:
        """W (N, K) with its zeros, made anew."""
        return self._matrix.to_dense()


class BlockLinear(SparseLinear):
    """Blocks of 64 rows that share the inputs they read, for the dense batched kernel: inputs are gathered, then
    multiplied.

    An index (int64) serves 64 weights, so a weight that is left costs little more than in a dense matrix. A block that
    keeps fewer inputs than another is filled up with zeros, and so is the last where rows do not divide.
    """

    sparse_format: ClassVar[str] = "blocks"
    values: Tensor  # (blocks, inputs kept, 64)
    inputs: Tensor  # (blocks, inputs kept) int64

    def _hold(self, weight: Tensor) -> None:
        blocks = in_blocks(weight)  # (blocks, 64, K)
        used = (blocks != 0).any(dim=1)  # (blocks, K)
        width = int(used.sum(dim=1).max())
        inputs = used.byte().sort(dim=1, descending=True, stable=True).indices[:, :width].sort(dim=1).values
        values = blocks.gather(2, inputs[:, None].expand(-1, BLOCK_ROWS, -1)).transpose(1, 2)
        self.register_buffer("values", values.contiguous())
        self.register_buffer("inputs", inputs.contiguous())

    def _product(self, rows: Tensor) -> Tensor:
        if len(rows) == 1:
            return torch.bmm(rows[0][self.inputs][:, None], self.values).view(1, -1)[:, : self.out_features]
        parts = [self._several(part) for part in rows.split(ROWS_AT_A_TIME)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _several(self, rows: Tensor) -> Tensor:
        gathered = rows.T[self.inputs].transpose(1, 2)  # (blocks, M, inputs kept)
        return torch.bmm(gathered, self.values).transpose(0, 1).reshape(len(rows), -1)[:, : self.out_features]

    @property
    def multiplied(self) -> int:
        """Every one that is held, filling included."""
        return self.values.numel()

    def dense_weight(self) -> Tensor:
        """W (N, K) with its zeros, made anew."""
        blocks = self.values.new_zeros(len(self.inputs), BLOCK_ROWS, self.in_features)
        blocks.scatter_(2, self.inputs[:, None].expand(-1, BLOCK_ROWS, -1), self.values.transpose(1, 2))
        return blocks.view(-1, self.in_features)[: self.out_features]


class TwoOfFourLinear(SparseLinear):
    """2:4 for the sparse tensor cores of a GPU, in half precision: two weights of every four, and where they stood."""

    sparse_format: ClassVar[str] = "2:4"
    weight: Tensor

    def _hold(self, weight: Tensor) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")
            self.weight = nn.Parameter(to_sparse_semi_structured(weight.contiguous()), requires_grad=False)

    def _product(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight)

    @property
    def multiplied(self) -> int:
        """Half of all."""
        return self.in_features * self.out_features // 2

    def dense_weight(self) -> Tensor:
        """W (N, K) with its zeros, made anew."""
        return self.weight.to_dense()


def blocks_kept(weight: Tensor) -> float:
    """How much of a matrix BlockLinear would hold, filling included, as a share of the dense one."""
    used = in_blocks(weight != 0).any(dim=1)  # (blocks, K)
    return used.shape[0] * BLOCK_ROWS * int(used.sum(dim=1).max()) / max(1, weight.numel())
