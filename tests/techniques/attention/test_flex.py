"""Flex attention: compiled before the clock, the same numbers, and heard in every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_inductor_cache
from transformers import DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.attention import AttentionKernel
from backend.techniques.base import Run, Subject
from backend.techniques.kernels import listen
from backend.techniques.registry import apply_switch, read_back

FLEX = AttentionKernel(name="flex")


@torch.inference_mode()
def test_prompt_and_steps_are_the_same_and_are_heard(build: Callable[..., Subject]) -> None:
    subject = build("gqa", num_hidden_layers=1)
    ids = torch.tensor([subject.sample_ids])
    expected = subject.model(input_ids=ids, use_cache=False).logits[0]
    apply_switch(subject, FLEX)
    cache, rows = DynamicCache(config=subject.model.config), []
    for start, end in ((0, 30), *((place, place + 1) for place in range(30, 40))):
        rows.append(subject.model(input_ids=ids[:, start:end], cache=cache, use_cache=True).logits[0])
    torch.testing.assert_close(torch.cat(rows), expected[:40], atol=1e-4, rtol=1e-4)
    heard = listen(lambda: subject.model(input_ids=ids[:, 40:41], cache=cache, use_cache=True))
    assert heard.kernels == {"flex": 1}
    run = Run("DynamicCache", (), (), 0, decode_kernels=heard.kernels, prefill_kernels=heard.kernels)
    assert read_back(replace(subject, run=run), FLEX).took_effect


def test_a_failing_compiler_is_a_card(tiny_llama: Subject) -> None:
    torch.compiler.reset()
    broken = inductor.patch({"cpp.cxx": ("no-such-compiler",)})
    with fresh_inductor_cache(), broken, pytest.raises(RecipeError, match="compiled here"):
        apply_switch(tiny_llama, FLEX)
    assert tiny_llama.model.config._attn_implementation == "sdpa"
    torch.compiler.reset()
