"""A model's config as plain data, wherever the model comes from, and the sizes that stand in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.ggufheader import GgufHeader, read_gguf
from backend.hub import config_file
from backend.modelref import ModelRef, bad_model
from backend.shapes import shape_config

_TYPES = {"gemma3": "gemma3_text"}  # GGUF's name of an architecture -> transformers' where they differ
_GGUF_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
}
_ALIASES = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "ffn": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "vocab": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"),
}
_EXPERTS = ("num_local_experts", "num_experts")
_MOST_SHOWN = 80  # characters of a model's name in a card
_LARGEST = 10**9  # of one size: far above any model, and small enough to be multiplied


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder, defaults filled in as transformers fills them."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    sliding_window: int | None
    sliding_layers: int
    experts: int  # MLPs a layer
    used_experts: int  # MLPs that a token passes through
    expert_ffn: int


def read_config(ref: ModelRef) -> dict[str, Any]:
    """The config in transformers' words; a GGUF file's fields are translated.

    Raises:
        RecipeError: when there is none, or it cannot be read.
    """
    if ref.kind == "shape":
        return shape_config(ref.name)
    if ref.kind == "gguf":
        return gguf_config(read_gguf(ref.place))
    file = config_file(ref) if ref.kind == "hub" else ref.place / "config.json"
    return _read_json(ref, file)


def _read_json(ref: ModelRef, file: Path) -> dict[str, Any]:
    if not file.exists():
        remedy = "Give the folder that holds config.json and model.safetensors."
        raise bad_model(ref.name, "a folder with a config.json", remedy)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise bad_model(f"{ref.name}/config.json", "a JSON file", f"Correct it: {error}.") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        allowed = "a config with a model_type, as transformers writes it"
        raise bad_model(f"{ref.name}/config.json", allowed, "Save the model again with save_pretrained.")
    return config


def gguf_config(header: GgufHeader) -> dict[str, Any]:
    """Sizes of a GGUF file in transformers' words."""
    kind = str(header.fields.get("general.architecture", "unknown"))
    found = {ours: header.fields.get(f"{kind}.{theirs}") for ours, theirs in _GGUF_SIZES.items()}
    config: dict[str, Any] = {key: value for key, value in found.items() if value is not None}
    table = header.shapes.get("token_embd.weight", (0, 0))
    return config | {
        "model_type": _TYPES.get(kind, kind),
        "vocab_size": table[-1],
        "tie_word_embeddings": "output.weight" not in header.shapes,
    }


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The part that describes the decoder, where a config describes other parts besides."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def sizes(name: str, config: dict[str, Any]) -> Sizes:
    """The decoder's sizes.

    Raises:
        RecipeError: when one is missing or is not a positive whole number.
    """
    part = text_part(config)
    found = {size: _positive(name, part, keys) for size, keys in _ALIASES.items() if size != "ffn"}
    heads, hidden = found["heads"], found["hidden"]
    ffn = _optional(name, part, _ALIASES["ffn"], 4 * hidden)
    kv_heads = _optional(name, part, ("num_key_value_heads",), heads)
    if heads % kv_heads:
        shown = f"{short_name(name)}: {heads} heads share {kv_heads} key-value heads"
        raise bad_model(shown, "a number of key-value heads that divides the heads", "Correct the config.")
    window, sliding = _sliding(part, found["layers"])
    experts = _optional(name, part, _EXPERTS, 1)
    return Sizes(
        **found,
        ffn=ffn,
        kv_heads=kv_heads,
        head_dim=_optional(name, part, ("head_dim",), max(1, hidden // heads)),
        sliding_window=window,
        sliding_layers=sliding,
        experts=experts,
        used_experts=min(experts, _optional(name, part, ("num_experts_per_tok",), 1)),
        expert_ffn=_optional(name, part, ("moe_intermediate_size",), ffn),
    )


def short_name(name: str) -> str:
    """The name as a card shows it: of a config that was typed only how it begins, so that what is wrong fits beside."""
    return name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}..."


def _optional(name: str, part: dict[str, Any], keys: tuple[str, ...], default: int) -> int:
    return _positive(name, part, keys) if any(part.get(key) is not None for key in keys) else default


def _positive(name: str, part: dict[str, Any], keys: tuple[str, ...]) -> int:
    key = next((key for key in keys if part.get(key) is not None), keys[0])
    value = part.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        shown = f"{short_name(name)}: {key} is {str(value)[:40] if value is not None else 'missing'}"
        allowed = f"a config of a decoder with a whole number {key} from 1 to {_LARGEST:,}"
        raise bad_model(shown, allowed, f"Set {key}, or choose a causal language model or a sentence encoder.")
    return value


def _sliding(part: dict[str, Any], layers: int) -> tuple[int | None, int]:
    """Window and number of the layers that see only a window of the past."""
    window = part.get("sliding_window")
    if not isinstance(window, int) or part.get("use_sliding_window") is False:
        return None, 0
    types = part.get("layer_types")
    if isinstance(types, list):
        count = types.count("sliding_attention")
    else:
        default = {"gemma3_text": 6, "gemma3": 6, "gemma2": 2}.get(part["model_type"], 0)
        pattern = part.get("sliding_window_pattern", part.get("_sliding_window_pattern", default))
        count = layers - layers // pattern if pattern else layers  # every pattern-th layer sees everything
    return (window, count) if count else (None, 0)
