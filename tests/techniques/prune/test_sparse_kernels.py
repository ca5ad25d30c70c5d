"""Sparse kernels: what is replaced, what stays dense and why, and a model that computes as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.engine.receipt import receipt
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switch import read_switch
from backend.techniques.base import Effect, Subject, decoder_layers
from backend.techniques.prune.sparse_linear import BlockLinear, CsrLinear, SparseLinear
from backend.techniques.prune.trial import Trial
from backend.techniques.registry import apply_switch, read_back

Build = Callable[..., Subject]
Run = Callable[[Subject], Tensor]


def change(subject: Subject, kind: str, **fields: Any) -> Effect:
    switch = read_switch(kind, fields)
    apply_switch(subject, switch)
    return read_back(subject, switch)


def live(subject: Subject) -> list[SparseLinear]:
    return [layer for layer in subject.model.modules() if isinstance(layer, SparseLinear)]


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
@pytest.mark.parametrize(("pattern", "form"), [("none", CsrLinear), ("64x1", BlockLinear)])
def test_the_model_computes_as_before(build: Build, logits: Run, shape: str, pattern: str, form: type) -> None:
    subject = build(shape)
    change(subject, "magnitude", ratio=0.75, pattern=pattern)
    before = logits(subject)
    effect = change(subject, "sparse_kernels", gain=0.0)
    assert effect.took_effect
    assert effect.facts["sparse_layers"] == len(live(subject)) == 21 - len(effect.skipped)
    assert isinstance(decoder_layers(subject.model)[1].mlp.up_proj, form)  # CSR for a matrix that a block would fill up
    torch.testing.assert_close(logits(subject), before, atol=1e-4, rtol=1e-4)


def test_zeros_are_still_counted_and_no_longer_simulated(tiny_llama: Subject) -> None:
    switches = {"magnitude": {"ratio": 0.9}, "sparse_kernels": {"gain": 0.0}}
    recipe = Recipe.read({"switches": switches})
    for switch in recipe.pipeline:
        apply_switch(tiny_llama, switch)
    assert not recipe.simulated
    facts = receipt(tiny_llama, recipe)
    zeros, kernels = facts["effects"]
    assert zeros["took_effect"]
    assert not zeros["simulated"]
    assert zeros["summary"].endswith("21 of 21 matrices are held sparse")
    assert zeros["facts"]["zeros"] >= zeros["facts"]["zeros_asked"]
    assert kernels["facts"]["classes"] == "CsrLinear (csr) x 21"
    assert {family["format"] for family in facts["families"]} >= {"csr"}
    (csr,) = [family for family in facts["families"] if family["format"] == "csr"]
    assert csr["bytes"] == kernels["facts"]["sparse_bytes"] < 0.25 * kernels["facts"]["dense_bytes"]
    assert csr["sparsity"] == pytest.approx(0.9, abs=0.01)


def test_a_large_matrix_of_few_weights_gains(build: Build) -> None:
    subject = build("llama", hidden_size=512, intermediate_size=2048)
    change(subject, "magnitude", ratio=0.98)
    effect = change(subject, "sparse_kernels")
    assert effect.took_effect, effect.summary
    assert isinstance(decoder_layers(subject.model)[0].mlp.up_proj, CsrLinear)
    assert effect.facts["decode_ratio"] > 1.05
    assert "2048 x 512" in str(effect.facts["trials"])


def test_where_nothing_gains_figures_are_said_and_all_stays_dense(tiny_llama: Subject) -> None:
    change(tiny_llama, "magnitude", ratio=0.35)
    effect = change(tiny_llama, "sparse_kernels", gain=4.0)
    assert not effect.took_effect
    assert not live(tiny_llama)
    assert effect.summary.startswith("nothing gains here: at best ")
    assert "35% zeros as csr" in effect.summary
    assert "break-even at about" in effect.summary
    assert len(effect.skipped) == 21
    assert effect.skipped[0].reason.startswith("stays dense, 64 x 64 with 35% zeros as csr")


def test_without_zeros_nothing_is_tried(tiny_gemma: Subject) -> None:
    effect = change(tiny_gemma, "sparse_kernels", gain=0.0)
    assert not effect.took_effect
    assert effect.summary == "none of 21 linear layers has zeros enough: at least 30% are needed for a trial"
    assert {one.reason for one in effect.skipped} == {"0% zeros: no trial below 30%"}


def test_embedding_and_head_stay(tiny_gemma: Subject) -> None:
    change(tiny_gemma, "magnitude", ratio=0.9)
    change(tiny_gemma, "sparse_kernels", gain=0.0)
    assert isinstance(tiny_gemma.model.get_output_embeddings(), torch.nn.Linear)


def test_a_kernel_that_refuses_a_type_leaves_the_layer_with_its_words(tiny_llama: Subject) -> None:
    change(tiny_llama, "magnitude", ratio=0.9)
    tiny_llama.model.to(torch.bfloat16)
    effect = change(tiny_llama, "sparse_kernels", gain=0.0)
    if effect.took_effect:
        pytest.skip("this build of torch multiplies sparse matrices of bfloat16")
    assert all(one.reason.startswith("csr: ") for one in effect.skipped)


def test_the_break_even_is_where_what_is_left_takes_as_long() -> None:
    assert Trial("2 x 2", "csr", 0.9, 4.0, 1.0).break_even == pytest.approx(0.6)
    assert Trial("2 x 2", "csr", 0.5, 0.8, 1.0).break_even == pytest.approx(0.6)
    assert Trial("2 x 2", "csr", 0.5, 4.0, 1.0).break_even == 0.0


@pytest.mark.parametrize("kind", ["int8_weight_only", "gptq", "compile"])
def test_what_it_cannot_stand_beside_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"kernels of their own|does not take sparse"):
        Recipe.read({"switches": {"sparse_kernels": {}, kind: {}}})


def test_zeros_alone_stay_simulated() -> None:
    assert Recipe.read({"switches": {"wanda": {}}}).simulated
    assert not Recipe.read({"switches": {"wanda": {}, "sparse_kernels": {}}}).simulated
