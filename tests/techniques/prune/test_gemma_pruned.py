"""Structured pruning on a real model: one KV head, sliding layers, norms after attention and feed-forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.catalog import resolve
from backend.engine.load import load
from backend.engine.text import encode
from backend.recipe.switch import Switch
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons
from backend.techniques.anatomy import attentions, mlps
from backend.techniques.base import Subject
from backend.techniques.prune.activity import Part
from backend.techniques.prune.heads import part_of as heads_of
from backend.techniques.prune.importance import importance
from backend.techniques.prune.neurons import losses
from backend.techniques.prune.neurons import part_of as neurons_of
from backend.techniques.prune.select import lost_globally, stay
from backend.techniques.registry import apply_switch, read_back

pytestmark = pytest.mark.real

QUERY = ("q_proj.weight", "o_proj.weight")
UP = ("up_proj.weight", "down_proj.weight")
TEXT = "The history of the lighthouse begins on a small island where a family of fishermen lived through many winters."


def logps(subject: Subject) -> Tensor:
    with torch.inference_mode():
        ids = torch.tensor([subject.sample_ids])
        return torch.log_softmax(subject.model(input_ids=ids, use_cache=False).logits[0], dim=-1)


def silence(parts: list[Part], scores: list[Tensor], lost: list[int]) -> list[Any]:
    """Let nothing of what would go enter its matrix; the hooks that do it."""

    def masked(part: Part, score: Tensor, count: int) -> Any:
        mask = torch.zeros(part.units)
        mask[stay(score, count)] = 1
        whole = mask.repeat_interleave(part.entered.in_features // part.units)
        return part.entered.register_forward_pre_hook(lambda module, args: (args[0] * whole,))

    return [masked(*one) for one in zip(parts, scores, lost, strict=True)]


def test_heads_and_neurons_of_all_layers_together_equal_the_masked_model(gemma_folder: Path) -> None:
    subject = load(resolve(str(gemma_folder)), device="cpu")
    subject.sample_ids = encode(subject, TEXT)
    heads, neurons = PruneHeads(ratio=0.3, scope="global"), PruneNeurons(ratio=0.3, scope="global")
    before = {leaves: _count(subject, leaves) for leaves in (QUERY, UP)}
    parts = [heads_of(block) for block in attentions(subject.model, "x")]
    scores, _ = importance(subject, parts, heads.kind, heads.by)
    hooks = silence(parts, scores, lost_globally(scores, heads.lost_of_all([4] * 18)))
    parts = [neurons_of(block) for block in mlps(subject.model, "x")]
    scores, _ = importance(subject, parts, neurons.kind, neurons.by)  # of the model without those heads
    hooks += silence(parts, scores, losses(scores, neurons))
    masked = logps(subject)
    for hook in hooks:
        hook.remove()
    apply_switch(subject, heads)
    apply_switch(subject, neurons)
    torch.testing.assert_close(logps(subject), masked, atol=1e-4, rtol=1e-4)
    for leaves, count in before.items():
        assert _count(subject, leaves) / count == pytest.approx(0.7, abs=0.01)
    for switch in (heads, neurons):
        assert "differ by layer" in _read(subject, switch)["saved_config"]


def _read(subject: Subject, switch: Switch) -> dict[str, Any]:
    effect = read_back(subject, switch)
    assert effect.took_effect
    return effect.facts


def _count(subject: Subject, leaves: tuple[str, ...]) -> int:
    return sum(p.numel() for name, p in subject.model.named_parameters() if name.endswith(leaves))
