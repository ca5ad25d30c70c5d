"""Wanda: by hand on one matrix, and on a model what the layers before it really write."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from backend.recipe.switches.sparsity import Wanda
from backend.techniques.base import Subject, decoder_layers
from backend.techniques.prune.masks import choose
from backend.techniques.prune.wanda import importance
from backend.techniques.registry import apply_switch


def test_by_hand() -> None:
    """||x|| is (5, 1, 2): of the first row 1 x 5, 4 x 1 and 3 x 2, so that the second weight goes, though it is the
    largest."""
    inputs = torch.tensor([[3.0, 1.0, 0.0], [4.0, 0.0, 2.0]])
    weight = torch.tensor([[1.0, -4.0, 3.0], [0.1, 2.0, -0.1]])
    scores = importance(weight, inputs.square().sum(0))
    torch.testing.assert_close(scores, torch.tensor([[5.0, 4.0, 6.0], [0.5, 2.0, 0.2]]))
    assert choose(scores, 1 / 3, "none", by_row=True).tolist() == [[False, True, False], [False, False, True]]


def entering(subject: Subject, layer: int) -> Tensor:
    """Squares of what enters a layer's up projection over the calibration text, summed."""
    assert subject.read_text
    ids, heard = subject.read_text("", 512).ids, list[Tensor]()
    up = decoder_layers(subject.model)[layer].mlp.up_proj
    handle = up.register_forward_pre_hook(lambda module, args: heard.append(args[0].detach().flatten(0, -2)))
    with torch.no_grad():
        for start in (0, 256):
            subject.model(input_ids=torch.tensor([ids[start : start + 256]]), use_cache=False)
    handle.remove()
    return torch.cat(heard).square().sum(0)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_layer_is_judged_on_what_the_pruned_layers_before_it_write(any_subject: Subject, layer: int) -> None:
    block = decoder_layers(any_subject.model)[layer]
    before = copy.deepcopy(block.state_dict())
    apply_switch(any_subject, Wanda(tokens=512))
    gone = block.mlp.up_proj.weight == 0
    assert (gone.sum(dim=1) == 32).all()
    block.load_state_dict(before)  # as it was when it was judged, with pruned layers before it
    weight = block.mlp.up_proj.weight
    assert torch.equal(gone, choose(importance(weight, entering(any_subject, layer)), 0.5, "none", by_row=True))
