"""LoRA by peft: its layers put into the model as it stands, and merged out of it at the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from backend.recipe.base import RecipeError
from backend.recipe.methods.lora import Lora
from backend.techniques.base import Subject, replace_module
from backend.techniques.coach import Coach, Pupil, coach

ADAPTER = "adapter"
ATTENTION = ("attn", "attention")  # what the names of attentions hold, in decoders and encoders


@coach(Lora)
class LoraCoach(Coach):
    """Adapters W + (alpha / r) B A (Hu et al. 2021), B zero at first, A drawn with the training's seed.

    peft's layers replace the linear layers inside the model, and no wrapper goes around it: the subject's model stays
    the object that it was, for the trainer, for looks and for saving.
    """

    def begin(self, pupil: Pupil, method: Lora) -> None:
        """Freeze the model and put adapters beside the matrices that were asked for.

        Raises:
            RecipeError: when there is no such matrix, or one that is smaller than the rank.
        """
        from peft import LoraConfig, inject_adapter_in_model

        subject = pupil.subject
        chosen = targets(subject, method)
        thinnest = min(side for layer in chosen.values() for side in layer.weight.shape)
        if method.rank > thinnest:
            allowed = f"at most {thinnest}, the smaller side of the smallest matrix"
            raise RecipeError("methods.lora.rank", method.rank, allowed, "Choose a smaller rank, or train the whole.")
        config = LoraConfig(
            r=method.rank,
            lora_alpha=method.alpha,  # type: ignore[arg-type]  # peft only multiplies by it
            lora_dropout=0.0,
            target_modules=list(chosen),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in chosen.values()),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(pupil.asked.pace.seed)
            inject_adapter_in_model(config, subject.model, ADAPTER)

    def finish(self, pupil: Pupil, method: Lora) -> None:
        """Add each adapter to its matrix, and put the matrix back in its place."""
        model: Any = pupil.subject.model
        for name, layer in adapted(model).items():
            layer.merge()
            replace_module(model, name, layer.get_base_layer())
        del model.peft_config


def targets(subject: Subject, method: Lora) -> dict[str, Any]:
    """The matrices of the layers that get an adapter, the output head not among them.

    Raises:
        RecipeError: for a model that has none where they were asked for.
    """
    head = subject.model.get_output_embeddings()
    found: dict[str, Any] = {
        name: module
        for name, module in subject.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and _wanted(name, method)
    }
    if not found:
        allowed = f"a model with linear layers in its {'layers' if method.targets == 'all' else method.targets}"
        raise RecipeError("methods.lora.targets", method.targets, allowed, "Choose other targets.")
    return found


def _wanted(name: str, method: Lora) -> bool:
    """By where a matrix stands; outside of any layer, which have numbers, no matrix is wanted."""
    parts = name.split(".")
    if not any(part.isdigit() for part in parts):
        return False
    attends = any(word in part for part in parts for word in ATTENTION)
    return method.targets == "all" or (method.targets == "attention") == attends


def adapted(model: nn.Module) -> dict[str, Any]:
    """peft's layers in a model, by dotted name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
