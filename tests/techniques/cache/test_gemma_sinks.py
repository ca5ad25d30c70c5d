"""Windows on a real model: it rests on its first token, so a window loses much with that and little beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.catalog import resolve
from backend.engine.contexts import empty
from backend.engine.load import load
from backend.engine.quality import compare
from backend.engine.text import encode
from backend.recipe.recipe import Recipe
from backend.recipe.switches.cache import WindowCache
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import reference_english

pytestmark = pytest.mark.real

PROMPT, SCORED = 96, 24  # tokens


@torch.inference_mode()
def follows(subject: Subject, ids: list[int], switches: dict[str, Any]) -> Tensor:
    """Logits (SCORED, V) after a prompt, one token a call."""
    cache = empty(subject, Recipe.read({"switches": switches}), len(ids))
    subject.model(input_ids=torch.tensor([ids[:PROMPT]]), cache=cache, use_cache=True, logits_to_keep=1)
    steps = (torch.tensor([[token]]) for token in ids[PROMPT:])
    return torch.cat([subject.model(input_ids=step, cache=cache, use_cache=True).logits[0] for step in steps]).float()


def test_sinks_mend_most_of_what_a_window_loses(gemma_folder: Path) -> None:
    subject = load(resolve(str(gemma_folder)), device="cpu")
    ids = encode(subject, reference_english()[:2048])[: PROMPT + SCORED]
    base = follows(subject, ids, {}).log_softmax(-1)

    def kld(**window: int) -> float:
        return sum(compare(base, follows(subject, ids, {"window_cache": window}), ids[PROMPT:])["kld"]) / SCORED

    plain, mended = kld(window=48), kld(window=48, sinks=4)
    assert plain > 0.1
    assert mended < 0.6 * plain
    asked = WindowCache(window=600, sinks=4)
    apply_switch(subject, asked)
    effect = read_back(subject, asked)
    assert effect.took_effect
    assert (effect.facts["sink_layers"], effect.facts["smallest_window"]) == (3, 512)
