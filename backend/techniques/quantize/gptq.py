"""GPTQ: int4 whose rounding errors are made good by the columns that follow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.recipe.switches.four_bits import Gptq
from backend.techniques.base import CalibrationText, Effect, Subject
from backend.techniques.calibrate import calibration_text, kept
from backend.techniques.hessian import output_error
from backend.techniques.quantize.chosen import Chosen
from backend.techniques.quantize.gptq_rounding import gptq_rounding
from backend.techniques.quantize.groups import FOUR_BITS, Groups
from backend.techniques.quantize.int4_layers import calibrated_effect, pack_calibrated, stays
from backend.techniques.quantize.int4_linear import nearest_weight
from backend.techniques.quantize.layers import head_name
from backend.techniques.registry import technique
from backend.techniques.walk import Heard, Walk

METHOD = "GPTQ"
ROWS = 1 << 15  # of a matrix that are rounded at a time: a head may have 262,144


@technique(Gptq)
class GptqWeights:
    """Frantar et al. 2022, one group of matrices after the other, each on what really enters it.

    Sequential, since it costs little: a decoder layer is run once for each of its inputs (four in a Llama), so that
    the output projection already sees quantized queries, keys and values, and a layer sees quantized layers before it.
    Five passes over the text in all, and the Hessian of one input at a time.

    Own code: torchao 0.18's `gptq_quantize` says 'GPTQ only supports CUDA' and its int4 config asks for mslk.
    """

    def apply(self, subject: Subject, switch: Gptq) -> None:
        """Choose codes on the text, or take those that were chosen before, and pack every linear layer."""
        text = calibration_text(subject, switch)
        found, shelved = kept(subject, switch, text, lambda: choose_all(subject, switch, text).tensors())
        pack_calibrated(subject, switch, Chosen.of(found), METHOD, text, shelved)

    def read_back(self, subject: Subject, switch: Gptq) -> Effect:
        """Count the packed layers in the live model; errors are those of the calibration text."""
        return calibrated_effect(subject, switch, METHOD)


def choose_all(subject: Subject, switch: Gptq, text: CalibrationText) -> Chosen:
    """Codes for every matrix of the decoder's layers, and of an int4 head; the layers are left with rounded weights."""
    walk, chosen, head = Walk(subject, switch.kind, text), Chosen(), head_name(subject.model)
    for index in range(len(walk.layers)):
        for readers in walk.readers(index):
            fit = {name: layer for name, layer in readers.items() if not stays(switch, name, layer, head)}
            if not fit:
                continue
            subject.progress(index / len(walk.layers), f"GPTQ on {text.source}: {next(iter(fit))}")
            heard = walk.hear(index, dict([next(iter(fit.items()))]))
            _round(chosen, switch, fit, *heard.values())
        walk.leave(index)
    if head and switch.head == "int4":
        subject.progress(1.0, f"GPTQ on {text.source}: {head}")
        _round(chosen, switch, {head: subject.linears()[head]}, walk.hear_head(), in_place=False)
    return chosen


def _round(chosen: Chosen, switch: Gptq, layers: dict[str, nn.Linear], heard: Heard, *, in_place: bool = True) -> None:
    """Choose the codes of matrices that read the same input; those that read nothing usable are left out."""
    if not heard.usable:
        return
    weight = torch.cat([layer.weight.detach().float() for layer in layers.values()])  # (N of all, K)
    groups = _in_parts(weight, heard.hessian, switch)
    if groups is None:
        return
    start, width = 0, weight.shape[1]
    for name, layer in layers.items():
        rows = slice(start, start + layer.out_features)
        start = rows.stop
        mine = Groups(groups.codes[rows], groups.scales_and_zeros[:, rows])
        rounded = mine.weight()[:, :width]
        chosen.groups[name] = mine
        chosen.errors[name] = (
            output_error(weight[rows], rounded, heard.hessian),
            output_error(weight[rows], nearest_weight(weight[rows], switch.group_size), heard.hessian),
        )
        if in_place:
            layer.weight.detach().copy_(rounded)


def _in_parts(weight: Tensor, hessian: Tensor, switch: Gptq) -> Groups | None:
    parts = []
    for start in range(0, weight.shape[0], ROWS):
        part = gptq_rounding(
            weight[start : start + ROWS],
            hessian,
            switch.group_size,
            FOUR_BITS,
            damping=switch.damping,
            act_order=switch.act_order,
            search=switch.search,
        )
        if part is None:
            return None
        parts.append(part)
    codes, scales = zip(*parts, strict=True)
    return Groups(torch.cat(codes), torch.cat(scales, dim=1))
