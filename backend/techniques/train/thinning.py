"""What both ways to thin a model while it trains share: the matrices, their masks, and zeros as they really are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.methods.schedule import Thinning
from backend.techniques.base import Subject
from backend.techniques.coach import Coach, Pupil
from backend.techniques.zeros import count_zeros

KEPT = "train_kept"  # buffer of a linear layer, (N, K) bool: which of its weights are in


class ThinningCoach(Coach):
    """Masks kept as buffers beside the weights, so that a checkpoint holds them.

    The zeros are always there in the weights themselves: a look at the student, or an early end, sees what is.
    """

    def begin(self, pupil: Pupil, method: Thinning) -> None:
        """Put a mask beside every matrix of the layers.

        Raises:
            RecipeError: when there is no matrix, or more zeros than asked for are there already.
        """
        layers = matrices(pupil.subject)
        if not layers:
            allowed = "a model with linear layers beside its output head"
            remedy = "Leave the method out."
            raise RecipeError(f"methods.{method.kind}", type(pupil.subject.model).__name__, allowed, remedy)
        for layer in layers.values():
            layer.register_buffer(KEPT, layer.weight.detach() != 0)
        shares = {name: count_zeros(layer.weight.detach()) / layer.weight.numel() for name, layer in layers.items()}
        before = sparsity(layers)
        if before >= method.sparsity:
            allowed = f"more than the {before:.0%} of zeros that are there before it begins"
            raise RecipeError(f"methods.{method.kind}.sparsity", method.sparsity, allowed, "Raise it.")
        pupil.notes[method.kind] = {"before": shares}

    def after_step(self, pupil: Pupil, method: Thinning, step: int) -> None:
        """Put zeros back where they were, and choose anew when it is time."""
        layers = thinned(pupil.subject)
        with torch.no_grad():
            self.settle(layers)
            if method.due(step + 1, pupil.steps):
                for layer, mask in zip(layers.values(), self._choose(pupil, method, layers, step + 1), strict=True):
                    self.change(layer, mask)
                pupil.notes[method.kind].pop("now", None)

    def settle(self, layers: dict[str, Any]) -> None:
        """After the optimizer's move, whose momentum and decay reach weights that are out."""
        for layer in layers.values():
            layer.weight.mul_(getattr(layer, KEPT))

    def scores(self, layer: Any) -> Tensor:
        """Importance of a matrix's weights (N, K): the least go."""
        raise NotImplementedError

    def change(self, layer: Any, mask: Tensor) -> None:
        """Make a mask (N, K) the one that counts, weights included."""
        getattr(layer, KEPT).copy_(mask)
        layer.weight.mul_(mask)

    def _choose(self, pupil: Pupil, method: Thinning, layers: dict[str, Any], taken: int) -> Iterator[Tensor]:
        """The masks of the matrices for the share of zeros after so many steps."""
        before: dict[str, float] = pupil.notes[method.kind]["before"]
        sizes = {name: layer.weight.numel() for name, layer in layers.items()}
        if method.scope == "layer":
            for name, layer in layers.items():
                share = method.sparsity_at(taken, pupil.steps, min(before[name], method.sparsity))
                wanted = round(max(share, before[name]) * sizes[name])  # one may have had more zeros than that
                yield ~least(self.scores(layer).flatten(), wanted).view_as(layer.weight)
            return
        there = sum(before[name] * size for name, size in sizes.items()) / sum(sizes.values())
        wanted = round(method.sparsity_at(taken, pupil.steps, there) * sum(sizes.values()))
        gone = least(torch.cat([self.scores(layer).flatten() for layer in layers.values()]), wanted)
        for layer, part in zip(layers.values(), gone.split(list(sizes.values())), strict=True):
            yield ~part.view_as(layer.weight)

    def told(self, pupil: Pupil, method: Thinning) -> dict[str, float]:
        """The share of zeros, counted in the weights whenever they were chosen anew."""
        note = pupil.notes[method.kind]
        if "now" not in note:
            note["now"] = sparsity(thinned(pupil.subject))
        return {"sparsity": note["now"]}

    def finish(self, pupil: Pupil, method: Thinning) -> None:
        """Take the masks off; the zeros are in the weights."""
        for layer in thinned(pupil.subject).values():
            for name in self.kept_names():
                delattr(layer, name)

    def kept_names(self) -> tuple[str, ...]:
        """Buffers that stand beside each matrix."""
        return (KEPT,)


def matrices(subject: Subject) -> dict[str, Any]:
    """Every linear layer by name but the output head, whose matrix may be the embedding's."""
    head = subject.model.get_output_embeddings()
    return {name: layer for name, layer in subject.linears().items() if layer is not head}


def thinned(subject: Subject) -> dict[str, Any]:
    """Those of them that have a mask."""
    return {name: layer for name, layer in subject.linears().items() if hasattr(layer, KEPT)}


def sparsity(layers: dict[str, Any]) -> float:
    """Share of zeros in live matrices."""
    weights = [layer.weight.detach() for layer in layers.values()]
    return sum(map(count_zeros, weights)) / max(1, sum(weight.numel() for weight in weights))


def least(scores: Tensor, wanted: int) -> Tensor:
    """(M,) -> (M,) bool: exactly the `wanted` least; of equal ones those that come first."""
    gone = torch.zeros_like(scores, dtype=torch.bool)
    if wanted == 0:
        return gone
    threshold = scores.kthvalue(wanted).values
    gone |= scores < threshold
    missing = wanted - int(gone.sum())
    gone[(scores == threshold).nonzero()[:missing, 0]] = True
    return gone
