"""Linear layers whose zeros are not stored."""

from __future__ import annotations

from torch import nn


class SparseLinear(nn.Module):
    """Placeholder."""
