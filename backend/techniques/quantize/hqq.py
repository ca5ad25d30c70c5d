"""HQQ: int4 whose zeros are fitted to the weights alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.recipe.switches.four_bits import Hqq
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.groups import FOUR_BITS, MIDDLE, Groups, as_groups, blocks_of, ranges
from backend.techniques.quantize.int4_layers import grouped_effect, pack_chosen
from backend.techniques.quantize.int4_linear import ROWS_AT_A_TIME, nearest_weight
from backend.techniques.quantize.torchao_layers import quiet_import
from backend.techniques.registry import technique

METHOD = "HQQ"
NORM = 0.7  # the power of the error that the solver lowers: large errors of few weights count less than in squares
SOLVER = {"lp_norm": NORM, "beta": 10.0, "kappa": 1.01, "iters": 20, "early_stop": True}  # torchao's own settings


@technique(Hqq)
class HqqWeights:
    """Badri and Shaji 2023 (half-quadratic quantization) with torchao's solver, which runs on a CPU.

    torchao's whole function rounds its first zeros to integers, which the kernel need not have, and stops when the mean
    over all groups stops falling; so only its solver is used, on groups that were laid out for the kernel.
    """

    def apply(self, subject: Subject, switch: Hqq) -> None:
        """Fit and pack every linear layer; the head as the switch says."""
        errors: list[tuple[float, float]] = []

        def choose(name: str, layer: nn.Linear) -> Groups:
            weight = layer.weight.detach().float()
            groups = fitted(weight, switch.group_size)
            ours, nearest = groups.weight()[:, : layer.in_features], nearest_weight(weight, switch.group_size)
            errors.append((norm_error(weight, ours), norm_error(weight, nearest)))
            return groups

        pack_chosen(subject, switch, choose, METHOD)
        subject.notes[switch.kind]["errors"] = errors

    def read_back(self, subject: Subject, switch: Hqq) -> Effect:
        """Count the packed layers in the live model; errors are those of the weights when they were fitted."""
        effect = grouped_effect(subject, switch, METHOD)
        errors = subject.notes.get(switch.kind, {}).get("errors")
        if effect.took_effect and errors:
            ours, nearest = (sum(column) / len(errors) for column in zip(*errors, strict=True))
            effect.facts |= {"weight_error": round(ours, 6), "weight_error_to_nearest": round(nearest, 6)}
            effect.facts["speed_and_bytes"] = "of int4 rounded to nearest: the same kernel, only quality moves"
            effect.summary += f"; by HQQ: weights off by {ours / nearest:.0%} of rounding to nearest in its norm"
        return effect


def fitted(weight: Tensor, group_size: int) -> Groups:
    """Codes, scales and zeros (N, K padded to the group) of a float matrix, a few rows at a time.

    Each group keeps the scale of its range; its zero is solved for in steps of that scale, where the solver's usual
    settings hold. A group whose fitted zero errs more once it is bf16 keeps the zero of rounding to nearest.
    """
    step = max(1, ROWS_AT_A_TIME // weight.shape[1])
    parts = [_fit_rows(weight[start : start + step], group_size) for start in range(0, weight.shape[0], step)]
    return Groups(torch.cat([part.codes for part in parts]), torch.cat([part.scales_and_zeros for part in parts], 1))


def _fit_rows(weight: Tensor, group_size: int) -> Groups:
    with quiet_import():
        from torchao.quantization.quant_primitives import optimize_weights_proximal_legacy as solve
    blocks = blocks_of(weight, group_size)  # (n, G, g)
    scale, nearest = ranges(blocks, FOUR_BITS)  # (n, G, 1)
    start = (MIDDLE - nearest / scale).view(-1, 1)
    levels = [FOUR_BITS.first, FOUR_BITS.last]
    _, _, solved = solve((blocks / scale).flatten(0, 1), torch.ones_like(start), start, levels, 1, opt_params=SOLVER)
    zero = ((MIDDLE - solved.view(nearest.shape)) * scale).bfloat16().float()
    errors = [(FOUR_BITS.nearest(blocks, scale, z) - blocks).abs().pow(NORM).sum(2, True) for z in (zero, nearest)]
    zero = torch.where(errors[0] < errors[1], zero, nearest)
    return as_groups(FOUR_BITS.codes(blocks, scale, zero), scale, zero)


def norm_error(weight: Tensor, rounded: Tensor) -> float:
    """Mean of |w - q|^.7."""
    return float((weight - rounded).abs().pow(NORM).mean())
