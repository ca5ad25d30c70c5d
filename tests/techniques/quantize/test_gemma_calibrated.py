"""Calibrated 4 bit on a real model: what it buys over rounding to nearest at the same group size and speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.catalog import resolve
from backend.engine.calibration import text_reader
from backend.engine.load import load
from backend.engine.text import encode
from backend.recipe.switch import read_switch
from backend.techniques.base import Effect, Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.registry import apply_switch, read_back
from backend.texts import reference_english

pytestmark = [pytest.mark.real, pytest.mark.long]

SCORED = 4096  # characters of English, on which nothing was calibrated
TOKENS = 256
LAYERS = 4  # the model's first ones and its head, to take less time; docs/quantization.md has all 18

Scored = Callable[..., tuple[float, int, Effect]]


def log_probabilities(subject: Subject, ids: list[int]) -> Tensor:
    """(T, V), T tokens in windows of 128, which leave nothing to do for a sliding window."""
    with torch.inference_mode():
        windows = [torch.tensor([ids[at : at + 128]]) for at in range(0, len(ids), 128)]
        rows = [subject.model(input_ids=window, use_cache=False).logits[0].float() for window in windows]
    return torch.cat(rows).log_softmax(-1)


def shortened(subject: Subject, ids: list[int]) -> Subject:
    """The same weights with the last layers gone."""
    subject.sample_ids = ids
    apply_switch(subject, read_switch("drop_layers", {"keep": f"0-{LAYERS - 1}"}))
    return subject


@pytest.fixture(scope="module")
def scored(gemma_folder: Path) -> Scored:
    """Loads Gemma, applies a switch, and gives its mean KLD to fp32, its bytes, and its receipt."""
    ref = resolve(str(gemma_folder))
    first = load(ref, device="cpu")
    ids = encode(first, reference_english()[:SCORED])[:TOKENS]
    reference = log_probabilities(shortened(first, ids), ids)

    def change(kind: str, **fields: Any) -> tuple[float, int, Effect]:
        subject, switch = shortened(load(ref, device="cpu"), ids), read_switch(kind, fields)
        subject.read_text = text_reader(subject, ref, SCORED)
        apply_switch(subject, switch)
        ours = log_probabilities(subject, ids)
        kld = (reference.exp() * (reference - ours)).sum(-1).mean().item()
        return kld, weight_bytes(subject.model), read_back(subject, switch)

    return change


@pytest.mark.timeout(900)
def test_the_best_of_three_has_at_most_half_the_divergence_of_rounding_to_nearest(scored: Scored) -> None:
    nearest, size, _ = scored("int4_weight_only")
    found = {"gptq": scored("gptq", tokens=512), "awq": scored("awq", tokens=256), "hqq": scored("hqq")}
    assert {held for _, held, _ in found.values()} == {size}
    for kind, (kld, _, effect) in found.items():
        assert effect.took_effect, effect.summary
        assert kld < nearest, kind
    assert min(kld for kld, _, _ in found.values()) <= 0.5 * nearest
