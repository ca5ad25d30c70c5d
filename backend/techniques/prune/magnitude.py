"""The smallest weights of every matrix set to zero: what sparsity does to quality, with no gain of a dense kernel."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import Magnitude
from backend.techniques.base import Effect, Skipped, Subject
from backend.techniques.registry import technique


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
        zeros, total, _ = count_zeros(subject)
        subject.notes[switch.kind] = {"sparsity": zeros / total}

    def read_back(self, subject: Subject, switch: Magnitude) -> Effect:
        """Count zeros in the live matrices; where all are packed by now, report the count taken before packing."""
        zeros, total, packed = count_zeros(subject)
        counted = "live"
        sparsity = zeros / total if total else 0.0
        if not total and switch.kind in subject.notes:
            counted, sparsity = "before packing", subject.notes[switch.kind]["sparsity"]
        reason = "packed by another switch, its zeros can no longer be counted"
        return Effect(
            kind=switch.kind,
            took_effect=sparsity > 0 and sparsity >= switch.ratio - 0.01,
            summary=f"{sparsity:.1%} zeros; dense kernels gain nothing from them, so speed and memory are unchanged",
            facts={"asked_ratio": switch.ratio, "sparsity": sparsity, "counted": counted, "zeros": zeros},
            skipped=[Skipped(name, reason) for name in packed],
            simulated=True,
        )


def zero_smallest(weight: Tensor, ratio: float) -> None:
    """Zero the share `ratio` of a matrix's entries in place, the smallest by absolute value."""
    count = round(ratio * weight.numel())
    if count:
        smallest = weight.abs().flatten().topk(count, largest=False, sorted=False).indices
        weight.view(-1)[smallest] = 0


def count_zeros(subject: Subject) -> tuple[int, int, list[str]]:
    """Zeros and entries of all matrices but the head that hold plain floats, and the names of those that do not."""
    zeros = total = 0
    packed: list[str] = []
    for name, weight in _matrices(subject):
        if weight is None:
            packed.append(name)
        else:
            zeros += int((weight == 0).sum())
            total += weight.numel()
    return zeros, total, packed


def _matrices(subject: Subject) -> Iterator[tuple[str, Tensor | None]]:
    """Every projection by name with its float weight, or None where another class holds it packed."""
    head = subject.model.get_output_embeddings()
    for name, module in subject.model.named_modules():
        is_leaf = name.endswith("_proj") or isinstance(module, nn.Linear)
        if not is_leaf or module is head:
            continue
        weight = getattr(module, "weight", None)
        plain = isinstance(weight, Tensor) and type(weight) in (nn.Parameter, Tensor) and weight.is_floating_point()
        yield name, weight.detach() if isinstance(weight, Tensor) and plain else None
