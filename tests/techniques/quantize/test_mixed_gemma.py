"""Mixed precision on a real model: sensitivities, the allocation from them, and what it really loses on other text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backend.allocation import Frontier, frontier, units_of
from backend.catalog import model_facts, resolve
from backend.engine.calibration import text_reader
from backend.engine.inspect.sensitivity import TOKENS, Sensitivity
from backend.engine.load import load
from backend.engine.text import encode
from backend.modelref import ModelRef
from backend.packing import unit_bytes
from backend.parts import weight_parts
from backend.recipe.race import all_presets
from backend.recipe.switch import Switch, read_switch
from backend.recipe.switches.mixed import MixedPrecision, write_levels
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text

pytestmark = pytest.mark.real

BUDGET = 6.0
BEHIND = 20_000  # characters: what is scored begins behind what the sensitivities were measured on
SCORED = 256
UNSCORED = 40_000  # characters: likely tokens are found on what comes behind the text that is scored


@dataclass
class Measured:
    """One real model at one switch."""

    effect: Effect
    kld: float


@dataclass
class Ground:
    """Gemma as it is: its frontier, and its log-probabilities (T, V) on the text that is scored."""

    ref: ModelRef
    front: Frontier
    ids: list[int]
    reference: Tensor


@pytest.fixture(scope="module")
def ground(gemma_folder: Path) -> Ground:
    ref = resolve(str(gemma_folder))
    subject, text = load(ref), held_out_text(ref).text
    subject.read_text = text_reader(subject, ref, UNSCORED)
    scored = Sensitivity(subject, encode(subject, text[: 16 * TOKENS]))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for scheme, unit in scored.pairs:
        if scheme != "int8_dynamic":
            found.setdefault(scheme, {})[unit] = scored.measure(scheme, unit)
    facts = model_facts(ref)
    front = frontier(units_of(found, unit_bytes(weight_parts(facts), MixedPrecision(), 4)))
    ids = encode(subject, text[BEHIND : BEHIND + 16 * SCORED])[: SCORED + 1]
    return Ground(ref, front, ids, log_probabilities(subject, ids))


@torch.inference_mode()
def log_probabilities(subject: Subject, ids: list[int]) -> Tensor:
    logits: Tensor = subject.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return logits.float().log_softmax(-1)


def measure(ground: Ground, switch: Switch) -> Measured:
    subject = load(ground.ref)
    subject.read_text = text_reader(subject, ground.ref, UNSCORED)
    apply_switch(subject, switch)
    got = log_probabilities(subject, ground.ids)
    rows = zip(ground.reference.split(32), got.split(32), strict=True)  # no third (T, V)
    kld = sum((want.exp() * (want - have)).sum().item() for want, have in rows) / SCORED
    return Measured(read_back(subject, switch), kld)


def test_six_bits_are_smaller_than_int8_and_lose_what_was_predicted(ground: Ground) -> None:
    """Six bits under twice int8's KLD take a split head: one that is int4 throughout costs more than that alone."""
    best, eights = ground.front.at(BUDGET), ground.front.uniform("int8")
    assert eights is not None
    mixed = MixedPrecision.read({"levels": write_levels(dict(best.levels))})
    mix, int8, int4 = (
        measure(ground, one)
        for one in (mixed, read_switch("int8_weight_only", {}), read_switch("int4_weight_only", {}))
    )
    assert mix.effect.facts["levels"] == mixed.levels
    assert mix.effect.facts["matrices_not_as_asked"] == 0
    assert mix.effect.facts["bits_per_weight"] == pytest.approx(best.bits_per_weight, abs=0.001)
    assert mix.effect.facts["bits_per_weight"] <= BUDGET < 0.76 * int8.effect.facts["bits_per_weight"]
    assert mix.effect.facts["bits_per_weight"] < 0.9 * int4.effect.facts["bits_per_weight"]
    assert mix.kld < 2 * int8.kld
    assert 0.5 * best.kld < mix.kld < 2 * best.kld  # added up, on other text
    assert int8.kld == pytest.approx(eights.kld, rel=0.4)
    assert mix.kld < 0.1 * int4.kld
    head = next(unit for unit in ground.front.units if unit.name == "head")
    fours, split = head.choice("int4"), head.choice("split")
    assert fours is not None
    assert split is not None
    assert fours.kld > 2 * int8.kld > split.kld


def test_the_preset_holds_what_this_method_finds(ground: Ground) -> None:
    switch = all_presets()["gemma-mixed-precision"].race.variants[0].get("mixed_precision")
    assert isinstance(switch, MixedPrecision)
    preset, best = ground.front.of(switch.by_unit(18)), ground.front.at(BUDGET)
    assert preset.bits_per_weight <= BUDGET
    assert preset.kld < 1.1 * best.kld
