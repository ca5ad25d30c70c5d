"""Compilation: the same tokens, no compiling while the text grows, and eager where the compiler fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_inductor_cache
from transformers import DynamicCache

from backend.recipe.switches.runtime import Compile
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back
from backend.techniques.runtime.compile import warm_lengths

Build = Callable[..., Subject]


@torch.inference_mode()
def decode(subject: Subject, tokens: int) -> Tensor:
    """Logits (T, V) after a prompt of 10 tokens, step by step through the plan."""
    ids, cache = torch.tensor([subject.sample_ids]), DynamicCache(config=subject.model.config)
    subject.model(input_ids=ids[:, :10], cache=cache, use_cache=True)
    step = subject.plan.forward or subject.model
    calls = [step(input_ids=ids[:, i : i + 1], cache=cache, use_cache=True) for i in range(10, 10 + tokens)]
    return torch.cat([call.logits[0] for call in calls])


def test_compiled_steps_equal_eager_ones_and_compile_no_more(build: Build) -> None:
    subject = build("llama", num_hidden_layers=1)
    eager, heard = decode(subject, 40), []
    subject.progress = lambda share, text: heard.append((share, text))
    apply_switch(subject, Compile())
    effect = read_back(subject, Compile())
    assert effect.took_effect, effect.summary
    assert effect.facts["graph_breaks"] == 0
    graphs = counters["stats"]["unique_graphs"]
    torch.testing.assert_close(decode(subject, 40), eager, atol=1e-4, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == graphs
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)
    assert heard[-1] == (1.0, "compiled")


def test_a_failing_compiler_leaves_eager_and_says_why(build: Build) -> None:
    subject = build("llama", num_hidden_layers=1)
    torch.compiler.reset()
    with fresh_inductor_cache(), inductor.patch({"cpp.cxx": ("no-such-compiler",)}):
        apply_switch(subject, Compile())
    assert subject.plan.forward is None
    effect = read_back(subject, Compile())
    assert not effect.took_effect
    assert effect.facts["reason"]
    assert effect.summary.startswith("eager: ")


def test_nothing_applied_is_seen(tiny_llama: Subject) -> None:
    assert not read_back(tiny_llama, Compile()).took_effect


@pytest.mark.parametrize(("longest", "expected"), [(15, [8]), (60, [8, 14, 18]), (None, [8, 14, 18])])
def test_windows_are_crossed_in_advance_where_requests_reach_them(
    tiny_gemma: Subject, longest: int | None, expected: list[int]
) -> None:
    tiny_gemma.longest = longest
    assert warm_lengths(tiny_gemma) == expected
