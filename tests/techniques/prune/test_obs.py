"""SparseGPT's update against optimal brain surgeon, step by step with the inverse Hessian itself; and what it saves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.recipe.switches.sparsity import Pattern
from backend.techniques.hessian import inverse_factor, output_error
from backend.techniques.prune.masks import choose, holds, zeros_asked
from backend.techniques.prune.obs import obs_pruning, sweep
from backend.techniques.prune.wanda import importance

DAMPING = 0.01


def problem(rows: int = 8, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights, and inputs (T, K) that hang together."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    few = max(2, width // 4)
    inputs = torch.randn(500, few, generator=generator) @ torch.randn(few, width, generator=generator)
    inputs += 0.3 * torch.randn(500, width, generator=generator)
    return weight, inputs * (0.2 + torch.rand(width, generator=generator))


def hessian_of(inputs: Tensor) -> Tensor:
    return 2 / len(inputs) * inputs.T @ inputs


def factor_of(inputs: Tensor) -> Tensor:
    found = inverse_factor(hessian_of(inputs), DAMPING)
    assert found is not None
    return found


def exact_obs(weight: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    """Row by row, weight by weight: w -= w_i / [H^-1]_ii H^-1[:, i] where it goes, then i leaves H either way."""
    damped = hessian.double() + DAMPING * hessian.double().diagonal().mean() * torch.eye(len(hessian))
    out = weight.double().clone()
    for row, gone in zip(out, mask, strict=True):
        inverse = torch.linalg.inv(damped)
        for i in range(len(row)):
            if gone[i]:
                row -= row[i].clone() / inverse[i, i] * inverse[:, i]
                row[i] = 0.0
            inverse = inverse - torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return out.float()


def test_eight_by_eight_is_exact_obs() -> None:
    weight, inputs = problem()
    after, mask = obs_pruning(weight, factor_of(inputs), 0.5, "none")
    assert int(mask.sum()) == 32
    assert torch.equal(after == 0, mask)
    torch.testing.assert_close(after, exact_obs(weight, hessian_of(inputs), mask), atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_given_mask_is_exact_obs_too(seed: int) -> None:
    weight, inputs = problem(seed=seed)
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)) < 0.6
    after = sweep(weight, factor_of(inputs), mask)
    torch.testing.assert_close(after, exact_obs(weight, hessian_of(inputs), mask), atol=1e-4, rtol=0)


def test_one_weight_by_hand() -> None:
    """H = [[2, 1], [1, 2]] undamped: H^-1 = [[2, -1], [-1, 2]] / 3. Without w_0 = 3, w_1 rises by 3 x 1/2."""
    factor = inverse_factor(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 0.0)
    assert factor is not None
    after = sweep(torch.tensor([[3.0, 1.0]]), factor, torch.tensor([[True, False]]))
    torch.testing.assert_close(after, torch.tensor([[0.0, 2.5]]))


def test_several_blocks_are_exact_obs() -> None:
    weight, inputs = problem(rows=3, width=300)
    after, mask = obs_pruning(weight, factor_of(inputs), 0.5, "none")
    assert int(mask.sum()) == zeros_asked("none", 3, 300, 0.5, by_row=False)
    torch.testing.assert_close(after, exact_obs(weight, hessian_of(inputs), mask), atol=5e-4, rtol=0)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "64x1"])
def test_patterns_hold_and_are_exact_obs(pattern: Pattern) -> None:
    weight, inputs = problem(rows=128, width=160)
    after, mask = obs_pruning(weight, factor_of(inputs), 0.5, pattern)
    assert holds(pattern, after, 0.5)
    assert int(mask.sum()) == zeros_asked(pattern, 128, 160, 0.5, by_row=False)
    rows = slice(62, 66)
    torch.testing.assert_close(after[rows], exact_obs(weight[rows], hessian_of(inputs), mask[rows]), atol=5e-4, rtol=0)


@pytest.mark.parametrize("pattern", ["none", "2:4", "4:8", "64x1"])
def test_sparsegpt_loses_less_than_wanda_and_wanda_less_than_magnitude(pattern: Pattern) -> None:
    weight, inputs = problem(rows=128, width=128)
    hessian = hessian_of(inputs)
    ours, _ = obs_pruning(weight, factor_of(inputs), 0.5, pattern)
    wanda = weight.masked_fill(choose(importance(weight, inputs.square().sum(0)), 0.5, pattern, by_row=True), 0)
    plain = weight.masked_fill(choose(weight.abs(), 0.5, pattern, by_row=False), 0)
    losses = [output_error(weight, other, hessian) for other in (ours, wanda, plain)]
    assert losses == sorted(losses)
    assert losses[0] < 0.8 * losses[1]


def test_weights_of_inputs_that_never_come_go_first_and_cost_nothing() -> None:
    weight, inputs = problem(rows=8, width=16)
    inputs[:, 3] = 0
    hessian = hessian_of(inputs)
    factor = inverse_factor(hessian, DAMPING)
    assert factor is not None
    after, mask = obs_pruning(weight, factor, 0.25, "none", unheard=hessian.diagonal() == 0)
    assert mask[:, 3].all()
    torch.testing.assert_close(
        after, exact_obs(weight, hessian + torch.diag((hessian.diagonal() == 0).float()), mask), atol=2e-2, rtol=0.1
    )
