"""8-bit floats: their rounding against every number that e4m3 has, and what is refused where no GPU multiplies them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.floats8 import Fp8
from backend.techniques.base import Subject
from backend.techniques.quantize.fp8 import rounded
from backend.techniques.registry import apply_switch, read_back


def test_rounding_goes_to_the_nearest_number_of_e4m3() -> None:
    x = torch.randn(4, 200, generator=torch.Generator().manual_seed(2))
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    every = every[every.isfinite()]
    scale = x.abs().amax(-1, keepdim=True) / 448
    distance = (x / scale)[..., None] - every  # (4, 200, 254)
    nearest = distance.abs().amin(-1) * scale
    torch.testing.assert_close((rounded(x) - x).abs(), nearest, rtol=1e-4, atol=1e-6)


def test_a_row_of_zeros_stays_zero() -> None:
    assert torch.equal(rounded(torch.zeros(2, 8)), torch.zeros(2, 8))


def test_simulated_it_rounds_and_says_that_nothing_is_smaller(
    tiny_llama: Subject, logits: Callable[[Subject], Tensor]
) -> None:
    before = logits(tiny_llama)
    switch = Fp8(simulate=True)
    apply_switch(tiny_llama, switch)
    effect = read_back(tiny_llama, switch)
    assert effect.took_effect
    assert effect.simulated
    assert Recipe.read({"switches": {"fp8": {"simulate": True}}}).simulated
    assert effect.facts["bits_per_weight"] == 32
    off = float((logits(tiny_llama) - before).norm() / before.norm())
    assert 0 < off < 0.2


def test_without_a_gpu_it_is_refused_with_the_way_out(tiny_llama: Subject) -> None:
    assert "only be simulated" in str(Fp8().refuse(tiny_llama.facts))
    with pytest.raises(RecipeError, match=r"compute capability 8\.9"):
        apply_switch(tiny_llama, Fp8())
    assert not Recipe.read({"switches": {"fp8": {}}}).simulated
