"""Zeros on a real model: what enters a weight matters, and its blocks hold half the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from backend.catalog import resolve
from backend.engine.calibration import text_reader
from backend.engine.load import load
from backend.engine.text import encode
from backend.recipe.recipe import Recipe
from backend.techniques.base import Effect
from backend.techniques.registry import apply_switch, read_back
from backend.texts import reference_english

pytestmark = pytest.mark.real

SCORED = 2048  # characters of English, on which nothing was calibrated
TOKENS = 256


def changed(folder: Path, switches: dict[str, Any]) -> tuple[float, list[Effect]]:
    """Nats a token of English after these switches, and what they did."""
    ref = resolve(str(folder))
    subject = load(ref, device="cpu")
    ids = encode(subject, reference_english()[:SCORED])[:TOKENS]
    subject.sample_ids, subject.read_text = ids, text_reader(subject, ref, SCORED)
    recipe = Recipe.read({"switches": switches})
    for switch in recipe.pipeline:
        apply_switch(subject, switch)
    with torch.inference_mode():
        rows = torch.tensor([ids])
        logits = subject.model(input_ids=rows[:, :-1], use_cache=False).logits[0].float()
    return float(F.cross_entropy(logits, rows[0, 1:])), [read_back(subject, switch) for switch in recipe.pipeline]


@pytest.mark.timeout(600)
def test_wanda_loses_far_less_than_magnitude_and_blocks_hold_half(gemma_folder: Path) -> None:
    plain, [zeros] = changed(gemma_folder, {"magnitude": {"pattern": "64x1"}})
    blocks = {"wanda": {"tokens": 256, "pattern": "64x1"}, "sparse_kernels": {"gain": 0.0}}
    wanda, [chosen, kernels] = changed(gemma_folder, blocks)
    assert zeros.took_effect
    assert chosen.took_effect
    assert wanda < plain - 1, (wanda, plain)
    assert kernels.facts["classes"] == "BlockLinear (blocks) x 126"
    assert kernels.facts["sparse_bytes"] / kernels.facts["dense_bytes"] == pytest.approx(0.516, abs=0.01)
