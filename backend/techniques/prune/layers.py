"""Whole layers removed: those that change what passes through them least."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.pruning import DropLayers
from backend.techniques.anatomy import pass_one_token, stack, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import CALIBRATION_TOKENS
from backend.techniques.registry import technique

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")  # lists of a config with one entry a layer


@technique(DropLayers)
class LayerDropping:
    """Drops layers by Block Influence, 1 - cos(input, output) averaged over tokens (Men et al. 2024, ShortGPT)."""

    def apply(self, subject: Subject, switch: DropLayers) -> None:
        """Take the layers out and number the others anew, so that caches and masks still find them.

        Raises:
            RecipeError: for an unknown build, when no layer would be left, or when there is no text to measure on.
        """
        layers = stack(subject.model, switch.kind)
        if switch.count >= len(layers):
            allowed = f"1 to {len(layers) - 1} layers"
            raise RecipeError(f"switches.{switch.kind}.count", switch.count, allowed, "Drop fewer layers.")
        dropped, way = choose(subject, layers, switch)
        kept = [index for index in range(len(layers)) if index not in dropped]
        remove(subject.model, layers, kept)
        subject.notes[switch.kind] = {"dropped": sorted(dropped), "chosen_by": way}

    def read_back(self, subject: Subject, switch: DropLayers) -> Effect:
        """Count the layers of the live stack and those that cached a passing token."""
        notes = subject.notes.get(switch.kind, {"dropped": [], "chosen_by": "nothing"})
        held, ran = len(stack(subject.model, switch.kind)), len(pass_one_token(subject.model).kv_heads)
        before = subject.facts.layers
        gone = ", ".join(str(index) for index in notes["dropped"]) or "none"
        return Effect(
            kind=switch.kind,
            took_effect=held == ran == before - switch.count,
            summary=f"{ran} of {before} layers, without {gone}",
            facts={
                "layers_before": before,
                "layers_after": ran,
                "dropped": gone,
                "chosen_by": notes["chosen_by"],
            },
        )


def choose(subject: Subject, layers: nn.ModuleList, switch: DropLayers) -> tuple[set[int], str]:
    """The layers to drop, and by what they were chosen.

    Raises:
        RecipeError: when there is no text and the weights are not random either.
    """
    if subject.sample_ids:
        ids = subject.sample_ids[:CALIBRATION_TOKENS]
        influence = block_influence(subject, layers, ids)
        return set(
            influence.topk(switch.count, largest=False).indices.tolist()
        ), f"Block Influence on {len(ids)} tokens"
    if subject.facts.random_weights:
        last = len(layers) - 1
        return set(range(last - switch.count, last)), "position: the layers before the last, since weights are random"
    remedy = "Load the model with its tokenizer, or switch it off."
    raise RecipeError(f"switches.{switch.kind}", "no text", "some text to measure the layers on", remedy)


@torch.inference_mode()
def block_influence(subject: Subject, layers: nn.ModuleList, ids: list[int]) -> Tensor:
    """Block Influence of every layer (layers,) on these tokens, float32 on the CPU; 0 changes nothing."""
    scores: list[float] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before = (args[0] if args else kwargs["hidden_states"]).float()  # (1, T, hidden)
        after = (output[0] if isinstance(output, tuple) else output).float()
        scores.append(1.0 - torch.nn.functional.cosine_similarity(before, after, dim=-1).mean().item())

    hooks = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    try:
        subject.model(input_ids=torch.tensor([ids], device=subject.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.tensor(scores)


def remove(model: Any, layers: nn.ModuleList, kept: list[int]) -> None:
    """Keep these layers in the stack; correct their numbers and every list of the config with one entry a layer."""
    config, total = text_config(model), len(layers)
    remaining: list[Any] = [layers[index] for index in kept]
    del layers[:]
    layers.extend(remaining)
    for position, layer in enumerate(remaining):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    config.num_hidden_layers = len(kept)
    for name in PER_LAYER:
        entries = getattr(config, name, None)
        if isinstance(entries, list) and len(entries) == total:
            setattr(config, name, [entries[index] for index in kept])
