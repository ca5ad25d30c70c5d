"""What really happens in a layer on a little text: what enters a matrix, how the loss moves, where attention looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.techniques.anatomy import text_config
from backend.techniques.base import Subject

CALIBRATION_TOKENS = 512
WINDOW = 64  # tokens of one text whose loss is derived
TEXTS = 4
SILENCED, JUDGED = 128, 48  # tokens of the text on which units are silenced one by one, and the last ones that tell


@dataclass(frozen=True)
class Part:
    """One layer's units: equal shares of what enters one matrix, the first unit first."""

    entered: nn.Linear  # (hidden, units * size): the output projection of an attention, or of a feed-forward block
    units: int
    rows: tuple[nn.Linear, ...] = ()  # matrices whose outputs belong to the units too, as many to each
    attention: nn.Module | None = None  # gives its weights as its second output, where it computes them


@torch.inference_mode()
def measure(subject: Subject, parts: Sequence[Part], score: Callable[[Part, Tensor], Tensor]) -> list[Tensor]:
    """Run the subject's text through the model once, and score what enters the matrix of each part.

    Args:
        score: gets a part and its input (T, in_features) in float32, gives any tensor; only that is kept.

    Returns:
        One score a part, in their order.
    """
    scores: dict[int, Tensor] = {}

    def recorder(place: int, part: Part) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            scores[place] = score(part, args[0].flatten(0, -2).float()).clone()

        return record

    hooks = [part.entered.register_forward_pre_hook(recorder(place, part)) for place, part in enumerate(parts)]
    with _released(hooks):
        run(subject, subject.sample_ids[:CALIBRATION_TOKENS])
    return [scores[place] for place in range(len(parts))]


def run(subject: Subject, ids: list[int]) -> Any:
    """One call of the model without a cache; of a decoder only the last logits are computed."""
    inputs = torch.tensor([ids], device=subject.device)
    if subject.facts.task == "encoder":
        return subject.model(input_ids=inputs)
    return subject.model(input_ids=inputs, use_cache=False, logits_to_keep=1)


def gate_slopes(subject: Subject, parts: Sequence[Part]) -> list[Tensor]:
    """|dL / d gate| of every unit (units,), mean over texts; a gate of 1 stands where the unit enters its matrix.

    That is |sum of gradient times activation|, the first-order change of L without the unit: Molchanov et al. 2017,
    Michel et al. 2019. L is a decoder's loss in nats a token. An encoder has no labels here: L is then its sentence
    vector along a random direction, another one for each text, so that the slope says how far the vector moves.
    """
    sums = [torch.zeros(part.units, device=subject.device) for part in parts]
    texts = _texts(subject.sample_ids)
    for number, ids in enumerate(texts):
        gates = [torch.ones(part.units, device=subject.device, requires_grad=True) for part in parts]
        hooks = [part.entered.register_forward_pre_hook(_gated(gate)) for part, gate in zip(parts, gates, strict=True)]
        with _released(hooks), torch.enable_grad():
            slopes = torch.autograd.grad(_loss(subject, ids, number), gates)
        sums = [total + slope.abs() / len(texts) for total, slope in zip(sums, slopes, strict=True)]
    return sums


def _texts(ids: list[int]) -> list[list[int]]:
    """Windows of 64 tokens, four at most; one that is shorter only where there is no other."""
    found = [ids[start : start + WINDOW] for start in range(0, TEXTS * WINDOW, WINDOW)]
    return [text for text in found if len(text) > WINDOW // 2] or found[:1]


def _gated(gate: Tensor) -> Any:
    def apply(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        parts = args[0].unflatten(-1, (len(gate), -1))  # (B, T, units, size)
        return ((parts * gate[:, None].to(parts.dtype)).flatten(-2),)

    return apply


def _loss(subject: Subject, ids: list[int], number: int) -> Tensor:
    inputs = torch.tensor([ids], device=subject.device)
    if subject.facts.task == "encoder":
        vector = _vector(subject, inputs)
        direction = torch.randn(len(vector), generator=torch.Generator().manual_seed(number))
        return vector @ direction.to(vector)
    logits = subject.model(input_ids=inputs, use_cache=False).logits[0, :-1]  # (T - 1, V)
    return F.cross_entropy(logits.float(), inputs[0, 1:])


def _vector(subject: Subject, inputs: Tensor) -> Tensor:
    """The unit vector (H,) of a text, pooled as the encoder was trained to be."""
    hidden = subject.model(input_ids=inputs).last_hidden_state[0].float()  # (T, H)
    return F.normalize(hidden[0] if subject.pooling == "first" else hidden.mean(0), dim=0)


@torch.inference_mode()
def silenced(subject: Subject, parts: Sequence[Part]) -> list[Tensor]:
    """What changes when each unit alone is silenced (units,); one call of the model a unit, so it takes long.

    Mean KLD in nats over the last tokens of a text; of an encoder 1 - cosine of its sentence vector.
    """
    ids = subject.sample_ids[:SILENCED]
    whole, found = _answer(subject, ids), []
    for done, part in enumerate(parts):
        subject.progress(done / len(parts), f"Silencing heads of layer {done}")
        row = []
        for unit in range(part.units):
            gate = torch.ones(part.units, device=subject.device)
            gate[unit] = 0
            with _released([part.entered.register_forward_pre_hook(_gated(gate))]):
                row.append(_distance(subject, whole, _answer(subject, ids)))
        found.append(torch.tensor(row, device=subject.device))
    return found


def _answer(subject: Subject, ids: list[int]) -> Tensor:
    """Log-probabilities (T, V) at the last places, or an encoder's sentence vector (H,)."""
    inputs = torch.tensor([ids], device=subject.device)
    if subject.facts.task == "encoder":
        return _vector(subject, inputs)
    logits = subject.model(input_ids=inputs, use_cache=False, logits_to_keep=JUDGED).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def _distance(subject: Subject, whole: Tensor, less: Tensor) -> float:
    if subject.facts.task == "encoder":
        return float(1 - whole @ less)
    return float((whole.exp() * (whole - less)).sum(-1).clamp_min(0).mean())


@torch.inference_mode()
def attention_spread(subject: Subject, parts: Sequence[Part]) -> list[Tensor]:
    """How spread each unit's attention is (units,), from one token (0) to all alike (1); a mean over its query heads.

    Empty for a model whose attention does not give its weights away. Computed eagerly; the kernel is put back.
    """
    found: dict[int, Tensor] = {}

    def keeper(place: int, units: int) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(weights, Tensor) and weights.dim() == 4:
                found[place] = spread(weights[0].float()).mean(1).reshape(units, -1).mean(1).clone()

        return keep

    hooks = [
        part.attention.register_forward_hook(keeper(place, part.units))
        for place, part in enumerate(parts)
        if part.attention is not None
    ]
    with _released(hooks), eager(subject):
        run(subject, subject.sample_ids[:CALIBRATION_TOKENS])
    return [found[place] for place in range(len(parts))] if len(found) == len(parts) else []


def spread(weights: Tensor) -> Tensor:
    """Entropy of what each token but the first looks at, over the logarithm of how many it may see; (H, T - 1).

    Args:
        weights: (H, T, T), each row sums to 1. What no head gives any weight to counts as unseen.
    """
    rows = weights[:, 1:]
    seen = (rows > 0).any(0).sum(-1).clamp_min(2)  # (T - 1,) a sliding window sees fewer
    entropy: Tensor = -(rows * rows.clamp_min(1e-12).log()).sum(-1) / seen.float().log()
    return entropy.clamp(0, 1)


@contextmanager
def eager(subject: Subject) -> Iterator[None]:
    """A model that computes its attention as a matrix, so that it can be looked at."""
    config = text_config(subject.model) if subject.facts.task == "decoder" else subject.model.config
    before = config._attn_implementation
    subject.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        subject.model.set_attn_implementation(before)


@contextmanager
def _released(hooks: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
