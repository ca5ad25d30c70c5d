"""AWQ: int4 after the inputs that matter most were scaled up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.recipe.switches.four_bits import Awq
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import calibration_text, kept
from backend.techniques.hessian import output_error
from backend.techniques.quantize.chosen import Chosen
from backend.techniques.quantize.fold import Fold, folds, unchanged
from backend.techniques.quantize.gptq_rounding import diagonal_blocks
from backend.techniques.quantize.groups import FOUR_BITS, as_groups, blocks_of, ranges, searched_ranges
from backend.techniques.quantize.int4_layers import calibrated_effect, pack_calibrated, stays
from backend.techniques.quantize.int4_linear import nearest_weight
from backend.techniques.quantize.layers import head_name
from backend.techniques.registry import technique
from backend.techniques.walk import Heard, Walk

METHOD = "AWQ"
ALPHAS = tuple(step / 20 for step in range(20))  # 0 is rounding to nearest as it is
LARGEST_SCALE = 1e3  # and its inverse the smallest: a norm's weight must bear it


@technique(Awq)
class AwqWeights:
    """Lin et al. 2023: s = mean|x|^alpha over the text, alpha by the error of the output, W s rounded, 1 / s folded.

    Scales go into the norm or the matrix that wrote the input, so that a step computes nothing more. What nothing can
    be folded into (the output projection of grouped-query attention, the head) gets the search for shrunk ranges only.
    One pass over the text in float, as the authors do.

    Own code: torchao 0.18's AWQ keeps 1 / s in the weight tensor and multiplies at every step, and needs an int4
    tensor that it no longer has for a CPU.
    """

    def apply(self, subject: Subject, switch: Awq) -> None:
        """Choose scales and codes on the text or take those chosen before, fold, and pack every linear layer."""
        text = calibration_text(subject, switch)
        found, shelved = kept(subject, switch, text, lambda: choose_all(subject, switch, text).tensors())
        chosen = Chosen.of(found)
        every = folds(subject, switch.kind)
        with unchanged(subject):
            for index, scale in chosen.folds.items():
                every[index].apply(scale)
        pack_calibrated(subject, switch, chosen, METHOD, text, shelved)

    def read_back(self, subject: Subject, switch: Awq) -> Effect:
        """Count the packed layers in the live model; errors are those of the calibration text."""
        return calibrated_effect(subject, switch, METHOD)


def choose_all(subject: Subject, switch: Awq, text: CalibrationText) -> Chosen:
    """Scales of every fold and codes of every matrix that they leave; the model stays as it is."""
    walk, chosen, head = Walk(subject, switch.kind, text), Chosen(), head_name(subject.model)
    by_names = {frozenset(fold.names): (index, fold) for index, fold in enumerate(folds(subject, switch.kind))}
    for index in range(len(walk.layers)):
        subject.progress(index / len(walk.layers), f"AWQ on {text.source}: layer {index + 1} of {len(walk.layers)}")
        groups = walk.readers(index)
        heard = walk.hear(index, {name: layer for readers in groups for name, layer in list(readers.items())[:1]})
        walk.leave(index)
        _choose_layer(chosen, switch, groups, list(heard.values()), by_names)
    if head and switch.head == "int4":
        subject.progress(1.0, f"AWQ on {text.source}: {head}")
        layer, into = subject.linears()[head], walk.hear_head()
        if into.usable:
            _choose_matrix(chosen, switch, head, layer.weight.detach().float(), into, None, None)
    return chosen


def _choose_layer(
    chosen: Chosen,
    switch: Awq,
    groups: list[dict[str, nn.Linear]],
    heard: list[Heard],
    by_names: dict[frozenset[str], tuple[int, Fold]],
) -> None:
    """All matrices of one decoder layer: first the scales, since one that is written into changes its own rows."""
    scales: list[Tensor | None] = []
    written: dict[int, Tensor] = {}  # by the writer: what its rows are divided by
    for readers, into in zip(groups, heard, strict=True):
        place, fold = by_names.get(frozenset(readers), (-1, None))
        if fold is None or not into.usable:
            scales.append(None)
            continue
        scale = best_scale([layer.weight.detach().float() for layer in readers.values()], into, switch.group_size)
        chosen.folds[place] = scale
        scales.append(scale)
        written[id(fold.writer)] = scale
    for readers, into, columns in zip(groups, heard, scales, strict=True):
        for name, layer in readers.items():
            if into.usable and not stays(switch, name, layer, None):
                weight = layer.weight.detach().float()
                _choose_matrix(chosen, switch, name, weight, into, columns, written.get(id(layer)))


def _choose_matrix(
    chosen: Chosen, switch: Awq, name: str, weight: Tensor, heard: Heard, scale: Tensor | None, rows: Tensor | None
) -> None:
    """Codes of W s / rows, with the errors of outputs before they are divided."""
    width = weight.shape[1]
    scale = torch.ones(width) if scale is None else scale
    rows = torch.ones(weight.shape[0]) if rows is None else rows
    blocks = blocks_of(weight * scale / rows[:, None], switch.group_size)
    hessian = heard.hessian / (scale[:, None] * scale)
    if switch.search:
        padded = F.pad(hessian, (0, -width % switch.group_size) * 2)
        low_high = searched_ranges(blocks, FOUR_BITS, diagonal_blocks(padded, switch.group_size))
    else:
        low_high = ranges(blocks, FOUR_BITS)
    chosen.groups[name] = as_groups(FOUR_BITS.codes(blocks, *low_high), *low_high)
    ours = chosen.groups[name].weight()[:, :width] * rows[:, None] / scale
    plain = nearest_weight(weight, switch.group_size)
    chosen.errors[name] = (output_error(weight, ours, heard.hessian), output_error(weight, plain, heard.hessian))


def best_scale(weights: list[Tensor], heard: Heard, group_size: int) -> Tensor:
    """The scales (K,) with which matrices (N, K) of one input, rounded to nearest, err least in what they write.

    Inputs that were always zero on the text keep the scale 1.
    """
    weight = torch.cat(weights)
    live = heard.mean > 0
    mean = torch.where(live, heard.mean, torch.ones_like(heard.mean))
    best, least = torch.ones_like(mean), float("inf")
    for alpha in ALPHAS:
        scale = mean**alpha
        scale = scale / (scale[live].amax() * scale[live].amin()).sqrt()
        scale = torch.where(live, scale, torch.ones_like(scale)).clamp(1 / LARGEST_SCALE, LARGEST_SCALE)
        off = nearest_weight(weight * scale, group_size) / scale - weight
        error = float(((off @ heard.hessian) * off).sum())
        if error < least:
            best, least = scale, error
    return best
