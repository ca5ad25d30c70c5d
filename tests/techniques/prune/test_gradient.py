"""Gradients against finite differences of the loss, and curvature against the one that is known by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.base import CalibrationText, Subject, decoder_layers
from backend.techniques.prune.gradients import WINDOW, importances

Build = Callable[..., Subject]


def text_of(subject: Subject, windows: int = 2) -> CalibrationText:
    assert subject.read_text
    return subject.read_text("", windows * WINDOW)


def layer_of(subject: Subject) -> nn.Linear:
    found = decoder_layers(subject.model)[1].mlp.up_proj
    assert isinstance(found, nn.Linear)
    return found


@torch.no_grad()
def nats(subject: Subject, text: CalibrationText) -> float:
    """The loss as the method defines it: nats a token, window by window."""
    total, tokens = 0.0, 0
    for start in range(0, len(text.ids), WINDOW):
        ids = torch.tensor([text.ids[start : start + WINDOW]])
        logits = subject.model(input_ids=ids[:, :-1], use_cache=False).logits[0]
        total += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    return total / tokens


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_taylor_is_the_finite_difference_of_the_loss(build: Build, shape: str) -> None:
    subject = build(shape)
    subject.model.double().requires_grad_(False)
    layer, text = layer_of(subject), text_of(subject)
    found = importances(subject, "taylor", text, {"up": layer})["up"]
    for index in found.flatten().topk(3).indices.tolist():  # norms compute in float32: smaller ones drown in roundings
        place = divmod(index, layer.in_features)
        weight, losses = float(layer.weight[place]), []
        for factor in (1.05, 0.95):  # d loss / d factor at 1 is g w
            layer.weight.data[place] = factor * weight
            losses.append(nats(subject, text))
        layer.weight.data[place] = weight
        assert abs(losses[0] - losses[1]) / 0.1 == pytest.approx(float(found[place]), rel=0.01)


def test_fisher_is_the_mean_square_over_windows(build: Build) -> None:
    subject = build("llama")
    subject.model.requires_grad_(False)
    layer, text = layer_of(subject), text_of(subject)
    found = importances(subject, "fisher", text, {"up": layer})["up"]
    each = [
        importances(subject, "taylor", CalibrationText(text.ids[start : start + WINDOW], ""), {"up": layer})["up"]
        for start in (0, WINDOW)
    ]
    torch.testing.assert_close(found, (each[0].square() + each[1].square()) / 2, rtol=1e-4, atol=1e-12)


class OneMatrix(nn.Module):
    """logits = W x with an x (T, K) that is fixed, whatever the tokens are."""

    def __init__(self, inputs: Tensor, vocab: int) -> None:
        super().__init__()
        self.inputs, self.matrix = inputs, nn.Linear(inputs.shape[1], vocab, bias=False)
        nn.init.normal_(self.matrix.weight, generator=torch.Generator().manual_seed(2))

    def forward(self, input_ids: Tensor, use_cache: bool) -> object:
        return type("Out", (), {"logits": self.matrix(self.inputs[: input_ids.shape[1]])[None]})


def test_obd_is_the_curvature_of_a_softmax(tiny_llama: Subject) -> None:
    """Of logits W x the Gauss-Newton diagonal is p_k (1 - p_k) x_j^2, and it is all of the curvature."""
    inputs = torch.randn(WINDOW, 3, generator=torch.Generator().manual_seed(1))
    model = OneMatrix(inputs, 4)
    tiny_llama.model = model  # type: ignore[assignment]
    text = CalibrationText([0] * (400 * WINDOW), "none")
    found = importances(tiny_llama, "obd", text, {"matrix": model.matrix})["matrix"]
    rows = inputs[: WINDOW - 1]
    p = model.matrix(rows).softmax(-1).detach()
    curvature = (p * (1 - p)).T @ rows.square() / len(rows)  # (V, K)
    torch.testing.assert_close(found, curvature * model.matrix.weight.detach().square() / 2, rtol=0.25, atol=1e-4)


def test_the_model_is_as_it_was_and_holds_no_gradients(tiny_gqa: Subject) -> None:
    tiny_gqa.model.requires_grad_(False)
    before = [parameter.clone() for parameter in tiny_gqa.model.parameters()]
    importances(tiny_gqa, "taylor", text_of(tiny_gqa), tiny_gqa.linears())
    for parameter, was in zip(tiny_gqa.model.parameters(), before, strict=True):
        assert torch.equal(parameter, was)
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_what_was_cancelled_leaves_no_gradients_either(tiny_gqa: Subject) -> None:
    def cancel(share: float, text: str) -> None:
        if share > 0:
            raise KeyboardInterrupt

    tiny_gqa.model.requires_grad_(False)
    tiny_gqa.progress = cancel
    with pytest.raises(KeyboardInterrupt):
        importances(tiny_gqa, "taylor", text_of(tiny_gqa), tiny_gqa.linears())
    assert not any(one.requires_grad or one.grad is not None for one in tiny_gqa.model.parameters())
    assert not any(one._post_accumulate_grad_hooks for one in tiny_gqa.model.parameters())
