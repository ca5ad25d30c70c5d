"""What all ways to set weights to zero share: the matrices they may touch, and zeros counted in the live ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.sparsity import Scoped, Sparsity
from backend.techniques.base import CalibrationText, Effect, Skipped, Subject
from backend.techniques.prune.masks import holds, misfit, pack_mask, zeros_asked
from backend.techniques.prune.sparse_linear import SparseLinear
from backend.techniques.walk import refuse_broken, windows_of
from backend.techniques.zeros import count_zeros, shown_weight

MASK, EQUAL = "mask:", "equal:"  # before a layer's name on the shelf


@dataclass
class Count:
    """Zeros of the matrices that can be read, what was asked of them, and those that cannot be read."""

    zeros: int = 0
    total: int = 0
    asked: int = 0
    matrices: int = 0
    in_pattern: int = 0
    sparse: int = 0  # matrices that a sparse kernel multiplies
    shares: list[float] = field(default_factory=list)  # of zeros, by matrix
    packed: list[str] = field(default_factory=list)
    misfits: dict[str, str] = field(default_factory=dict)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.total if self.total else 0.0


def prunable(subject: Subject, switch: Sparsity) -> dict[str, nn.Linear]:
    """The linear layers that may lose weights, the output head not among them; the others are noted with the reason.

    Raises:
        RecipeError: when there is none, or when one holds what is no number.
    """
    refuse_broken(subject, switch.kind)
    chosen: dict[str, nn.Linear] = {}
    reasons: dict[str, str] = {}
    for name, module in projections(subject):
        if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
            reasons[name] = f"its weights are held by {module._get_name()}, not as a matrix of floats"
        elif reason := misfit(switch.pattern, module.weight.shape[1]):
            reasons[name] = reason
        else:
            chosen[name] = module
    if not chosen:
        why = next(iter(reasons.values()), "")
        allowed = f"a model with linear layers that fit; {why}" if why else "a model with linear layers"
        remedy = "Switch it off, or choose another pattern." if why else "Switch it off."
        raise RecipeError(f"switches.{switch.kind}", type(subject.model).__name__, allowed, remedy)
    subject.notes[switch.kind] = {"reasons": reasons, "equal": []}
    return chosen


@torch.no_grad()
def zero(linear: nn.Linear, mask: Tensor) -> None:
    """Set the weights under the mask (N, K) to zero, in place."""
    linear.weight.masked_fill_(mask, 0)


def note_found(
    subject: Subject, switch: Sparsity, text: CalibrationText, found: Mapping[str, Tensor], *, shelved: bool
) -> None:
    """For the receipt: zeros as they are now, the text that led to them, and where the index alone decided.

    Args:
        found: what was chosen; keys that begin with EQUAL name matrices whose weights are all equally important.
    """
    note = subject.notes[switch.kind]
    note["count"] = count(subject, switch)
    note["equal"] = [key for key in found if key.startswith(EQUAL)]
    note["text"] = {
        "calibration_tokens": sum(len(window) for window in windows_of(text)),
        "calibration_text": text.source,
        "calibration_kept": "taken from the shelf" if shelved else "computed now",
    }


def chosen_mask(name: str, mask: Tensor, *, equal: bool) -> dict[str, Tensor]:
    """What the shelf keeps of a choice: a bit a weight, and a mark where the index alone decided."""
    return {MASK + name: pack_mask(mask)} | ({EQUAL + name: torch.ones(1)} if equal else {})


def sparsity_effect(subject: Subject, switch: Sparsity, chosen_by: str) -> Effect:
    """The receipt: zeros in the live matrices, floats or int8 codes; where none can be read, as counted before packing.

    Args:
        chosen_by: the measure of importance, in a few words.
    """
    note: dict[str, Any] = subject.notes.get(switch.kind, {})
    found, counted = count(subject, switch), "live"
    if not found.total and "count" in note:
        found, counted = note["count"], "before packing"
    fits = found.zeros >= found.asked > 0 and found.in_pattern == found.matrices
    skipped = [Skipped(name, "packed by another switch, its zeros can no longer be counted") for name in found.packed]
    skipped += [Skipped(name, reason) for name, reason in {**note.get("reasons", {}), **found.misfits}.items()]
    facts: dict[str, Any] = {
        "asked_ratio": switch.ratio,
        "sparsity": found.sparsity,
        "counted": counted,
        "zeros": found.zeros,
        "zeros_asked": found.asked,
        "chosen_by": chosen_by,
        "least_of_a_matrix": min(found.shares, default=0.0),
        "most_of_a_matrix": max(found.shares, default=0.0),
        **note.get("text", {}),
    }
    if switch.pattern != "none":
        facts |= {"pattern": switch.pattern, "matrices_in_pattern": f"{found.in_pattern} of {found.matrices}"}
    if equal := note.get("equal"):
        facts["equal_importance"] = f"{len(equal)} matrices: there the index decided"
    return Effect(
        kind=switch.kind,
        took_effect=fits,
        summary=_summary(switch, found, fits, len(note.get("equal", ()))),
        facts=facts,
        skipped=skipped,
        simulated=found.sparse == 0,
    )


def _summary(switch: Sparsity, found: Count, fits: bool, equal: int) -> str:
    zeros = f"{found.sparsity:.1%} zeros"
    if switch.pattern != "none":
        zeros += f", {found.in_pattern} of {found.matrices} matrices in {switch.pattern}"
    if not fits:
        return f"{zeros}; {switch.ratio:.1%} were asked for"
    if equal:
        zeros += f"; in {equal} matrices all weights are equally important, and the first went"
    if found.sparse:
        return f"{zeros}; {found.sparse} of {found.matrices} matrices are held sparse"
    return f"{zeros}; dense kernels gain nothing from them, so speed and memory are unchanged"


def count(subject: Subject, switch: Sparsity) -> Count:
    """Zeros in all projections but the head; int8 codes may hold more of them, of weights that were rounded to zero."""
    found = Count()
    left_out = subject.notes.get(switch.kind, {}).get("reasons", {})
    for name, module in projections(subject):
        if name in left_out:
            continue
        weight = shown_weight(module)
        if weight is None:
            found.packed.append(name)
        elif weight.ndim != 2:
            continue
        elif reason := misfit(switch.pattern, weight.shape[1]):
            found.misfits[name] = reason
        else:
            _add(found, switch, weight)
            found.sparse += isinstance(module, SparseLinear)
    if isinstance(switch, Scoped) and switch.scope == "global":
        found.asked = round(switch.ratio * found.total)
    return found


def _add(found: Count, switch: Sparsity, weight: Tensor) -> None:
    zeros = count_zeros(weight)
    rows, columns = weight.shape
    found.zeros += zeros
    found.total += weight.numel()
    found.asked += zeros_asked(switch.pattern, rows, columns, switch.ratio, by_row=switch.by_row)
    found.matrices += 1
    found.in_pattern += holds(switch.pattern, weight, switch.ratio)
    found.shares.append(zeros / max(1, weight.numel()))


def projections(subject: Subject) -> Iterator[tuple[str, nn.Module]]:
    """Every projection by name, whatever class holds it, but the output head."""
    head = subject.model.get_output_embeddings()
    for name, module in subject.model.named_modules():
        if module is not head and (name.endswith("_proj") or isinstance(module, nn.Linear | SparseLinear)):
            yield name, module
