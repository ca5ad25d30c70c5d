"""Shapes: configs of known sizes with random weights, for speed and memory only."""

from __future__ import annotations

import json
import re
from typing import Any

from backend.modelref import bad_model

PREFIX = "shape:"
_TYPE = re.compile(r"[\w.-]{1,80}", re.ASCII)
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def _llama(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "vocab_size": vocab,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        **_SPECIAL,
        **more,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "llama-160m": _llama(768, 3072, 12, 12, 12, 32000, max_position_embeddings=2048),
    "tinyllama-1b": _llama(2048, 5632, 22, 32, 4, 32000, max_position_embeddings=2048),
    "llama-1b": _llama(2048, 8192, 16, 32, 8, 128256, max_position_embeddings=131072, tie_word_embeddings=True),
    "llama-8b": _llama(4096, 14336, 32, 32, 8, 128256, max_position_embeddings=131072),
    "mistral-7b": _llama(
        4096, 14336, 32, 32, 8, 32000, model_type="mistral", max_position_embeddings=32768, sliding_window=None
    ),
    "qwen-0.5b": _llama(
        896, 4864, 24, 14, 2, 151936, model_type="qwen2", max_position_embeddings=32768, tie_word_embeddings=True
    ),
}


def shape_config(name: str) -> dict[str, Any]:
    """The full config of `shape:llama-1b` or `shape:{"model_type": ...}`.

    Raises:
        RecipeError: for a shape that is not known, or JSON that is not a config.
    """
    text = name.removeprefix(PREFIX).strip()
    if text in SHAPES:
        return dict(SHAPES[text])
    known = f"one of the shapes {', '.join(SHAPES)}, or a config in JSON"
    if not text.startswith("{"):
        raise bad_model(_shown(name), known, 'Write for example shape:llama-1b or shape:{"model_type": "llama", ...}.')
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_model(_shown(name), known, f"Correct the JSON: {error}.") from None
    kind = config.get("model_type")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        shown = f"{_shown(name)}: model_type is {_shown(str(kind)) if kind is not None else 'missing'}"
        raise bad_model(shown, "a config with a model_type", 'Add the key, for example "model_type": "llama".')
    return dict(config)


def _shown(name: str) -> str:
    """The beginning of what was typed, with what cannot be shown (NUL bytes, for example) written out."""
    return name[:80].encode("unicode_escape").decode("ascii")
