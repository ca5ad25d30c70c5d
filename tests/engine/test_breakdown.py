"""Where a step's time goes: parts of a live tiny model whose cost the test itself has set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from backend.engine.breakdown import breakdown, decode_parts, plain_step_s, prefill_parts
from backend.engine.partclock import PARTS, PartClock, Place, places
from backend.explain import explain
from backend.recipe.recipe import Recipe
from backend.techniques.registry import apply_switch

pytestmark = pytest.mark.alone

Make = Callable[..., Any]
WAIT_S = 0.004


def hold_up(module: nn.Module) -> None:
    """Make a module wait where it works, so that its time is known."""
    forward = module.forward

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(WAIT_S)
        return forward(*args, **kwargs)

    module.forward = slow  # type: ignore[method-assign]


def test_time_belongs_to_the_innermost_place() -> None:
    clock = PartClock()
    outer, inner = Place("attention", False, 0), Place("attention", True, 0)
    clock.start()
    clock.enter(outer)
    time.sleep(0.01)
    clock.enter(inner)
    time.sleep(0.02)
    clock.leave()
    clock.leave()
    spent = clock.stop()
    assert 0.01 <= spent[outer] < 0.018
    assert 0.02 <= spent[inner] < 0.03


def test_what_was_told_does_not_grow_afterwards() -> None:
    clock, inner = PartClock(), Place("cache", False, 0)
    clock.start()
    told = clock.stop()
    before = dict(told)
    clock.timed(lambda: time.sleep(0.01), inner)()
    assert dict(told) == before


def test_every_part_of_a_decoder_is_known(subject_of: Make) -> None:
    subject = subject_of()
    found = {place for _, place in places(subject)}
    assert {place.part for place in found} == {"embed", "attention", "feed_forward", "norm", "head", "python"}
    assert {place.layer for place in found if place.linear and place.part == "attention"} == {0, 1}
    assert {place.part for place in found} <= set(PARTS)


@pytest.mark.parametrize(("path", "part"), [("mlp", "feed_forward"), ("self_attn", "attention")])
def test_a_part_that_waits_is_the_one_that_takes_longest(subject_of: Make, prompt: Make, path: str, part: str) -> None:
    subject = subject_of()
    for layer in subject.model.model.layers:
        hold_up(layer.get_submodule(path))
    told = decode_parts(subject, prompt(12))
    assert max(told["parts"], key=told["parts"].get) == part
    assert told["parts"][part] >= 2 * WAIT_S
    assert told["linear"].get(part, 0.0) < WAIT_S  # it waits outside of its matrices


def test_the_parts_sum_to_the_step(subject_of: Make, prompt: Make) -> None:
    subject = subject_of()
    for layer in subject.model.model.layers:
        hold_up(layer.mlp)
    for told in (decode_parts(subject, prompt(12)), prefill_parts(subject, prompt(12))):
        assert sum(told["parts"].values()) == pytest.approx(told["hooked_step_s"])
        assert told["hooked_step_s"] == pytest.approx(told["step_s"], rel=0.15)


def test_what_hooks_cost_is_some_microseconds_and_is_taken_out(subject_of: Make, prompt: Make) -> None:
    subject = subject_of()
    assert 0 <= decode_parts(subject, prompt(12))["hook_s"] < 1e-3
    clock = PartClock()
    with clock.hooked(subject):
        clock.start()
        subject.model(input_ids=torch.tensor([prompt(4)]))
        clock.stop()
    # Every hooked call has two ends: the place that it enters, and the one around it.
    assert sum(clock.ends.values()) == 2 * sum(1 for _ in places(subject))


def test_hooks_are_gone_afterwards_and_the_text_is_the_same(subject_of: Make, prompt: Make) -> None:
    subject = subject_of()
    ids = torch.tensor([prompt(12)])
    before = subject.model(input_ids=ids).logits
    breakdown(subject, prompt(12))
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in subject.model.modules())
    assert hooks == 0
    assert torch.equal(subject.model(input_ids=ids).logits, before)


def test_what_must_move_and_be_computed_by_hand(subject_of: Make, prompt: Make) -> None:
    told = breakdown(subject_of(), prompt(12))
    body = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)
    head = 64 * 64
    assert told["decode"]["weights_bytes"] == 4 * (body + head)
    assert told["decode"]["head_bytes"] == 4 * head
    assert told["decode"]["flops"] == 2 * (body + head)
    assert told["prefill"]["flops"] == 2 * (12 * body + head)  # the head reads the last token only
    assert told["prefill"]["tokens"] == 12
    assert told["decode"]["linear_calls"] >= 15  # seven matrices in each of two layers, and the head
    assert told["bandwidth_bytes_per_s"] > 1e8
    assert told["flops_per_s"] > 1e8
    assert 1e-7 < told["call_s"] < 1e-2


def test_packed_matrices_are_fewer_bytes_to_read(subject_of: Make, prompt: Make) -> None:
    plain, packed = subject_of(), subject_of()
    for switch in Recipe.read({"switches": {"int8_weight_only": {}}}).pipeline:
        apply_switch(packed, switch)
    assert decode_parts(packed, prompt(8))["weights_bytes"] < 0.5 * decode_parts(plain, prompt(8))["weights_bytes"]


def test_one_slow_layer_is_found_and_is_the_reason(subject_of: Make, prompt: Make) -> None:
    subject = subject_of(num_hidden_layers=4)
    hold_up(subject.model.model.layers[2])
    found = explain(breakdown(subject, prompt(12)), "decode", None)
    assert found is not None
    assert found.reason == "slow layer"
    assert found.evidence["slowest_layer"] == 2


def test_a_compiled_forward_is_one_part(subject_of: Make, prompt: Make) -> None:
    subject = subject_of()
    subject.plan.forward = lambda **inputs: subject.model(**inputs)
    told = decode_parts(subject, prompt(12))
    assert told["parts"]["compiled"] > 0


def test_a_plain_step_leaves_the_proposer_out(subject_of: Make, with_plan: Make, scripted: Make, prompt: Make) -> None:
    proposer = scripted([])
    subject = with_plan(subject_of(), proposer=proposer)
    assert plain_step_s(subject, prompt(12)) > 0
    assert proposer.heard == []
