"""Calibration: what flows into the linear layers on text of the model's own kind, and results kept between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.recipe.base import RecipeError
from backend.recipe.calibrated import Calibrated
from backend.techniques.base import CalibrationText, Subject

WINDOW = 256  # tokens of one call
LEAST = 256  # tokens without which nothing is calibrated
JUDGED = 128  # tokens on which a text is judged
HEAD_ROWS = 16  # of a window for which logits are computed, so that the head is heard too: more cost more than the rest
# Nats a token more than on the model's own text, from which on it does not know a text. Measured: of Gemma words in
# disorder .4, random letters 1.9 and bytes 2.4, other languages and code below 0, since it knows them; of the
# storyteller 19 and more for all that is no story.
FOREIGN = 1.0
SAMPLE = 512  # numbers of a tensor that enter a fingerprint
METHODS = 2  # raised when a switch computes something else than it did: what lies on the shelf is then stale

Hear = Callable[[str, Any, Tensor], None]  # name, layer, what enters it (T, K) float32


def text_of(subject: Subject, file: str, tokens: int) -> CalibrationText:
    """A file's tokens, or those of the model's own kind of text where it is ''; a sample where nothing can be read."""
    asked = subject.read_text(file, tokens) if subject.read_text else None
    return asked or CalibrationText(subject.sample_ids[:tokens], "a sample of the model's own text")


def calibration_text(subject: Subject, switch: Calibrated) -> CalibrationText:
    """The tokens that the switch asks for.

    Raises:
        RecipeError: for a text that is too short, or one that surprises the model far more than its own kind does.
    """
    text = text_of(subject, switch.text, switch.tokens)
    field = f"switches.{switch.kind}.text"
    if len(text.ids) < LEAST:
        raise RecipeError(
            field, f"{len(text.ids)} tokens of {text.source}", f"at least {LEAST} tokens", "Give a longer text."
        )
    if switch.text and subject.sample_ids and subject.facts.task == "decoder":  # others give no likelihood
        foreign, own = surprise(subject, text.ids), surprise(subject, subject.sample_ids)
        if not foreign <= own + FOREIGN:
            raise RecipeError(
                field,
                f"{text.source}: {foreign:.1f} nats a token",
                f"text that the model knows, within {FOREIGN:g} nats of the {own:.1f} of its own kind",
                "Give text of the language and sort that the model will read.",
            )
    return text


@torch.inference_mode()
def surprise(subject: Subject, ids: list[int]) -> float:
    """Mean nats a token on the first tokens of a text."""
    rows = torch.tensor([ids[: JUDGED + 1]], device=subject.device)
    logits = subject.model(input_ids=rows[:, :-1], use_cache=False).logits[0].float()  # (T, V)
    return float(F.cross_entropy(logits, rows[0, 1:]))


@torch.inference_mode()
def hear_inputs(subject: Subject, text: CalibrationText, layers: Mapping[str, nn.Module], hear: Hear) -> None:
    """Run the text through the model in windows, and let `hear` have what enters each of these layers."""
    windows = [text.ids[at : at + WINDOW] for at in range(0, len(text.ids), WINDOW)]
    windows = [window for window in windows if len(window) == min(WINDOW, len(text.ids))]
    with _listening(layers, hear):
        for done, window in enumerate(windows):
            subject.progress(done / len(windows), f"Calibrating on {text.source}: {done * WINDOW} tokens")
            ids = torch.tensor([window], device=subject.device)
            subject.model(input_ids=ids, use_cache=False, logits_to_keep=HEAD_ROWS)


@contextmanager
def _listening(layers: Mapping[str, nn.Module], hear: Hear) -> Iterator[None]:
    def hook(name: str) -> Any:
        return lambda layer, args: hear(name, layer, args[0].flatten(0, -2).float())

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def kept(
    subject: Subject, switch: Calibrated, text: CalibrationText, compute: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], bool]:
    """What `compute` gives, or what it gave before for this switch, this model as it is now, and this text.

    Returns:
        The tensors, and whether they were found on the shelf.
    """
    if subject.shelf is None:
        return compute(), False
    file = subject.shelf / f"{switch.kind}-{_key(subject, switch, text)}.safetensors"
    if file.is_file():
        return load_file(file), True
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    subject.shelf.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file(tensors, part)
    part.replace(file)  # whole or not at all
    return tensors, False


def _key(subject: Subject, switch: Calibrated, text: CalibrationText) -> str:
    told = [METHODS, switch.model_dump(mode="json", exclude={"text"}), text.ids, fingerprint(subject.model)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def fingerprint(model: nn.Module) -> str:
    """A hash of every parameter's name, shape, type and a sample of its numbers: pruning changes it."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        stride = max(1, parameter.numel() // SAMPLE)
        sample = parameter.detach().flatten()[::stride].float().cpu().numpy()
        found.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode() + sample.tobytes())
    return found.hexdigest()
