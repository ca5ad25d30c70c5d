"""sdpa's backends by name: the one that was chosen runs in every call of the model, or the receipt says which did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import AttentionKernel
from backend.recipe.switches.cache import WindowCache
from backend.techniques.attention.backends import ORDERS, REGISTERED, preferring
from backend.techniques.base import Run, Subject
from backend.techniques.kernels import listen
from backend.techniques.registry import apply_switch, read_back
from backend.techniques.tree import check_tree

Build = Callable[..., Subject]
HERE = {"sdpa_math": "sdpa math", "sdpa_flash": "sdpa flash"}  # what a CPU has


@pytest.mark.parametrize("name", HERE)
def test_the_same_result_by_the_kernel_of_that_name(
    any_subject: Subject, logits: Callable[[Subject], Tensor], name: Any
) -> None:
    before = logits(any_subject)
    apply_switch(any_subject, AttentionKernel(name=name))
    torch.testing.assert_close(logits(any_subject), before, atol=1e-4, rtol=1e-4)
    effect = read_back(any_subject, AttentionKernel(name=name))
    assert effect.took_effect, effect.summary
    assert effect.facts["ran"] == HERE[name]
    assert effect.facts["calls"] == any_subject.facts.layers


@pytest.mark.parametrize("make", ["dynamic", "static", "window"])
@pytest.mark.parametrize("name", HERE)
def test_it_holds_in_every_call(build: Build, name: Any, make: str) -> None:
    """Prefill, a step, several tokens to verify, and scoring, over caches of every kind."""
    subject = build("llama")
    apply_switch(subject, AttentionKernel(name=name))
    if make == "window":
        apply_switch(subject, WindowCache(window=12, sinks=2))
        cache: Any = subject.plan.make_cache and subject.plan.make_cache(64)
    else:
        config = subject.model.config
        cache = DynamicCache(config=config) if make == "dynamic" else StaticCache(config=config, max_cache_len=64)
    ids = torch.tensor([subject.sample_ids])
    for part in (ids[:, :20], ids[:, 20:21], ids[:, 21:26], ids[:, 26:27]):
        with torch.inference_mode():
            heard = listen(lambda part=part: subject.model(input_ids=part, cache=cache, use_cache=True))  # type: ignore[misc]
        assert heard.kernels == {HERE[name]: 3}


def test_torchs_own_choice_is_left_alone_outside(tiny_llama: Subject, build: Build) -> None:
    other = build("llama")
    usual = read_back(other, AttentionKernel(name="sdpa")).facts["ran"]
    apply_switch(tiny_llama, AttentionKernel(name="sdpa_math"))
    assert read_back(tiny_llama, AttentionKernel(name="sdpa_math")).took_effect
    assert read_back(other, AttentionKernel(name="sdpa")).facts["ran"] == usual == "sdpa flash"


def test_a_choice_that_did_not_run_is_told_call_by_call(tiny_llama: Subject) -> None:
    run = Run("DynamicCache", (), (), 0, decode_kernels={"sdpa math": 3}, prefill_kernels={"sdpa flash": 3})
    effect = read_back(replace(tiny_llama, run=run), AttentionKernel(name="sdpa_flash"))
    assert not effect.took_effect
    assert effect.summary == "attention ran as sdpa flash in prefill, sdpa math in a step, not sdpa_flash"
    apply_switch(tiny_llama, AttentionKernel(name="sdpa_math"))
    lying = read_back(tiny_llama, AttentionKernel(name="sdpa_flash"))
    assert not lying.took_effect
    assert lying.summary == "attention ran as sdpa math, not sdpa_flash"


@pytest.mark.parametrize(("name", "then"), [("sdpa_efficient", "sdpa math"), ("sdpa_cudnn", "sdpa flash")])
def test_a_backend_that_cannot_do_a_call_leaves_it_to_the_next(tiny_llama: Subject, name: str, then: str) -> None:
    """A CPU has neither kernel: what comes next in its order runs, and nothing fails."""
    attend = preferring(ORDERS[name])
    states = torch.randn(1, 4, 6, 16)
    module = tiny_llama.model.model.layers[0].self_attn
    heard = listen(lambda: attend(module, states, states, states, None, scaling=0.25))
    assert heard.kernels == {then: 1}


def test_no_name_is_taken_for_a_package_by_the_library() -> None:
    assert not any("flash" in name for name in REGISTERED.values())


@pytest.mark.parametrize("name", ["sdpa_efficient", "sdpa_cudnn", "flash_attention_2", "flash_attention_3"])
def test_what_needs_a_gpu_is_refused_without_one(tiny_llama: Subject, name: Any) -> None:
    switch = AttentionKernel(name=name)
    assert "CUDA GPU" in str(switch.unfit(tiny_llama.facts))
    assert switch.unfit(replace(tiny_llama.facts, devices=("cuda:0", "cpu"))) is None
    with pytest.raises(RecipeError, match="CUDA GPU"):
        apply_switch(tiny_llama, switch)
    assert tiny_llama.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", HERE)
def test_a_tree_of_guesses_is_verified_by_it(any_subject: Subject, name: Any) -> None:
    apply_switch(any_subject, AttentionKernel(name=name))
    check_tree(any_subject, "switches.draft_model.branches")


def test_a_batch_takes_no_chosen_backend() -> None:
    assert AttentionKernel(name="sdpa").alone() is None
    assert "batch" in str(AttentionKernel(name="sdpa_math").alone())
