"""Whole layers removed: those that change what passes through them least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.layers import DropLayers, blocks
from backend.techniques.anatomy import encoder_layers, pass_one_token, stack, text_config
from backend.techniques.base import Effect, Subject
from backend.techniques.prune.activity import CALIBRATION_TOKENS, run
from backend.techniques.prune.importance import no_text
from backend.techniques.registry import technique
from backend.techniques.walk import refuse_broken

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")  # lists of a config with one entry a layer
Spans = Callable[[Subject, nn.ModuleList, int], Tensor]  # distances (L - n + 1,) over n layers from each on


@technique(DropLayers)
class LayerDropping:
    """Drops layers whose output is nearest to their input, one by one (Men et al. 2024) or as a block (Gromov 2024)."""

    def apply(self, subject: Subject, switch: DropLayers) -> None:
        """Take the layers out and number the others anew, so that caches and masks still find them.

        Raises:
            RecipeError: for an unknown build, layers that it has not, when no layer would be left, or when there is no
                text to measure on.
        """
        layers = layers_of(subject.model, switch.kind)
        if reason := switch.refuse(replace(subject.facts, layers=len(layers))):
            asked = f"{switch.remove or switch.keep}" or switch.lost_of(len(layers))
            raise RecipeError(f"switches.{switch.kind}.count", asked, reason, "Drop fewer layers, or others.")
        dropped, way, ties = choose(subject, layers, switch)
        kept = [index for index in range(len(layers)) if index not in dropped]
        remove(subject.model, layers, kept)
        subject.notes[switch.kind] = {"dropped": sorted(dropped), "chosen_by": way, "ties": ties}

    def read_back(self, subject: Subject, switch: DropLayers) -> Effect:
        """Count the layers of the live stack and those that a token passed through."""
        notes = subject.notes.get(switch.kind, {"dropped": [], "chosen_by": "nothing", "ties": "none"})
        held, passage = len(layers_of(subject.model, switch.kind)), pass_one_token(subject.model)
        ran = len(passage.kv_heads or passage.attention)  # an encoder caches nothing
        before = subject.facts.layers
        gone = ", ".join(str(index) for index in notes["dropped"]) or "none"
        return Effect(
            kind=switch.kind,
            took_effect=held == ran == before - switch.lost_of(before),
            summary=f"{ran} of {before} layers, without {gone}",
            facts={
                "layers_before": before,
                "layers_after": ran,
                "dropped": gone,
                "chosen_by": notes["chosen_by"],
                "ties": notes["ties"],
            },
        )


def layers_of(model: PreTrainedModel, kind: str) -> nn.ModuleList:
    """The stack of a decoder, or of an encoder that is built like BERT.

    Raises:
        RecipeError: naming the switch `kind`, for any other build.
    """
    bert = encoder_layers(model)
    return stack(model, kind) if bert is None else bert


def choose(subject: Subject, layers: nn.ModuleList, switch: DropLayers) -> tuple[set[int], str, str]:
    """The layers to drop, by what they were chosen, and what is said of ties.

    Raises:
        RecipeError: when there is no text and the weights are not random either, or distances are no numbers.
    """
    named = set(switch.removed)
    lost = switch.lost_of(len(layers))
    if len(named) == lost:
        return named, "hand", "none"
    span = lost if switch.pattern == "block" else 1
    if subject.sample_ids or switch.by == "random":
        scores = rank(subject, layers, switch, span)
        words = WORDS[switch.by]
        way = words if switch.by == "random" else f"{words} on {len(subject.sample_ids[:CALIBRATION_TOKENS])} tokens"
    elif subject.facts.random_weights:
        scores = -torch.arange(len(layers) - span + 1.0)
        scores[-1] = 1.0  # the last layer goes last
        way = "position: the layers before the last, since weights are random"
    else:
        raise no_text(switch.kind, switch.by)
    return _lowest(scores, switch, len(layers), named, way)


def _lowest(scores: Tensor, switch: DropLayers, layers: int, named: set[int], way: str) -> tuple[set[int], str, str]:
    """The layers of the lowest scores, those that are named before all; of equals the first."""
    lost = switch.lost_of(layers)
    if switch.pattern == "block":
        starts = blocks(layers, lost, switch.removed, switch.kept)
        best = min(starts, key=lambda start: (float(scores[start]), start))
        alike = sum(bool(scores[start] == scores[best]) for start in starts) > 1
        return set(range(best, best + lost)), way, "broken by index" if alike else "none"
    free = [index for index in range(layers) if index not in named and index not in switch.kept]
    ranked = sorted(free, key=lambda index: (float(scores[index]), index))
    cut = lost - len(named)
    alike = 0 < cut < len(ranked) and bool(scores[ranked[cut - 1]] == scores[ranked[cut]])
    return named | set(ranked[:cut]), way, "broken by index" if alike else "none"


def rank(subject: Subject, layers: nn.ModuleList, switch: DropLayers, span: int) -> Tensor:
    """Scores (L - span + 1,) of the blocks of `span` layers from each layer on; the lowest goes first.

    Raises:
        RecipeError: for weights or distances that are no numbers.
    """
    if switch.by == "random":
        return torch.rand(len(layers) - span + 1, generator=torch.Generator().manual_seed(switch.seed))
    refuse_broken(subject, switch.kind)
    scores = DISTANCES[switch.by](subject, layers, span)
    if not torch.isfinite(scores).all():
        layer = int((~torch.isfinite(scores)).nonzero()[0])
        value = f"{switch.by} gives no number for layer {layer}"
        raise RecipeError(f"switches.{switch.kind}.by", value, "distances that are numbers", "Choose another ranking.")
    return scores


def cosine_distance(subject: Subject, layers: nn.ModuleList, span: int = 1) -> Tensor:
    """1 - cos(input, output) over `span` layers, mean over tokens; (L - span + 1,) float32 on the CPU.

    For one layer it is its Block Influence (Men et al. 2024, ShortGPT): 0 changes nothing.
    """
    return torch.tensor([1 - float(cosine.mean()) for cosine in _cosines(subject, layers, span)])


def angular_distance(subject: Subject, layers: nn.ModuleList, span: int = 1) -> Tensor:
    """arccos(cos(input, output)) / pi over `span` layers, mean over tokens; (L - span + 1,).

    Gromov et al. 2024, 'The Unreasonable Ineffectiveness of the Deeper Layers', equation 7, which looks at the last
    token alone; here all tokens count, since the text is short.
    """
    angles = [cosine.clamp(-1, 1).arccos() / torch.pi for cosine in _cosines(subject, layers, span)]
    return torch.tensor([float(angle.mean()) for angle in angles])


DISTANCES: dict[str, Spans] = {"cosine": cosine_distance, "angular": angular_distance}
WORDS = {"cosine": "Block Influence", "angular": "angular distance", "random": "chance"}


@torch.inference_mode()
def _cosines(subject: Subject, layers: nn.ModuleList, span: int) -> list[Tensor]:
    """The cosine (T,) between what enters each layer and what leaves the block of `span` layers that begins there."""
    states: list[Tensor] = []  # (T, hidden): what enters each layer, and what leaves the last

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not states:
            states.append((args[0] if args else kwargs["hidden_states"])[0].float())
        states.append((output[0] if isinstance(output, tuple) else output)[0].float())

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        run(subject, subject.sample_ids[:CALIBRATION_TOKENS])
    finally:
        for hook in hooks:
            hook.remove()
    return [F.cosine_similarity(before, after, dim=-1) for before, after in zip(states, states[span:], strict=False)]


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
