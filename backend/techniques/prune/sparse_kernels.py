"""Sparse kernels: matrices with many zeros held without them, where this machine is then faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from backend.recipe.switches.sparse_kernels import SparseKernels
from backend.techniques.base import Effect, Skipped, Subject, replace_module, tensor_bytes
from backend.techniques.prune.masks import holds
from backend.techniques.prune.sparse_linear import BlockLinear, CsrLinear, SparseLinear, TwoOfFourLinear, blocks_kept
from backend.techniques.prune.trial import Trial, compare, wrong
from backend.techniques.registry import technique
from backend.techniques.zeros import count_zeros

LEAST = 0.3  # share of zeros below which nothing is tried
FILLED = 1.1  # so many times what is not zero may blocks hold
BAND = 20  # layers of one shape whose shares of zeros are the same in twentieths are timed together
HALVES = (torch.float16, torch.bfloat16)

Layers = dict[str, nn.Linear]


@technique(SparseKernels)
class SparseKernelChoice:
    """CSR by torch.sparse and blocks by torch.bmm on a CPU, 2:4 by torch.sparse on a GPU; each only where it gains.

    Layers of one shape and one share of zeros are timed together in turns with their dense selves, all of them, since
    one layer alone would stay in the caches. What is faster for one row stays, in an encoder what is for 128.
    """

    def apply(self, subject: Subject, switch: SparseKernels) -> None:
        """Time every group of layers, and replace those that gain."""
        reasons: dict[str, str] = {}
        trials: list[Trial] = []
        subject.notes[switch.kind] = {"reasons": reasons, "trials": trials}
        groups = _groups(subject, reasons)
        for done, ((form, _, _), layers) in enumerate(groups.items()):
            first = next(iter(layers.values()))
            rows, columns = first.weight.shape
            subject.progress(done / len(groups), f"Timing sparse kernels: {rows} x {columns}, {len(layers)} layers")
            self._try(subject, switch, form, layers)

    def _try(self, subject: Subject, switch: SparseKernels, form: type[SparseLinear], layers: Layers) -> None:
        note = subject.notes[switch.kind]
        try:
            sparse = [form(layer).eval() for layer in layers.values()]
            why = next(filter(None, map(wrong, layers.values(), sparse)), None)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            why = f"{form.sparse_format}: it cannot be made ({str(error).strip().splitlines()[0][:120]})"
        if why:
            note["reasons"] |= dict.fromkeys(layers, why)
            return
        zeros = sum(_share(layer.weight) for layer in layers.values()) / len(layers)
        trial = compare(list(layers.values()), sparse, zeros)
        note["trials"].append(trial)
        if (trial.prefill if subject.facts.task == "encoder" else trial.decode) < switch.gain:
            note["reasons"] |= dict.fromkeys(layers, f"stays dense, {trial.words}")
            return
        for name, layer in zip(layers, sparse, strict=True):
            replace_module(subject.model, name, layer)

    def read_back(self, subject: Subject, switch: SparseKernels) -> Effect:
        """Count the sparse layers of the live model and the bytes that they hold."""
        note = subject.notes.get(switch.kind, {})
        trials: list[Trial] = note.get("trials", [])
        live = [layer for layer in subject.model.modules() if isinstance(layer, SparseLinear)]
        every = len(live) + sum(1 for _ in _dense(subject))
        held = tensor_bytes(*(tensor for layer in live for tensor in _tensors(layer)))
        dense = sum(layer.in_features * layer.out_features * _width(layer) for layer in live)
        facts: dict[str, str | int | float | None] = {
            "linear_layers": every,
            "sparse_layers": len(live),
            "classes": ", ".join(f"{name} x {count}" for name, count in _tally(live)) or "none",
            "sparse_bytes": held,
            "dense_bytes": dense,
            "trials": "; ".join(trial.words for trial in trials) or None,
            "break_even": _middle([trial.break_even for trial in trials]),
            "decode_ratio": _middle([trial.decode for trial in trials]),
            "prefill_ratio": _middle([trial.prefill for trial in trials]),
        }
        return Effect(
            kind=switch.kind,
            took_effect=bool(live),
            summary=_summary(len(live), every, held, dense, trials),
            facts=facts,
            skipped=[Skipped(name, reason) for name, reason in note.get("reasons", {}).items()],
        )


def _summary(live: int, every: int, held: int, dense: int, trials: list[Trial]) -> str:
    if live:
        times = "; ".join(f"{one.shape} {one.decode:.2f}x" for one in sorted(trials, key=lambda one: -one.decode)[:2])
        return f"{live} of {every} linear layers without their zeros, {held / dense:.0%} of the bytes; timed {times}"
    if trials:
        best = max(trials, key=lambda trial: trial.decode)
        return f"nothing gains here: at best {best.words}"
    return f"none of {every} linear layers has zeros enough: at least {LEAST:.0%} are needed for a trial"


def _groups(subject: Subject, reasons: dict[str, str]) -> dict[tuple[type[SparseLinear], torch.Size, int], Layers]:
    """Layers by the form that they might have, their shape and their share of zeros."""
    found: dict[tuple[type[SparseLinear], torch.Size, int], Layers] = {}
    for name, layer in _dense(subject):
        share = _share(layer.weight)
        if share < LEAST:
            reasons[name] = f"{share:.0%} zeros: no trial below {LEAST:.0%}"
            continue
        found.setdefault((_form(layer.weight, share), layer.weight.shape, round(BAND * share)), {})[name] = layer
    return found


def _form(weight: Tensor, share: float) -> type[SparseLinear]:
    """What may be fastest for the zeros as they lie."""
    halves = weight.device.type == "cuda" and weight.dtype in HALVES
    if halves and weight.shape[1] % 4 == 0 and holds("2:4", weight, 0.5):
        return TwoOfFourLinear
    return BlockLinear if blocks_kept(weight) <= FILLED * (1 - share) else CsrLinear


def _dense(subject: Subject) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers of floats but for the output head, whose matrix may be the embedding's."""
    head = subject.model.get_output_embeddings()
    for name, layer in subject.linears().items():
        if layer is not head and layer.weight.is_floating_point():
            yield name, layer


def _share(weight: Tensor) -> float:
    return count_zeros(weight.detach()) / max(1, weight.numel())


def _tensors(layer: SparseLinear) -> Iterator[Tensor]:
    for tensor in (*layer.buffers(), *layer.parameters()):
        if hasattr(tensor, "__tensor_flatten__"):
            yield from (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor


def _width(layer: SparseLinear) -> int:
    return next(tensor for tensor in _tensors(layer) if tensor.is_floating_point()).element_size()


def _tally(layers: list[SparseLinear]) -> list[tuple[str, int]]:
    return Counter(f"{layer._get_name()} ({layer.sparse_format})" for layer in layers).most_common()


def _middle(values: list[float]) -> float | None:
    """The median, for one figure where shapes differ."""
    return round(sorted(values)[len(values) // 2], 3) if values else None
