"""Hidden width: equal to the masked model with its norms corrected, smaller everywhere, and loaded again as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, GPT2LMHeadModel

from backend.parts import pruned
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.width import PruneWidth
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.select import stay
from backend.techniques.prune.stream import stream_of
from backend.techniques.prune.width import RANKINGS, norm_factors
from backend.techniques.registry import apply_switch, read_back

Logits = Callable[[Subject], Tensor]
Build = Callable[..., Subject]


def trained_norms(subject: Subject) -> None:
    """Norms that are not all alike, as training leaves them."""
    generator = torch.Generator().manual_seed(4)
    for norm in stream_of(subject.model, "x").norms:
        norm.weight.data += 0.3 * torch.randn(norm.weight.shape, generator=generator)  # type: ignore[operator]


@torch.no_grad()
def masked(subject: Subject, switch: PruneWidth) -> None:
    """Nothing is written to the other dimensions, and every norm multiplies by what the cut model's should."""
    stream = stream_of(subject.model, "x")
    keep = stay(RANKINGS[switch.by](subject, stream, switch.seed), 64 - switch.kept(64))
    factors = norm_factors(subject, stream, keep)
    mask = torch.zeros(64)
    mask[keep] = 1
    stream.embedding.register_forward_hook(lambda module, args, output: output * mask)
    for writer in stream.writers:
        writer.weight.data *= mask[:, None]
    for norm, factor in zip(stream.norms, factors, strict=True):
        shrink = factor * (len(keep) / 64) ** 0.5  # its mean is over all 64, of which the others are zero
        norm.register_forward_hook(lambda module, args, output, shrink=shrink: output * shrink)


@pytest.mark.parametrize("by", ["activation", "weights", "random"])
@pytest.mark.parametrize(
    ("shape", "changes"),
    [("llama", {}), ("gqa", {"tie_word_embeddings": False}), ("gemma", {}), ("gemma", {"tie_word_embeddings": False})],
)
def test_equals_the_masked_model(build: Build, logits: Logits, shape: str, changes: dict[str, Any], by: str) -> None:
    changes = {"rms_norm_eps": 1e-10, **changes}  # what is added to a mean counts more or less with its size
    cut, dense, switch = build(shape, **changes), build(shape, **changes), PruneWidth(ratio=0.25, by=by, seed=3)
    trained_norms(cut)
    trained_norms(dense)
    apply_switch(cut, switch)
    masked(dense, switch)
    torch.testing.assert_close(logits(cut), logits(dense), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_it_is_smaller_everywhere_and_loads_again(build: Build, logits: Logits, tmp_path: Path, shape: str) -> None:
    subject, switch = build(shape), PruneWidth(ratio=0.25)
    predicted = pruned(subject.facts, Recipe(switches={switch.kind: switch})).parameters
    apply_switch(subject, switch)
    count = sum(p.numel() for p in subject.model.parameters())
    assert count == pytest.approx(predicted, rel=0.01)
    assert count / subject.facts.parameters == pytest.approx(0.75, abs=0.01)
    effect = read_back(subject, switch)
    assert effect.took_effect
    assert effect.facts["width_after"] == 48
    assert effect.facts["saved_config"] == "can be loaded again"
    before = logits(subject)
    subject.model.save_pretrained(tmp_path)
    subject.model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(subject), before, atol=1e-5, rtol=1e-5)


def test_a_dimension_that_is_always_nothing_costs_nothing(build: Build, logits: Logits) -> None:
    subject, whole = build("llama", rms_norm_eps=1e-10), build("llama", rms_norm_eps=1e-10)
    for one in (subject, whole):
        stream = stream_of(one.model, "x")
        one.model.get_input_embeddings().weight.data[:, 16:32] = 0
        for writer in stream.writers:
            writer.weight.data[16:32] = 0
    apply_switch(subject, PruneWidth(ratio=0.25))
    torch.testing.assert_close(logits(subject), logits(whole), atol=1e-4, rtol=1e-4)


def test_it_decodes_in_a_cache_as_it_reads(build: Build, logits: Logits) -> None:
    subject = build("gemma")
    apply_switch(subject, PruneWidth(ratio=0.5))
    cache, ids = DynamicCache(config=subject.model.config), torch.tensor([subject.sample_ids])
    with torch.inference_mode():
        rows = [subject.model(input_ids=ids[:, i : i + 1], cache=cache).logits[0] for i in range(ids.shape[1])]
    torch.testing.assert_close(torch.cat(rows), logits(subject), atol=1e-4, rtol=1e-4)


def test_what_is_not_known_is_refused(tiny_llama: Subject, build: Build) -> None:
    other = build("llama")
    decoder_layers(other.model)[1].input_layernorm = nn.LayerNorm(64)
    with pytest.raises(RecipeError, match="with RMSNorm"):
        apply_switch(other, PruneWidth())
    beside = build("llama")
    decoder_layers(beside.model)[0].adapter = nn.Linear(64, 64)
    with pytest.raises(RecipeError, match="nothing else on its residual stream"):
        apply_switch(beside, PruneWidth())
    tiny_llama.model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64))
    with pytest.raises(RecipeError, match="GPT2LMHeadModel"):
        apply_switch(tiny_llama, PruneWidth())


def test_bad_ratios_and_missing_text_are_refused(tiny_llama: Subject) -> None:
    assert "at most" in (PruneWidth(ratio=0.999).refuse(tiny_llama.facts) or "")
    assert "nothing would go" in (PruneWidth(ratio=0.001).refuse(tiny_llama.facts) or "")
    with pytest.raises(RecipeError, match="at most"):
        apply_switch(tiny_llama, PruneWidth(ratio=0.999))
    tiny_llama.sample_ids = []
    with pytest.raises(RecipeError, match="calibration missing"):
        apply_switch(tiny_llama, PruneWidth())
    apply_switch(tiny_llama, PruneWidth(by="weights"))
    assert "no text" in read_back(tiny_llama, PruneWidth(by="weights")).facts["norms_corrected"]


def test_nothing_applied_is_seen(any_subject: Subject) -> None:
    assert not read_back(any_subject, PruneWidth()).took_effect
