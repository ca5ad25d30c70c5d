"""The losses by hand: divergences, hidden states, attention maps, sentence vectors, and which layer is whose."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from backend.engine.training.layermap import cut_map, even_map
from backend.engine.training.loss import attention_loss, embedding_loss, hidden_loss, soft_loss
from backend.recipe.base import RecipeError
from backend.recipe.losses import Losses
from backend.recipe.training import Training

P, Q = (0.75, 0.25), (0.5, 0.5)  # teacher, student


def logits(odds: tuple[float, ...]) -> Tensor:
    return torch.tensor([odds]).log()


def kl(of: tuple[float, ...], from_: tuple[float, ...]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(of, from_, strict=True))


def test_each_direction_of_the_divergence() -> None:
    mix = (0.3 * P[0] + 0.7 * Q[0], 0.3 * P[1] + 0.7 * Q[1])
    by_hand = {"forward": kl(P, Q), "reverse": kl(Q, P), "jsd": 0.3 * kl(P, mix) + 0.7 * kl(Q, mix)}
    for direction, value in by_hand.items():
        losses = Losses.read({"direction": direction, "beta": 0.3})
        assert soft_loss(logits(Q), logits(P), losses).item() == pytest.approx(value, rel=1e-5), direction
        assert soft_loss(logits(P), logits(P), losses).item() == pytest.approx(0.0, abs=1e-6)


def test_hidden_states_are_a_share_of_the_teachers_and_filling_is_left_out() -> None:
    teacher = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])  # mean square 2
    student = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # squares 1, 0, 0, 0
    assert hidden_loss(student, teacher, None, None).item() == pytest.approx(0.25 / 2)
    assert hidden_loss(torch.zeros_like(teacher), teacher, None, None).item() == pytest.approx(1.0)
    assert hidden_loss(student, teacher, torch.tensor([[0, 1]]), None).item() == 0.0
    assert hidden_loss(student, teacher, torch.tensor([[1, 0]]), None).item() == pytest.approx(0.5 / 2)


def test_a_projection_stands_between_two_widths() -> None:
    projection = nn.Linear(1, 2, bias=False)
    projection.weight = nn.Parameter(torch.tensor([[1.0], [3.0]]))
    student, teacher = torch.tensor([[[2.0]]]), torch.tensor([[[2.0, 4.0]]])  # 2, 6 against 2, 4
    found = hidden_loss(student, teacher, None, projection)
    assert found.item() == pytest.approx(2.0 / 10)
    found.backward()
    assert projection.weight.grad is not None
    assert projection.weight.grad[:, 0].tolist() == pytest.approx([0.0, 2 * 2 * 2 / 2 / 10])


def test_attention_maps_by_kl_and_by_squares() -> None:
    student = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])  # (B, heads, T, T), causal
    teacher = torch.tensor([[[[1.0, 0.0], [0.75, 0.25]]]])
    assert attention_loss(student, teacher, None, "kl").item() == pytest.approx(kl(P, Q) / 2, rel=1e-5)
    assert attention_loss(student, teacher, None, "mse").item() == pytest.approx(2 * 0.25**2 / 2)
    second = torch.tensor([[0, 1]])
    assert attention_loss(student, teacher, second, "kl").item() == pytest.approx(kl(P, Q), rel=1e-5)


def test_heads_of_another_number_are_averaged() -> None:
    one = torch.tensor([[[[0.5, 0.5]]]])
    two = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]]])  # mean .75, .25
    assert attention_loss(one, two, None, "kl").item() == pytest.approx(kl(P, Q), rel=1e-5)


def test_sentence_vectors() -> None:
    ours, theirs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert embedding_loss(ours, theirs, "cosine").item() == pytest.approx(0.5)
    assert embedding_loss(ours, theirs, "mse").item() == pytest.approx(1.0)  # 2 (1 - cosine)


def test_a_cut_student_bridges_what_was_dropped_and_attends_as_it_did() -> None:
    found = cut_map([0, 3, 6], 8)
    assert found.states == (2, 5, 7)
    assert found.maps == (0, 3, 6)
    whole = cut_map(range(4), 4)
    assert whole.states == whole.maps == (0, 1, 2, 3)


def test_others_are_spaced_evenly_and_the_last_is_the_last() -> None:
    assert even_map(4, 12).states == (2, 5, 8, 11)
    assert even_map(2, 3).states == (1, 2)
    assert even_map(1, 5).maps == (4,)
    assert even_map(6, 3).states == (0, 0, 1, 1, 1, 2)


def test_every_weight_zero_is_refused() -> None:
    with pytest.raises(RecipeError) as refused:
        Training.read({"name": "x", "losses": {"logits": 0.0}})
    assert refused.value.field == "losses"
    assert Losses(logits=0.0, hidden=1.0).taught
    assert not Losses(logits=0.0, labels=1.0).taught
