"""A technique that does nothing is caught by its receipt, whichever it is: no list of names stands here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from backend.engine.decode import Decoder
from backend.engine.receipt import receipt
from backend.engine.witness import witness
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Switch, all_switches
from backend.techniques.base import DecodePlan, Effect, Subject
from backend.techniques.registry import all_techniques, apply_switch, read_back

KINDS = sorted(all_switches())
PROMPT = 12
SEEN_ELSEWHERE = {
    "compile": "compiling takes half a minute; test_compile.py sees it take effect",
    "sparse_kernels": "without zeros of another switch it has nothing to do; test_sparse_kernels.py gives it some",
    "threads": "operations of a tiny model are too small to share; test_threads.py sees two threads",
}

Build = Callable[..., Subject]


def example(kind: str) -> Switch:
    """The switch with its defaults, small enough for a tiny model, and asking for what is not there already."""
    cls = all_switches()[kind]
    asked = {"window": 12, "model": "tiny-draft"}
    if kind == "threads":
        asked["count"] = torch.get_num_threads() + 1
    if kind == "merge_experts":
        asked["count"] = 4
    return cls.read({name: value for name, value in asked.items() if name in cls.model_fields})


def sabotaged(switch: Switch) -> Any:
    """The switch's technique with an `apply` that does nothing."""
    real = type(all_techniques()[type(switch)])
    return type(f"Sabotaged{real.__name__}", (real,), {"apply": lambda self, subject, switch: None})()


def ready(kind: str, build: Build, shape: str) -> tuple[Subject, Switch]:
    """A subject that could have the switch, or skip with the reason why not."""
    subject, switch = build(shape), example(kind)
    subject.load_other = lambda name: build("llama", num_hidden_layers=1)
    if reason := switch.unfit(subject.facts):
        pytest.skip(f"cannot run here: {reason}")
    if kind == "device" and {switch.name} == {str(subject.device)}:  # type: ignore[attr-defined]
        pytest.skip("this machine has the one device on which the model lies already; see the test on 'meta' below")
    return subject, switch


def effect_in_receipt(subject: Subject, switch: Switch) -> dict[str, Any]:
    """Run a few tokens as a lane does and take the switch's effect from the receipt."""
    decoder = Decoder(subject, Sampling(), seed=1)
    prompt = subject.sample_ids[:PROMPT]
    decoder.start(prompt, room=8)
    for _ in range(4):
        decoder.step()
    subject.run = witness(subject, decoder, prompt)
    facts = receipt(subject, Recipe(switches={switch.kind: switch}))
    (effect,) = facts["effects"]
    assert effect["kind"] == switch.kind
    return effect


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("shape", ["llama", "gemma", "moe"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_technique_that_does_nothing_is_caught(
    kind: str, shape: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, switch = ready(kind, build, shape)
    monkeypatch.setitem(all_techniques(), type(switch), sabotaged(switch))
    apply_switch(subject, switch)
    effect = effect_in_receipt(subject, switch)
    assert effect["took_effect"] is False, effect
    assert effect["summary"]


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("kind", KINDS)
def test_the_technique_itself_is_seen(kind: str, build: Build) -> None:
    if kind in SEEN_ELSEWHERE:
        pytest.skip(SEEN_ELSEWHERE[kind])
    shape = "moe" if all_switches()[kind].foreign(build("llama").facts) else "llama"
    subject, switch = ready(kind, build, shape)
    apply_switch(subject, switch)
    effect = effect_in_receipt(subject, switch)
    assert effect["took_effect"] is True, effect


@pytest.mark.parametrize("kind", ["static_cache", "window_cache", "quantized_cache", "prompt_lookup", "draft_model"])
def test_a_run_that_ignores_the_plan_is_caught(kind: str, build: Build) -> None:
    """The technique did its part and the engine did not: only the run can tell."""
    subject, switch = ready(kind, build, "llama")
    apply_switch(subject, switch)
    deaf = replace(subject, plan=DecodePlan())
    decoder = Decoder(deaf, Sampling(), seed=1)
    decoder.start(subject.sample_ids[:PROMPT], room=8)
    subject.run = witness(deaf, decoder, subject.sample_ids[:PROMPT])
    effect = read_back(subject, switch)
    assert not effect.took_effect
    assert "run" in effect.summary or "not taken" in effect.summary


def test_a_model_left_on_another_device_is_caught(tiny_llama: Subject) -> None:
    switch = all_switches()["device"].read({"name": "cpu"})
    tiny_llama.model.to("meta")
    sabotaged(switch).apply(tiny_llama, switch)
    effect: Effect = sabotaged(switch).read_back(tiny_llama, switch)
    assert not effect.took_effect
    assert "meta" in effect.summary
