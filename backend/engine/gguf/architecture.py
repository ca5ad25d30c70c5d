"""What llama.cpp must know of an architecture: its name and sizes, and how its tensors differ from transformers'.

Sources: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md), llama.cpp's loaders of `llama`, `gemma3`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf
from torch import Tensor

from backend.recipe.base import RecipeError

GLOBAL_EVERY = 6  # in Gemma 3 every sixth layer sees everything; llama.cpp takes that for granted


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp, and how to fit a model of transformers into it."""

    arch: gguf.MODEL_ARCH
    activation: str
    refusal: Callable[[Any], str]  # config -> why llama.cpp would compute something else; '' where it would not
    extras: Callable[[gguf.GGUFWriter, Any], None]  # fields beside the common ones
    fit: Callable[[str, Tensor, Any], Tensor]  # name in transformers, float tensor, config -> tensor for llama.cpp


def architecture_of(config: Any) -> Architecture:
    """The architecture of a decoder's config.

    Raises:
        RecipeError: for one that is not written here, or a setting that llama.cpp does not have.
    """
    known = ARCHITECTURES.get(config.model_type)
    if known is None:
        raise _refused(config.model_type, f"one of the architectures {', '.join(ARCHITECTURES)}")
    found = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    if found != known.activation:
        raise _refused(f"activation {found}", f"{known.activation}, which llama.cpp has here")
    if reason := known.refusal(config):
        raise _refused(config.model_type, reason)
    return known


def _refused(value: str, allowed: str) -> RecipeError:
    return RecipeError("gguf", value, allowed, "Save it as a folder instead (--out).")


def add_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    """The fields that every architecture has."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def head_size(config: Any) -> int:
    """Numbers of a head, where a config leaves them out too."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rope(config: Any, layers: str | None = None) -> dict[str, Any]:
    """How positions turn: {'rope_type', 'rope_theta', ...}, of one kind of layers where they differ."""
    rope = dict(config.rope_parameters or {})
    return dict(rope.get(layers, rope)) if layers else rope


def _llama_refusal(config: Any) -> str:
    if _rope(config).get("rope_type", "default") != "default":
        return f"plain rotary positions; {_rope(config)['rope_type']} scaling is not written here"
    if getattr(config, "sliding_window", None):
        return "full attention: llama.cpp's llama has no sliding window"
    return ""


def _llama_extras(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_rope_freq_base(_rope(config).get("rope_theta", 10_000.0))
    writer.add_rope_dimension_count(head_size(config))


def _llama_fit(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Rows of q and k: transformers turns the halves of a head, llama.cpp turns neighbours."""
    if not any(part in name for part in ("q_proj", "k_proj")):
        return tensor
    halves = tensor.reshape(-1, 2, head_size(config) // 2, *tensor.shape[1:])  # (heads, 2, head_dim / 2, K)
    return halves.transpose(1, 2).reshape(tensor.shape)


def _gemma_refusal(config: Any) -> str:
    if config.query_pre_attn_scalar != config.head_dim:
        return f"queries scaled by the head's size {config.head_dim}: llama.cpp has no other in Gemma 3 of this size"
    if config.num_hidden_layers == 62:
        return "fewer than 62 layers: llama.cpp takes those for Gemma 3 27B, which scales queries in another way"
    if any(_rope(config, kind).get("rope_type", "default") != "default" for kind in set(config.layer_types)):
        return "plain rotary positions"
    return ""


def _gemma_extras(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_rope_freq_base(_rope(config, "full_attention").get("rope_theta", 1_000_000.0))
    writer.add_rope_freq_base_swa(_rope(config, "sliding_attention").get("rope_theta", 10_000.0))
    writer.add_sliding_window(config.sliding_window)
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    slides = [kind == "sliding_attention" for kind in config.layer_types]
    if slides != [bool((place + 1) % GLOBAL_EVERY) for place in range(len(slides))]:
        writer.add_sliding_window_pattern(slides)


def _gemma_fit(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Norms: transformers multiplies by 1 + weight, llama.cpp by the weight."""
    return tensor + 1 if name.endswith("norm.weight") else tensor


_LLAMA = Architecture(gguf.MODEL_ARCH.LLAMA, "silu", _llama_refusal, _llama_extras, _llama_fit)
_GEMMA = Architecture(gguf.MODEL_ARCH.GEMMA3, "gelu_pytorch_tanh", _gemma_refusal, _gemma_extras, _gemma_fit)
ARCHITECTURES = {"llama": _LLAMA, "mistral": _LLAMA, "gemma3_text": _GEMMA}
