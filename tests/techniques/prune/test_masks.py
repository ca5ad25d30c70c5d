"""Masks: the least of every group, ties by index, patterns, and a threshold over all matrices at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from backend.recipe.switches.sparsity import Pattern
from backend.techniques.prune.masks import (
    choose,
    equal_everywhere,
    holds,
    least,
    least_of_all,
    misfit,
    pack_mask,
    unpack_mask,
    zeros_asked,
)


def scores(rows: int = 128, columns: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_the_least_go_and_of_equal_ones_the_first() -> None:
    found = least(torch.tensor([[3.0, 1.0, 2.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0, 5.0]]), 2)
    assert found.tolist() == [[False, True, False, True, False], [True, True, False, False, False]]


def test_none_wanted_is_none() -> None:
    assert not least(scores(), 0).any()


@pytest.mark.parametrize("by_row", [False, True])
def test_a_share_of_the_matrix_or_of_every_row(by_row: bool) -> None:
    found = choose(scores(), 0.25, "none", by_row=by_row)
    assert int(found.sum()) == zeros_asked("none", 128, 24, 0.25, by_row=by_row) == 768
    assert (found.sum(dim=1) == 6).all() == by_row


@pytest.mark.parametrize(("pattern", "zeros", "width"), [("2:4", 2, 4), ("4:8", 4, 8)])
def test_windows_by_hand(pattern: Pattern, zeros: int, width: int) -> None:
    given = scores()
    found = choose(given, 0.5, pattern, by_row=True)
    for start in range(0, 24, width):
        window = given[7, start : start + width]
        kept = window.topk(width - zeros).indices.sort().values
        assert (~found[7, start : start + width]).nonzero().flatten().tolist() == kept.tolist()
    assert int(found.sum()) == zeros_asked(pattern, 128, 24, 0.5, by_row=False)


def test_blocks_of_rows_share_their_columns_and_go_by_their_sum() -> None:
    given = scores()
    found = choose(given, 0.25, "64x1", by_row=False)
    for start in (0, 64):
        part = found[start : start + 64]
        assert (part == part[0]).all()
        assert part[0].nonzero().flatten().tolist() == sorted(given[start : start + 64].sum(0).argsort()[:6].tolist())
    assert int(found.sum()) == zeros_asked("64x1", 128, 24, 0.25, by_row=False)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_over_all_matrices_it_is_the_sorted_list(ratio: float) -> None:
    given = [scores(8, 16, 1), 3 * scores(4, 4, 2), scores(5, 7, 3)]
    wanted = round(ratio * sum(one.numel() for one in given))
    found = torch.cat([mask.flatten() for mask in least_of_all([one.clone for one in given], wanted)])
    every = torch.cat([one.flatten() for one in given])
    assert int(found.sum()) == wanted
    if 0 < wanted < len(every):
        assert every[found].max() <= every[~found].min()


def test_the_last_block_of_rows_may_be_a_shorter_one() -> None:
    given = scores(70)
    found = choose(given, 0.25, "64x1", by_row=False)
    assert (found[64:] == found[64]).all()
    assert found[64].nonzero().flatten().tolist() == sorted(given[64:].sum(0).argsort()[:6].tolist())
    assert int(found.sum()) == zeros_asked("64x1", 70, 24, 0.25, by_row=False)
    assert holds("64x1", given.masked_fill(found, 0), 0.25)


def test_over_all_matrices_ties_go_by_index() -> None:
    masks = list(least_of_all([lambda: torch.ones(2, 2), lambda: torch.ones(2, 2)], 5))
    assert [mask.flatten().tolist() for mask in masks] == [[True] * 4, [True, False, False, False]]


def test_a_mask_comes_back_from_its_bits() -> None:
    mask = scores(5, 7) < 0.4
    assert torch.equal(unpack_mask(pack_mask(mask), mask), mask)
    assert len(pack_mask(mask)) == 5


@pytest.mark.parametrize(("pattern", "columns"), [("2:4", 10), ("4:8", 12)])
def test_a_shape_that_does_not_fit_says_why(pattern: Pattern, columns: int) -> None:
    assert f"which {pattern} needs" in (misfit(pattern, columns) or "")
    assert misfit("none", columns) is None
    assert misfit("64x1", columns) is None


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "64x1"])
def test_one_weight_too_many_breaks_a_pattern(pattern: Pattern) -> None:
    weight = scores() + 1
    weight[choose(weight, 0.5, pattern, by_row=False)] = 0
    assert holds(pattern, weight, 0.5)
    assert holds(pattern, (100 * weight).to(torch.int8), 0.5)
    place = (weight == 0).nonzero()[0]
    weight[tuple(place)] = 1
    assert not holds(pattern, weight, 0.5)
    assert holds("none", weight, 0.5)


def test_equal_importance_is_seen() -> None:
    assert equal_everywhere(torch.ones(3, 4))
    assert not equal_everywhere(scores())


def test_more_is_asked_of_a_larger_ratio() -> None:
    for pattern in ("none", "64x1"):
        asked = [zeros_asked(pattern, 128, 24, ratio / 10, by_row=False) for ratio in range(10)]  # type: ignore[arg-type]
        assert all(low < high for low, high in pairwise(asked))
