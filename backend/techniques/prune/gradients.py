"""What the loss of a text says about every weight: gradients added up window by window, each freed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.base import CalibrationText, Subject

WINDOW = 128  # tokens of one backward pass: the logits of a large vocabulary and their gradients lie in memory
SEED = 11  # of the tokens that the model draws for its curvature

By = Literal["taylor", "fisher", "obd"]
Sums = dict[str, Tensor]  # (N, K) float32 by name


def importances(subject: Subject, by: By, text: CalibrationText, linears: Mapping[str, nn.Linear]) -> Sums:
    """How much the loss, in nats a token, is expected to rise without each weight, up to a factor that all share.

    - taylor: |g w|, g the gradient of the loss of the whole text; first order (Molchanov et al. 2019, eq. 8).
    - fisher: g^2 w^2, g^2 the mean over windows of the squared gradient (Theis et al. 2018, eq. 5).
    - obd: h w^2 / 2, the second order without what is off the diagonal (LeCun et al. 1989, eq. 4). For h stands the
      Gauss-Newton part of the curvature, which is never negative, as there: for a softmax it is the mean square of the
      gradient for tokens drawn from the model's own distribution. Those gradients have mean zero and tokens are drawn
      apart, so the square of a window's sum is an estimate without bias of the sum of its tokens' squares.

    Holds one float32 a weight besides the model.
    """
    windows = [text.ids[at : at + WINDOW] for at in range(0, len(text.ids), WINDOW)]
    windows = [window for window in windows if len(window) == min(WINDOW, len(text.ids))]
    tokens = sum(len(window) - 1 for window in windows)
    generator = torch.Generator(subject.device).manual_seed(SEED)
    sums = {name: torch.zeros_like(linear.weight, dtype=torch.float32) for name, linear in linears.items()}

    def add(name: str, gradient: Tensor) -> None:
        if by == "taylor":
            sums[name].add_(gradient, alpha=1 / tokens)
        else:
            share = 1 / tokens if by == "obd" else 1 / len(windows)
            sums[name].addcmul_(gradient.float(), gradient.float(), value=share)

    with _gradients(subject.model, linears, add):
        for done, window in enumerate(windows):
            subject.progress(done / len(windows), f"Gradients on {text.source}: {done * WINDOW} tokens")
            loss = _loss(subject, window, generator if by == "obd" else None)
            (loss / (len(window) - 1) if by == "fisher" else loss).backward()
    for name, linear in linears.items():
        weight = linear.weight.detach().float()
        scale = weight if by == "taylor" else weight.square() / (2 if by == "obd" else 1)
        sums[name].mul_(scale).abs_()
    return sums


def _loss(subject: Subject, window: list[int], generator: torch.Generator | None) -> Tensor:
    """Nats of a window's tokens, summed: of those that stand there, or of others that the model draws."""
    ids = torch.tensor([window], device=subject.device)
    logits = subject.model(input_ids=ids[:, :-1], use_cache=False).logits[0].float()  # (T, V)
    wanted = ids[0, 1:]
    if generator is not None:
        with torch.no_grad():
            wanted = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return F.cross_entropy(logits, wanted, reduction="sum")


@contextmanager
def _gradients(
    model: nn.Module, linears: Mapping[str, nn.Linear], add: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Only these weights get gradients, each handed on and freed as soon as it is there; after it all is as before."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in before:
        parameter.requires_grad_(False)
    handles = []

    def hook(name: str) -> Callable[[Tensor], None]:
        def hand_on(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if gradient is not None:
                add(name, gradient)

        return hand_on

    for name, linear in linears.items():
        linear.weight.requires_grad_(True)
        handles.append(linear.weight.register_post_accumulate_grad_hook(hook(name)))
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, needed in before.items():
            parameter.requires_grad_(needed)
