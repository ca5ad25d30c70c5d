"""Reading a live model back: which layers hold what, and an effect made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear

from backend.techniques.base import Effect, Skipped, Subject
from backend.techniques.quantize.counting import float_name, layer_bytes, weight_bytes
from backend.techniques.quantize.int4_linear import Int4Linear
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import group_skipped, head_name, linear_like
from backend.techniques.quantize.packed_embedding import PackedEmbedding
from backend.techniques.quantize.split_linear import SplitLinear
from backend.techniques.quantize.w8a8_linear import W8A8Linear

TORCHAO = {"Float8Tensor": "fp8", "Int8Tensor": "int8", "Int4TilePackedTo4dTensor": "int4"}
FLOATS = frozenset({"float32", "bfloat16", "float16", "float64"})


def layer_format(layer: nn.Module) -> str:
    """What one layer's matrix is made of: 'float32', 'int8', 'int4', 'qint8', 'w8a8', 'csr', 'nf4', or a class."""
    if isinstance(layer, DynamicLinear):
        return "qint8"
    if isinstance(layer, PackedEmbedding):
        return f"int{layer.bits}"
    if isinstance(sparse := getattr(layer, "sparse_format", None), str):
        return sparse
    if isinstance(layer, SplitLinear):
        return "split"
    if isinstance(layer, Int4Linear):
        return "int4"
    if isinstance(layer, W8A8Linear):
        return "w8a8"
    weight: Any = layer.packed if isinstance(layer, Int8Linear) else layer.weight
    if getattr(weight, "quant_state", None) is not None:  # bitsandbytes, 4 bit
        return str(weight.quant_state.quant_type)
    if hasattr(weight, "__tensor_flatten__"):
        return TORCHAO.get(type(weight).__name__, type(weight).__name__)
    return float_name(weight.dtype)


def quantization_effect(subject: Subject, kind: str, wanted: Callable[[nn.Module], bool]) -> Effect:
    """The receipt of a quantization: everything in it is counted in the live model.

    Args:
        wanted: whether a layer is what the switch asked for; with none of them it had no effect.
    """
    model, note = subject.model, subject.notes.get(kind, {})
    layers = linear_like(model)
    formats = {name: layer_format(layer) for name, layer in layers.items()}
    quantized = {name: layer for name, layer in layers.items() if formats[name] not in FLOATS}
    hits = sum(wanted(layer) for layer in quantized.values())
    weights = sum(matrix_size(layer) for layer in quantized.values())
    stored = layer_bytes(*quantized.values(), bias=False)
    head = head_name(model)
    facts: dict[str, str | int | float | None] = {
        "linear_layers": len(layers),
        "quantized_layers": len(quantized),
        "formats": _tally(formats.values()),
        "classes": _tally(layer._get_name() for layer in layers.values()),
        "head": formats.get(head or "", "none"),
        "bits_per_weight": round(8 * stored / weights, 3) if weights else None,
        "weight_bytes": weight_bytes(model),
        "weight_bytes_before": note.get("bytes_before"),
        "conv1d_unfolded": note.get("conv1d_unfolded", 0),
    }
    return Effect(
        kind=kind,
        took_effect=hits > 0,
        summary=_summary(formats, quantized, head) if hits else f"none of {len(layers)} linear layers was changed",
        facts=facts,
        skipped=_skipped(model, formats, note.get("reasons", {})),
    )


def matrix_size(layer: nn.Module) -> int:
    """Numbers in the matrix of a linear layer, whatever it is packed into."""
    return int(layer.in_features) * int(layer.out_features)  # type: ignore[arg-type]


def _tally(words: object) -> str:
    """'int8 x 126, float32 x 1'."""
    return ", ".join(f"{word} x {count}" for word, count in Counter(words).most_common())  # type: ignore[call-overload]


def _summary(formats: dict[str, str], quantized: dict[str, nn.Module], head: str | None) -> str:
    body = {name: formats[name] for name in quantized if name != head}
    parts = [f"{count} of {len(formats)} linear layers {word}" for word, count in Counter(body.values()).most_common()]
    return ", ".join([*parts, f"head {formats[head]}"] if head in formats else parts)


def _skipped(model: nn.Module, formats: dict[str, str], reasons: dict[str, str]) -> list[Skipped]:
    """Linear layers that are still float with the recorded reason, then what is no linear layer at all."""
    unsaid = "left as it was; no reason was recorded"
    found = [(name, reasons.get(name, unsaid)) for name, word in formats.items() if word in FLOATS]
    for name, module in model.named_modules():
        if name in formats:
            continue
        for parameter in module._parameters.values():
            if parameter is None or parameter.ndim < 2:
                continue
            held = f"stays {float_name(parameter.dtype)} ({parameter.untyped_storage().nbytes():,} bytes)"
            what = "looked up, not multiplied" if isinstance(module, nn.Embedding) else "not a linear layer"
            found.append((name, f"{what}: {held}"))
    return group_skipped(found)
