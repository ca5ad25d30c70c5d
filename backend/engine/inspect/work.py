"""Work: bytes that each part must move and operations that it must do in one call, from the shapes that passed.

M rows enter a matrix of K inputs and N outputs; a number of the activations takes a bytes, one of the cache e bytes.

    matrix     2 M K N operations     the matrix as it is stored + M (K + N) a bytes
    attention  4 h d P operations     2 k d S e bytes a layer: h heads and k KV heads of size d, S cached tokens read,
                                      P pairs of a query and a key that it may see (T (T + 1) / 2 for T tokens at once)
    norm       4 n operations         2 n a bytes, n numbers normed
    embed      none                   2 n a bytes, n numbers looked up
    cache      none                   2 T k d e bytes a layer: new keys and values
    sampling   V operations           4 V bytes

Caches of the processor, copies and temporary results are left out: this is the least that a call needs, so a part
that moves more shows as one that reaches neither roof. (Williams et al. 2009, Roofline.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn
from transformers import Cache

from backend.engine.decode import Decoder
from backend.engine.inspect.partmap import part_names
from backend.recipe.race import Sampling
from backend.techniques.anatomy import pass_one_token, text_config
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import layer_bytes
from backend.techniques.quantize.layers import is_linear

Work = dict[str, dict[str, float]]  # part -> bytes, flops


def measure_work(subject: Subject, prompt: list[int]) -> dict[str, Work]:
    """The work of reading the prompt in one call, and of the one-token step after it, without a proposer."""
    plain = replace(subject, plan=replace(subject.plan, proposer=None, forward=None))
    decoder = Decoder(plain, Sampling(), seed=1)
    with _recorded(subject) as prefill:
        decoder.start(prompt, room=4)
    _add_attention(prefill, subject, decoder.cache, len(prompt), len(prompt))
    with _recorded(subject) as decode:
        decoder.step()
    _add_attention(decode, subject, decoder.cache, 1, len(prompt) + 1)
    return {"prefill": prefill, "decode": decode}


@contextmanager
def _recorded(subject: Subject) -> Iterator[Work]:
    """What modules do in the calls inside the block."""
    work: Work = {"sampling": {"bytes": 4.0 * subject.facts.vocab, "flops": float(subject.facts.vocab)}}
    parts = part_names(subject)
    embedding = subject.model.get_input_embeddings()
    handles = []
    for name, module in subject.model.named_modules():
        kind = "embed" if module is embedding else _kind(module)
        if kind:
            hook = _hook(work, parts[name], kind)
            handles.append(module.register_forward_hook(hook))
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()


def _kind(module: nn.Module) -> str | None:
    if is_linear(module):
        return "matrix"
    return "norm" if "norm" in type(module).__name__.lower() else None


def _hook(work: Work, part: str, kind: str) -> Any:
    def record(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        numbers, size = output.numel(), output.element_size()
        if kind == "matrix":
            width_in, width_out = matrix_shape(module)
            rows = numbers // width_out
            moved = layer_bytes(module) + rows * (width_in + width_out) * size
            multiplied = getattr(module, "multiplied", width_in * width_out)  # less where zeros are not held
            _add(work, part, moved, 2 * rows * int(multiplied))
        else:
            _add(work, part, 2 * numbers * size, 4 * numbers if kind == "norm" else 0)

    return record


def matrix_shape(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a layer that multiplies by one matrix; GPT-2's Conv1D holds it as (in, out)."""
    width_in, width_out = getattr(layer, "in_features", None), getattr(layer, "out_features", None)
    if isinstance(width_in, int) and isinstance(width_out, int):
        return width_in, width_out
    rows, columns = cast(Tensor, layer.weight).shape
    return int(rows), int(columns)


def _add_attention(work: Work, subject: Subject, cache: Cache, tokens: int, total: int) -> None:
    """Scores and weighted sums of every layer that cached anything, and what was added to its cache."""
    widths = pass_one_token(subject.model).attention  # heads * size, by layer: pruned heads may differ
    alike = int(text_config(subject.model).num_attention_heads)
    for number, layer in enumerate(cache.layers):
        keys = getattr(layer, "keys", None)
        if not isinstance(keys, Tensor) or keys.dim() != 4:
            continue
        _, kv_heads, held, width = keys.shape
        seen = [min(place, held) for place in range(total - tokens + 1, total + 1)]
        one = 2 * kv_heads * width * keys.element_size()  # bytes of one token
        query = widths[number] if number < len(widths) else alike * width
        _add(work, "attention", one * max(seen), 4 * query * sum(seen))
        _add(work, "cache", one * tokens, 0)


def _add(work: Work, part: str, moved: float, flops: float) -> None:
    sums = work.setdefault(part, {"bytes": 0.0, "flops": 0.0})
    sums["bytes"] += moved
    sums["flops"] += flops
