"""Quantization-aware training: what it computes with is what the conversion gives, and it learns so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backend.recipe.methods.qat import Qat
from backend.recipe.switch import read_switch
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.techniques.quantize.groups import FOUR_BITS, Grid
from backend.techniques.quantize.int4_linear import Int4Linear, quantize_groups
from backend.techniques.registry import apply_switch, read_back
from backend.techniques.rounding import by_groups
from backend.techniques.train.qat import QuantizationAware

Run = Callable[[Subject], Tensor]
SCHEMES = [
    {"bits": 4},
    {"bits": 4, "symmetric": True, "head": "int4"},
    {"bits": 4, "group_size": 64, "head": "keep"},
    {"bits": 3, "head": "int4"},
    {"bits": 2},
    {"bits": 2, "symmetric": True, "head": "keep"},
    {"bits": 8},
    {"bits": 8, "head": "keep"},
]
# Of the logits' norm: the int4 kernel multiplies bf16 activations, in the head (int8, more than 16 rows) fp32.
KERNEL = 0.02


def pupil(subject: Subject, fields: dict[str, Any], student: dict[str, Any] | None = None) -> tuple[Pupil, Qat]:
    asked = Training.read({"name": "x", "student": {"switches": student or {}}, "methods": {"qat": fields}})
    method = asked.methods["qat"]
    assert isinstance(method, Qat)
    return Pupil(subject, None, asked), method


def convert(subject: Subject, method: Qat) -> None:
    for kind, fields in method.conversion.items():
        switch = read_switch(kind, fields)
        apply_switch(subject, switch)
        assert read_back(subject, switch).took_effect


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def learn(subject: Subject, steps: int, rate: float = 3e-3) -> list[float]:
    """Losses of so many steps on the subject's own tokens."""
    ids = torch.tensor([subject.sample_ids])
    subject.model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(subject.model.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss = subject.model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    subject.model.eval().requires_grad_(False)
    return losses


@pytest.mark.parametrize("fields", SCHEMES, ids=str)
def test_what_training_saw_is_what_the_conversion_gives(
    any_subject: Subject, logits: Run, fields: dict[str, Any]
) -> None:
    """Before the first step, which is post-training quantization of the same bits, and after the last one."""
    before = Subject(copy.deepcopy(any_subject.model), None, any_subject.facts, any_subject.device)
    before.sample_ids = any_subject.sample_ids
    student, method = pupil(any_subject, fields)
    coach = QuantizationAware()
    coach.begin(student, method)
    seen = logits(any_subject)
    convert(before, method)
    assert off(seen, logits(before)) < KERNEL

    learn(any_subject, 3)
    seen = logits(any_subject)
    assert off(seen, logits(before)) > 2 * KERNEL  # it has learned something
    coach.finish(student, method)
    plain = {type(layer) for layer in any_subject.linears().values()}
    assert plain == {nn.Linear}
    convert(any_subject, method)
    assert off(logits(any_subject), seen) < KERNEL


@pytest.mark.parametrize("grid", [FOUR_BITS, Grid(3), Grid(2), Grid(4, True), Grid(2, True)])
def test_rounded_weights_are_the_packed_ones(grid: Grid) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 48, bias=False)
    with torch.no_grad():
        layer.weight[0, :32] = 0
        layer.weight[1, :32] = 0.3  # a group without a range
        layer.weight[2, 32:64] *= 1e-6
    rounded = by_groups(32, grid)(layer.weight)
    assert torch.equal(rounded, quantize_groups(layer.weight.detach(), 32, grid).weight())
    packed = Int4Linear(layer, 32, quantize_groups(layer.weight.detach(), 32, grid))
    with torch.inference_mode():
        assert torch.equal(packed.product(torch.eye(96)).float().T, rounded.bfloat16().float())
