"""What holds for every switch that is registered, today's and tomorrow's: no list of names stands here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from transformers import DynamicCache

from backend.recipe.base import RecipeError
from backend.recipe.switch import Group, Switch, all_switches
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import all_techniques, apply_switch, read_back

KINDS = sorted(all_switches())
SMALL = {"window": 12, "model": "tiny-draft"}
SMALLER = {"merge_experts": {"count": 4}, "trained": {"name": "tiny-trained"}}
CHANGES_FIRST = (Group.PRUNING, Group.EXPERTS, Group.ATTENTION)  # before weights are packed
SLOW_OR_COVERED = {
    "compile": "compiling takes half a minute; test_compile.py does it",
    "sparse_kernels": "without zeros of another switch it has nothing to do; test_sparse_kernels.py gives it some",
}


def example(kind: str) -> Switch:
    """The switch with its defaults, made small enough for a tiny model."""
    cls, small = all_switches()[kind], SMALL
    return cls.read({name: value for name, value in small.items() if name in cls.model_fields} | SMALLER.get(kind, {}))


def home_of(kind: str, build: Callable[..., Subject]) -> str:
    """The shape on which a switch must work: a plain Llama, or a mixture of experts where it means nothing to that."""
    return "moe" if all_switches()[kind].foreign(build("llama").facts) else "llama"


def changed(kind: str, subject: Subject, build: Callable[..., Subject]) -> tuple[Switch, Effect]:
    """Apply the example and read it back, or skip where this machine or model cannot have it."""
    if kind in SLOW_OR_COVERED:
        pytest.skip(SLOW_OR_COVERED[kind])
    switch = example(kind)
    subject.load_other = lambda name: build("llama", num_hidden_layers=1)
    if reason := switch.unfit(subject.facts):
        pytest.skip(f"not for this model on this machine: {reason}")
    apply_switch(subject, switch)
    return switch, read_back(subject, switch)


@torch.inference_mode()
def next_logits(subject: Subject) -> torch.Tensor:
    """Logits (3, V) of three tokens decoded after a prompt of 20, in the caches and calls of the plan."""
    make, forward = subject.plan.make_cache, subject.plan.forward or subject.model
    cache = make(24) if make else DynamicCache(config=subject.model.config)
    ids = torch.tensor([subject.sample_ids[:20]], device=subject.device)
    rows = [subject.model(input_ids=ids, cache=cache, use_cache=True).logits[:, -1]]
    for _ in range(3):
        rows.append(forward(input_ids=rows[-1].argmax(-1, keepdim=True), cache=cache, use_cache=True).logits[:, -1])
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_it_is(kind: str) -> None:
    cls = all_switches()[kind]
    assert cls.kind == kind
    assert cls.title
    assert cls.summary.endswith(".")
    assert isinstance(cls.group, Group)
    assert isinstance(cls.order, int)
    assert example(kind).label
    for name, field in cls.model_fields.items():
        assert field.description, f"{kind}.{name} has no description for its tooltip"


@pytest.mark.parametrize("kind", KINDS)
def test_has_a_technique(kind: str) -> None:
    assert all_switches()[kind] in all_techniques()


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("kind", KINDS)
def test_takes_effect_and_still_generates(kind: str, build: Callable[..., Subject]) -> None:
    subject = build(home_of(kind, build))
    switch, effect = changed(kind, subject, build)
    assert effect.took_effect, effect.summary
    assert effect.kind == kind
    assert effect.summary
    assert effect.simulated == switch.simulates
    for value in effect.facts.values():
        assert isinstance(value, str | int | float | bool | None), f"{value!r} is no JSON scalar"
    json.dumps(effect.as_dict(), allow_nan=False)
    assert next_logits(subject).isfinite().all()


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("shape", ["gqa", "gemma", "moe"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_shapes_take_it_or_get_a_card(kind: str, shape: str, build: Callable[..., Subject]) -> None:
    subject = build(shape)
    try:
        _, effect = changed(kind, subject, build)
    except RecipeError as refusal:
        pytest.skip(f"refused with a card: {refusal.card()['remedy']}")
    assert effect.took_effect, effect.summary
    assert next_logits(subject).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_choices_are_all_readable(kind: str) -> None:
    cls = all_switches()[kind]
    for name, field in cls.model_fields.items():
        for choice in get_args(field.annotation):
            assert getattr(cls.read({name: choice}), name) == choice


@pytest.mark.parametrize("kind", [k for k, c in all_switches().items() if c.group in CHANGES_FIRST])
def test_stays_readable_after_the_weights_were_packed(kind: str, build: Callable[..., Subject]) -> None:
    subject, first, second = build(home_of(kind, build)), example(kind), example("int8_weight_only")
    for switch in sorted((first, second), key=lambda switch: switch.order):
        apply_switch(subject, switch)
    assert read_back(subject, first).took_effect
    assert read_back(subject, second).took_effect
    assert next_logits(subject).isfinite().all()
