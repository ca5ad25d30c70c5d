"""What a head is worth: each ranking against its definition, and what cannot be ranked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import PruneHeads
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.heads import part_of
from backend.techniques.prune.importance import importance
from backend.techniques.registry import apply_switch, read_back

Logits = Callable[[Subject], Tensor]


def test_ties_are_broken_by_index_and_said(tiny_llama: Subject) -> None:
    for layer in decoder_layers(tiny_llama.model):
        layer.self_attn.o_proj.weight.data.fill_(0.0)
    last = decoder_layers(tiny_llama.model)[0].self_attn.q_proj.weight.data[32:].clone()
    apply_switch(tiny_llama, PruneHeads(ratio=0.5))
    torch.testing.assert_close(decoder_layers(tiny_llama.model)[0].self_attn.q_proj.weight.data, last)
    assert read_back(tiny_llama, PruneHeads(ratio=0.5)).facts["ties"] == "broken by index in 3 layers"


def test_weights_that_are_no_numbers_are_named(tiny_llama: Subject) -> None:
    decoder_layers(tiny_llama.model)[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(RecipeError, match=r"layers\.1\.mlp\.up_proj"):
        apply_switch(tiny_llama, PruneHeads())


@pytest.mark.parametrize("by", ["activation", "taylor", "entropy", "ablation"])
def test_calibration_that_is_missing_is_said(tiny_llama: Subject, by: str) -> None:
    tiny_llama.sample_ids = []
    with pytest.raises(RecipeError, match="calibration missing"):
        apply_switch(tiny_llama, PruneHeads(by=by))
    apply_switch(tiny_llama, PruneHeads(by="random"))
    assert read_back(tiny_llama, PruneHeads()).facts["chosen_by"] == "chance"


def test_the_taylor_score_is_the_slope_of_a_gate(tiny_llama: Subject) -> None:
    """Against the difference of the loss with one head turned down a little."""
    parts = [part_of(layer.self_attn) for layer in decoder_layers(tiny_llama.model)]
    scores, _ = importance(tiny_llama, parts, "prune_heads", "taylor")

    def loss(scale: float) -> float:
        mask = torch.ones(64)
        mask[16:32] = scale
        hook = parts[1].entered.register_forward_pre_hook(lambda module, args: (args[0] * mask,))
        ids = torch.tensor([tiny_llama.sample_ids])
        with torch.inference_mode():
            rows = tiny_llama.model(input_ids=ids, use_cache=False).logits[0, :-1]
        hook.remove()
        return float(F.cross_entropy(rows.double(), ids[0, 1:]))

    slope = (loss(1.01) - loss(0.99)) / 0.02
    assert float(scores[1][1]) == pytest.approx(abs(slope), rel=0.02)


def test_a_head_that_looks_everywhere_alike_goes_first(tiny_llama: Subject) -> None:
    block = decoder_layers(tiny_llama.model)[0].self_attn
    block.q_proj.weight.data[:16] = 0  # its scores are all alike
    expected = block.q_proj.weight.data[16:].clone()
    apply_switch(tiny_llama, PruneHeads(ratio=0.25, by="entropy"))
    torch.testing.assert_close(block.q_proj.weight.data, expected)


def test_ablation_is_the_kld_without_the_head_alone(tiny_gqa: Subject, logits: Logits) -> None:
    parts = [part_of(layer.self_attn) for layer in decoder_layers(tiny_gqa.model)]
    scores, _ = importance(tiny_gqa, parts, "prune_heads", "ablation")
    whole = torch.log_softmax(logits(tiny_gqa)[-48:].double(), dim=-1)
    mask = torch.ones(64)
    mask[32:] = 0  # the second of two groups
    parts[2].entered.register_forward_pre_hook(lambda module, args: (args[0] * mask,))
    less = torch.log_softmax(logits(tiny_gqa)[-48:].double(), dim=-1)
    assert float(scores[2][1]) == pytest.approx(float((whole.exp() * (whole - less)).sum(-1).mean()), rel=1e-3)
