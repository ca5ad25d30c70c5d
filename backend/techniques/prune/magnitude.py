"""The smallest weights of every matrix set to zero: what sparsity does to quality, with no gain of a dense kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import Magnitude
from backend.techniques.base import Effect, Skipped, Subject
from backend.techniques.registry import technique
from backend.techniques.zeros import count_zeros, shown_weight


@dataclass
class Count:
    """Zeros of the matrices that can be read, what a ratio makes of them at least, and those that cannot be read."""

    zeros: int = 0
    total: int = 0
    asked: int = 0
    packed: list[str] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.total if self.total else 0.0


@technique(Magnitude)
class MagnitudePruning:
    """Zeroes the smallest |w| of every linear layer but the output head (Han et al. 2015). Embeddings stay."""

    def apply(self, subject: Subject, switch: Magnitude) -> None:
        """Set the weights to zero in place.

        Raises:
            RecipeError: when the model has no linear layer besides its head.
        """
        head = subject.model.get_output_embeddings()
        chosen = [linear for linear in subject.linears().values() if linear is not head]
        if not chosen:
            allowed = "a model with linear layers"
            raise RecipeError(f"switches.{switch.kind}", type(subject.model).__name__, allowed, "Switch it off.")
        for linear in chosen:
            zero_smallest(linear.weight.detach(), switch.ratio)
        subject.notes[switch.kind] = {"count": count(subject, switch.ratio)}

    def read_back(self, subject: Subject, switch: Magnitude) -> Effect:
        """Count zeros in the live matrices, floats or int8 codes; where none can be read, as counted before packing."""
        found, counted = count(subject, switch.ratio), "live"
        if not found.total and switch.kind in subject.notes:
            found, counted = subject.notes[switch.kind]["count"], "before packing"
        reason = "packed by another switch, its zeros can no longer be counted"
        fits = found.zeros >= found.asked > 0
        tail = "dense kernels gain nothing from them, so speed and memory are unchanged"
        return Effect(
            kind=switch.kind,
            took_effect=fits,
            summary=f"{found.sparsity:.1%} zeros; {tail if fits else f'{switch.ratio:.1%} were asked for'}",
            facts={
                "asked_ratio": switch.ratio,
                "sparsity": found.sparsity,
                "counted": counted,
                "zeros": found.zeros,
                "zeros_asked": found.asked,
            },
            skipped=[Skipped(name, reason) for name in found.packed],
            simulated=True,
        )


def zero_smallest(weight: Tensor, ratio: float) -> None:
    """Zero the share `ratio` of a matrix's entries in place, the smallest by absolute value."""
    wanted = round(ratio * weight.numel())
    if wanted:
        smallest = weight.abs().flatten().topk(wanted, largest=False, sorted=False).indices
        weight.view(-1)[smallest] = 0


def count(subject: Subject, ratio: float) -> Count:
    """Zeros in all projections but the head; int8 codes may hold more of them, of weights that were rounded to zero."""
    found = Count()
    for name, module in _projections(subject):
        weight = shown_weight(module)
        if weight is None:
            found.packed.append(name)
            continue
        found.zeros += count_zeros(weight)
        found.total += weight.numel()
        found.asked += round(ratio * weight.numel())
    return found


def _projections(subject: Subject) -> Iterator[tuple[str, nn.Module]]:
    """Every projection by name, whatever class holds it, but the output head."""
    head = subject.model.get_output_embeddings()
    for name, module in subject.model.named_modules():
        if module is not head and (name.endswith("_proj") or isinstance(module, nn.Linear)):
            yield name, module
