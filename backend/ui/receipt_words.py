"""The facts of a receipt (see engine/receipt.py) as rows of words, one column a lane. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from backend.ui.figures import count, share, size, three

Receipt = dict[str, Any]
UNKNOWN = "not known"
POOLING = {"mean": "mean of the last hidden states", "first": "the first token's last hidden state"}


def rows(receipts: dict[str, Receipt]) -> list[tuple[str, dict[str, str]]]:
    """Every fact's name, and what it is in each lane; a fact that no lane knows is left out."""
    made = [(title, {name: tell(receipt) for name, receipt in receipts.items()}) for title, tell in FACTS.items()]
    return [(title, cells) for title, cells in made if set(cells.values()) != {UNKNOWN}]


def differs(cells: dict[str, str], lane: str) -> bool:
    """Whether a lane's cell says something else than the baseline's."""
    return lane != "base" and "base" in cells and cells[lane] != cells["base"]


def left_out(receipt: Receipt) -> list[str]:
    """Every layer that a switch left as it was, with the reason: 'model.layers.*.norm: norms stay fp32'."""
    skipped = [one for effect in receipt.get("effects", ()) for one in effect.get("skipped", ())]
    by_reason: dict[str, list[str]] = {}
    for one in skipped:
        by_reason.setdefault(one["reason"], []).append(one["layer"])
    return [f"{', '.join(layers)}: {reason}" for reason, layers in by_reason.items()]


def _layers(receipt: Receipt) -> str:
    return _joined(f"{one['count']} {one['class']} {one['format']}" for one in receipt.get("families", ()))


def _held(receipt: Receipt) -> str:
    held = receipt.get("weights_bytes")
    return UNKNOWN if held is None else size(held)


def _bits(receipt: Receipt) -> str:
    bits = receipt.get("bits_per_weight")
    return UNKNOWN if bits is None else f"{three(bits)} of {count(receipt.get('weights'))} weights"


def _sparsity(receipt: Receipt) -> str:
    found, looked_at = receipt.get("sparsity"), receipt.get("sparsity_of")
    if found is None:
        return UNKNOWN
    whole = "" if looked_at == receipt.get("weights") else f" of the {count(looked_at)} that can be read"
    return f"{share(found)}{whole}"


def _sparsity_by_class(receipt: Receipt) -> str:
    found = [one for one in receipt.get("families", ()) if one["weights"] and one["sparsity"] != 0]
    return _joined(
        f"{one['class']} {one['format']} {'packed' if one['sparsity'] is None else share(one['sparsity'])}"
        for one in found
    )


def _number(key: str) -> Callable[[Receipt], str]:
    return lambda receipt: by_layer(receipt.get(key))


def by_layer(value: int | list[int] | None) -> str:
    """One number for all layers, or runs of equal ones: '8 in layers 0 to 5, 6 in layer 6'."""
    if not isinstance(value, list):
        return UNKNOWN if value is None else str(value)
    runs: list[tuple[int, int, int]] = []  # number, first layer, last layer
    for layer, number in enumerate(value):
        if runs and runs[-1][0] == number:
            runs[-1] = number, runs[-1][1], layer
        else:
            runs.append((number, layer, layer))
    return ", ".join(f"{n} in layer{f's {a} to {b}' if b > a else f' {a}'}" for n, a, b in runs)


def _kv_bytes(receipt: Receipt) -> str:
    held = receipt.get("kv_bytes_per_token")
    return UNKNOWN if held is None else size(held)


def _growth(receipt: Receipt) -> str:
    return _joined(f"{one['count']} {one['class']}: {one['grows']}" for one in receipt.get("kv_layers", ()))


def _kernels(key: str) -> Callable[[Receipt], str]:
    def tell(receipt: Receipt) -> str:
        run = receipt.get("run")
        if run is None or key not in run:
            return UNKNOWN
        inside = " (compiled code may hold it)" if run.get("compiled_regions") and key == "decode_kernels" else ""
        return _joined(f"{name}, {times} times" for name, times in run[key].items()) if run[key] else f"none{inside}"

    return tell


def _run(receipt: Receipt, key: str) -> Any:
    return (receipt.get("run") or {}).get(key)


def _compiled(receipt: Receipt) -> str:
    facts = receipt.get("compiled")
    if "compiled" not in receipt:
        return UNKNOWN
    if not facts:
        return "no"
    return f"{facts['mode']}, graphs: {facts['graphs']}, graph breaks: {facts['graph_breaks']}"


def _threads(receipt: Receipt) -> str:
    allowed, busy = receipt.get("threads"), _run(receipt, "busy_threads")
    if allowed is None:
        return UNKNOWN
    return str(allowed) if busy is None else f"{allowed}, {busy} computed"


def _places(receipt: Receipt) -> str:
    return _joined(f"{number} tensors on {place}" for place, number in receipt.get("places", {}).items())


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(parts) or UNKNOWN


FACTS: dict[str, Callable[[Receipt], str]] = {
    "Layers that hold weights": _layers,
    "Weights held": _held,
    "Bits per weight": _bits,
    "Zeros among weights": _sparsity,
    "Zeros by class": _sparsity_by_class,
    "Layers": _number("layers"),
    "Heads": _number("heads"),
    "KV heads": _number("kv_heads"),
    "Head size": _number("head_dim"),
    "Sentence vector": lambda receipt: POOLING.get(receipt.get("pooling", ""), UNKNOWN),
    "KV bytes per token": _kv_bytes,
    "Cache": lambda receipt: _run(receipt, "cache") or UNKNOWN,
    "Its layers grow": _growth,
    "Attention kernel in prefill": _kernels("prefill_kernels"),
    "Attention kernel in decode": _kernels("decode_kernels"),
    "Attention kernel in encoding": _kernels("encode_kernels"),
    "Compiled": _compiled,
    "Threads": _threads,
    "Device": _places,
}
