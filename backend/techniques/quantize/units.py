"""The units that are quantized apart: every decoder layer by its number, and the output head."""

from __future__ import annotations

from contextlib import suppress

from torch import nn
from transformers import PreTrainedModel

from backend.recipe.switches.mixed import HEAD
from backend.techniques.base import decoder_layers
from backend.techniques.quantize.layers import head_name, linear_like

OTHER = "other"  # in no decoder layer and not the head


def linear_units(model: PreTrainedModel) -> dict[str, str]:
    """The unit of every layer that multiplies by one matrix, by its dotted name; all but the head OTHER where the
    decoder's layers are not known.
    """
    layers: list[nn.Module] = []
    with suppress(TypeError):  # a build that is not known
        layers = list(decoder_layers(model))
    numbers = {id(module): str(number) for number, layer in enumerate(layers) for module in layer.modules()}
    head = head_name(model)
    found = linear_like(model)
    return {name: HEAD if name == head else numbers.get(id(module), OTHER) for name, module in found.items()}
