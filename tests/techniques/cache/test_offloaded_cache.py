"""The offloaded cache: refused where there is no GPU, and read back by where its layers lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.recipe.switches.cache import OffloadedCache
from backend.techniques.base import DecodePlan, Subject
from backend.techniques.cache.offloaded import places
from backend.techniques.registry import apply_switch, read_back

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_without_a_gpu_it_is_refused_before_anything_is_loaded(tiny_llama: Subject) -> None:
    assert "host's memory already" in (OffloadedCache().unfit(tiny_llama.facts) or "")
    assert OffloadedCache().unfit(replace(tiny_llama.facts, devices=("cuda", "cpu"))) is None


def test_a_model_on_a_cpu_is_refused_whatever_else_is_there(any_subject: Subject) -> None:
    with pytest.raises(RecipeError, match="a model on a CUDA GPU"):
        apply_switch(any_subject, OffloadedCache())


@pytest.mark.parametrize("other", [{"prompt_lookup": {}}, {"compile": {}}, {"device": {"name": "cpu"}}])
def test_what_cannot_stand_beside_it(other: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="offloaded_cache"):
        Recipe.read({"switches": {"offloaded_cache": {}, **other}})


def test_many_requests_cannot_have_it() -> None:
    assert OffloadedCache().alone()


def test_a_cache_that_lies_where_the_model_does_is_no_offloaded_one(any_subject: Subject) -> None:
    effect = read_back(any_subject, OffloadedCache())
    assert not effect.took_effect
    assert effect.summary == "DynamicCache with its layers on cpu"
    assert effect.facts["kv_bytes_per_token"] == 4 * any_subject.facts.kv_values_per_token


def test_layers_are_counted_where_they_lie(tiny_llama: Subject) -> None:
    cache, states = DynamicCache(config=tiny_llama.model.config), torch.zeros(1, 4, 2, 16)
    assert not places(cache)
    for number, device in enumerate(("cpu", "meta", "cpu")):
        cache.layers[number].update(states.to(device), states.to(device))
    assert places(cache) == {"cpu": 2, "meta": 1}


@GPU
@pytest.mark.parametrize("shape", ["llama", "gemma"])
def test_on_a_gpu_layers_wait_in_the_hosts_memory(build: Callable[..., Subject], shape: str) -> None:
    subject = build(shape)
    subject.model.to("cuda")
    subject = replace(subject, device=torch.device("cuda"), plan=DecodePlan())
    ids = torch.tensor([subject.sample_ids], device="cuda")
    with torch.inference_mode():
        expected = subject.model(input_ids=ids, use_cache=False).logits
        apply_switch(subject, OffloadedCache())
        assert read_back(subject, OffloadedCache()).took_effect
        assert subject.plan.make_cache
        cache = subject.plan.make_cache(64)
        parts = [subject.model(input_ids=part, cache=cache, use_cache=True).logits for part in ids.split(16, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-3, rtol=1e-3)
