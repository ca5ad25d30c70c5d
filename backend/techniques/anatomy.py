"""The parts of a decoder that techniques cut or count: its attentions, its MLPs, and what one token passes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from backend.recipe.base import RecipeError
from backend.techniques.base import decoder_layers

KNOWN = "a decoder built like Llama, Mistral, Qwen or Gemma"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def stack(model: PreTrainedModel, kind: str) -> nn.ModuleList:
    """The decoder's layers.

    Raises:
        RecipeError: naming the switch `kind`, for a model whose layers are not where they are known to be.
    """
    try:
        return decoder_layers(model)
    except TypeError:
        raise _unknown(model, kind) from None


def attentions(model: PreTrainedModel, kind: str) -> list[Any]:
    """Every layer's attention with separate linear q, k, v and o projections.

    Raises:
        RecipeError: naming the switch `kind`, when one layer has no such attention.
    """
    bert = encoder_layers(model)
    found: list[Any] = (
        [getattr(layer, "self_attn", None) for layer in stack(model, kind)]
        if bert is None
        else [BertAttention(getattr(layer, "attention", None)) for layer in bert]
    )
    if not found or not all(_has_linears(block, ATTENTION) and getattr(block, "head_dim", 0) for block in found):
        raise _unknown(model, kind)
    return found


def mlps(model: PreTrainedModel, kind: str) -> list[Any]:
    """Every layer's gated MLP; an encoder's has no gate.

    Raises:
        RecipeError: naming the switch `kind`, when one layer has no such MLP, as in a mixture of experts.
    """
    if bert := encoder_layers(model):
        plain = [BertMLP(layer) for layer in bert]
        if all(_has_linears(block, ("up_proj", "down_proj")) for block in plain):
            return plain
        raise _unknown(model, kind)
    found = [getattr(layer, "mlp", None) for layer in stack(model, kind)]
    if not found or not all(_has_linears(block, MLP) for block in found):
        raise _unknown(model, kind)
    return found


class BertAttention:
    """The projections of BERT's attention under the names that decoders give them; cutting them cuts the model's."""

    def __init__(self, block: Any) -> None:
        self.inner = getattr(block, "self", None)
        names = zip(ATTENTION, ("query", "key", "value"), strict=False)
        for ours, theirs in names:
            setattr(self, ours, getattr(self.inner, theirs, None))
        self.o_proj = getattr(getattr(block, "output", None), "dense", None)
        self.head_dim = getattr(self.inner, "attention_head_size", None)

    def describe(self, heads: int) -> None:
        """Make the attention's own numbers true again."""
        self.inner.num_attention_heads = heads  # type: ignore[union-attr]
        self.inner.all_head_size = heads * self.head_dim  # type: ignore[union-attr, operator]


def head_widths(block: Any) -> tuple[int, int]:
    """Query heads and KV heads of an attention, from the shapes of its projections."""
    return block.o_proj.in_features // block.head_dim, block.k_proj.out_features // block.head_dim


def describe_heads(block: Any) -> None:
    """Make an attention's own numbers true again; which of them it has depends on the architecture."""
    heads, kv_heads = head_widths(block)
    if isinstance(block, BertAttention):
        block.describe(heads)
        return
    true = {
        "num_heads": heads,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_key_value_groups": heads // kv_heads,
    }
    for name, value in true.items():
        if hasattr(block, name):
            setattr(block, name, value)


class BertMLP:
    """The feed-forward part of a BERT layer under the names that decoders give its matrices; it has no gate."""

    def __init__(self, layer: Any) -> None:
        self.up_proj = getattr(getattr(layer, "intermediate", None), "dense", None)
        self.down_proj = getattr(getattr(layer, "output", None), "dense", None)


def encoder_layers(model: nn.Module) -> nn.ModuleList | None:
    """The layers of a model that is built like BERT; None for any other build."""
    layers = getattr(getattr(model, "encoder", None), "layer", None)
    return layers if isinstance(layers, nn.ModuleList) else None


def text_config(model: PreTrainedModel) -> Any:
    """The config that describes the decoder, the one that caches and masks are built from."""
    return model.config.get_text_config(decoder=True)


def refusal_to_reload(model: PreTrainedModel) -> str:
    """Why transformers would refuse the live config once it is saved, in its own words; '' when it would take it."""
    validate = getattr(text_config(model), "validate", None)
    if validate is None:  # a config that came with code of its own
        return ""
    try:
        validate()
    except (StrictDataclassError, ValueError) as error:
        return str(error).splitlines()[-1].strip()
    return ""


def keep_rows(linear: nn.Linear, rows: Tensor) -> None:
    """Cut a linear layer down to these outputs, in place; the rest of its weight and bias is freed."""
    linear.weight = _like(linear.weight, linear.weight.index_select(0, rows))
    if linear.bias is not None:
        linear.bias = _like(linear.bias, linear.bias.index_select(0, rows))
    linear.out_features = len(rows)


def keep_columns(linear: nn.Linear, columns: Tensor) -> None:
    """Cut a linear layer down to these inputs, in place."""
    linear.weight = _like(linear.weight, linear.weight.index_select(1, columns))
    linear.in_features = len(columns)


def _like(old: Tensor, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.detach(), requires_grad=old.requires_grad)


def _has_linears(block: object, names: tuple[str, ...]) -> bool:
    return all(isinstance(getattr(block, name, None), nn.Linear) for name in names)


def _unknown(model: PreTrainedModel, kind: str) -> RecipeError:
    remedy = "Switch it off, or load a model of a known build."
    return RecipeError(f"switches.{kind}", type(model).__name__, KNOWN, remedy)


@dataclass(frozen=True)
class Passage:
    """What one token really passed through, layer by layer, whatever class its matrices have by now."""

    attention: list[int]  # width that entered each output projection: heads x head_dim
    ffn: list[int]  # width that entered each down projection
    kv_heads: list[int]  # heads that each layer cached
    kv_values: int  # numbers cached for one token, keys and values of all layers
    kv_bytes: int  # the same in bytes


@torch.inference_mode()
def pass_one_token(model: PreTrainedModel, cache: Cache | None = None) -> Passage:
    """Send one token through the live model and record the widths that it met.

    A model of an unknown build gives empty lists. A cache that is given must be empty, and is used up. An encoder
    caches nothing.
    """
    if encoder_layers(model) is not None:
        return _pass_through_encoder(model)
    widths: dict[str, list[int]] = {"o_proj": [], "down_proj": []}
    cache = DynamicCache(config=model.config) if cache is None else cache

    def record(name: str) -> Any:
        return lambda module, args: widths[name].append(int(args[0].shape[-1]))

    layers = getattr(getattr(model, "model", model), "layers", [])
    named = [item for layer in layers for item in layer.named_modules()]
    leaves = [(name.rpartition(".")[2], module) for name, module in named]
    hooks = [module.register_forward_pre_hook(record(leaf)) for leaf, module in leaves if leaf in widths]
    try:
        token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        model(input_ids=token, cache=cache, use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    held = [(layer.keys, layer.values) for layer in cast(list[Any], cache.layers) if layer.is_initialized]
    return Passage(
        attention=widths["o_proj"],
        ffn=widths["down_proj"],
        kv_heads=[int(keys.shape[1]) for keys, _ in held],
        kv_values=sum(keys[:, :, :1].numel() + values[:, :, :1].numel() for keys, values in held),
        kv_bytes=sum(keys[:, :, :1].nbytes + values[:, :, :1].nbytes for keys, values in held),
    )


def _pass_through_encoder(model: PreTrainedModel) -> Passage:
    widths: dict[str, list[int]] = {"attention": [], "ffn": []}

    def record(name: str) -> Any:
        return lambda module, args: widths[name].append(int(args[0].shape[-1]))

    layers = cast(list[Any], encoder_layers(model))
    hooks = [layer.attention.output.dense.register_forward_pre_hook(record("attention")) for layer in layers]
    hooks += [layer.output.dense.register_forward_pre_hook(record("ffn")) for layer in layers]
    try:
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return Passage(attention=widths["attention"], ffn=widths["ffn"], kv_heads=[], kv_values=0, kv_bytes=0)
