"""What a calibrated method chose for a model: codes by layer, factors to fold in, and how far outputs are off."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from backend.techniques.quantize.groups import Groups


@dataclass
class Chosen:
    """Everything that must be known to pack the model, as plain tensors for the shelf."""

    groups: dict[str, Groups] = field(default_factory=dict)
    folds: dict[int, Tensor] = field(default_factory=dict)  # by their place in the list of folds
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the output: of the method, and to nearest

    def tensors(self) -> dict[str, Tensor]:
        """Two codes a byte: the body of Gemma 3 270M is 62 MB in groups of 32."""
        found: dict[str, Tensor] = {}
        for name, (codes, scales_and_zeros) in self.groups.items():
            found[f"codes:{name}"] = codes[:, ::2] | codes[:, 1::2] << 4
            found[f"scales:{name}"] = scales_and_zeros.clone()  # of its own: it may be a part of a larger one
        found |= {f"fold:{index}": scale for index, scale in self.folds.items()}
        return found | {f"error:{name}": torch.tensor(pair) for name, pair in self.errors.items()}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Chosen:
        """Back from the shelf."""
        chosen = cls()
        for key, value in tensors.items():
            what, _, name = key.partition(":")
            if what == "codes":
                codes = torch.stack((value & 15, value >> 4), dim=2).flatten(1)
                chosen.groups[name] = Groups(codes, tensors[f"scales:{name}"])
            elif what == "fold":
                chosen.folds[int(name)] = value
            elif what == "error":
                chosen.errors[name] = (float(value[0]), float(value[1]))
        return chosen

    def mean_errors(self) -> tuple[float, float] | None:
        """Mean over layers of the method's error and of rounding to nearest."""
        if not self.errors:
            return None
        ours, nearest = zip(*self.errors.values(), strict=True)
        return sum(ours) / len(ours), sum(nearest) / len(nearest)
