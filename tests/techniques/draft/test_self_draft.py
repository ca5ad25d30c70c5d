from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from backend.engine.decode import Decoder
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.recipe.switches.draft import SelfDraft
from backend.techniques.anatomy import stack
from backend.techniques.base import Run, Subject
from backend.techniques.draft.own_layers import OwnLayersProposer, SharedCacheProposer, few_layers
from backend.techniques.draft.self_draft import SelfDrafting, change, choose, new_weights

Build = Callable[..., Subject]
SIX = {"num_hidden_layers": 6}
SIX_GEMMA = SIX | {"layer_types": ["sliding_attention"] * 5 + ["full_attention"]}


def six(build: Build, shape: str) -> Subject:
    return build(shape, **(SIX_GEMMA if shape == "gemma" else SIX))


def decoded(subject: Subject, ids: list[int], count: int) -> list[int]:
    decoder = Decoder(subject, Sampling(), 1)
    decoder.start(ids, count)
    while len(decoder.ids) < len(ids) + count:
        decoder.step()
    return decoder.ids


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"keep": 2}, [0, 1]),
        ({"keep": 3, "which": "spread"}, [0, 2, 5]),
        ({"keep": 1, "which": "spread"}, [0]),
        ({"layers": "1 4"}, [1, 4]),
    ],
)
def test_layers_are_chosen_as_asked(build: Build, fields: dict[str, Any], kept: list[int]) -> None:
    assert choose(six(build, "llama"), SelfDraft(**fields), 6) == kept


def test_nearest_leaves_out_the_layers_that_change_least(build: Build) -> None:
    subject = six(build, "llama")
    with torch.no_grad():
        for idle in (1, 3):  # these add nothing to the residual stream
            stack(subject.model, "self_draft")[idle].self_attn.o_proj.weight.zero_()
            stack(subject.model, "self_draft")[idle].mlp.down_proj.weight.zero_()
    assert change(subject, "self_draft")[[1, 3]].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert choose(subject, SelfDraft(keep=4, which="nearest"), 6) == [0, 2, 4, 5]


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
def test_the_few_layers_compute_what_a_pruned_model_does(build: Build, shape: str) -> None:
    subject = six(build, shape)
    few = few_layers(subject, [0, 3, 5], "self_draft")
    before = [layer.self_attn.layer_idx for layer in stack(subject.model, "self_draft")]
    ids = torch.tensor([subject.sample_ids[:20]])
    pruned = six(build, shape)
    layers = stack(pruned.model, "self_draft")
    pruned.model.model.layers = torch.nn.ModuleList([layers[0], layers[3], layers[5]])
    pruned.model.config.num_hidden_layers = 3
    if shape == "gemma":
        pruned.model.config.layer_types = ["sliding_attention"] * 2 + ["full_attention"]
    with torch.inference_mode():
        ours = few.model(input_ids=ids, use_cache=False).logits
        theirs = pruned.model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours, theirs)
    assert before == list(range(6))  # the model itself is as it was
    assert len(stack(subject.model, "self_draft")) == 6
    assert subject.model.config.num_hidden_layers == 6


def test_it_adds_no_weights(build: Build) -> None:
    subject = six(build, "llama")
    SelfDrafting().apply(subject, SelfDraft(keep=2))
    assert new_weights(subject, subject.plan.proposer) == 0
    assert subject.plan.proposer.weights_bytes == 0
    assert subject.plan.proposer.kv_bytes == 0


GREEDY_WAYS = [{"keep": 2}, {"keep": 3, "which": "nearest"}, {"keep": 2, "branches": 3}]


@pytest.fixture(scope="module")
def own_text() -> dict[str, list[int]]:
    """What each shape writes with no draft, kept by the first test that needs it."""
    return {}


@pytest.mark.parametrize("cache", ["shared", "own"])
@pytest.mark.parametrize("fields", GREEDY_WAYS)
@pytest.mark.parametrize("shape", ["gqa", "gemma"])
def test_the_greedy_text_is_the_models_own(
    build: Build, own_text: dict[str, list[int]], shape: str, fields: dict[str, Any], cache: str
) -> None:
    subject = six(build, shape)
    ids = subject.sample_ids[:30]  # past Gemma's window of 16
    if shape not in own_text:
        own_text[shape] = decoded(six(build, shape), ids, 40)
    SelfDrafting().apply(subject, SelfDraft(**fields, cache=cache))
    assert decoded(subject, ids, 40) == own_text[shape]


def test_on_a_shared_cache_an_early_exit_guesses_as_with_its_own(build: Build) -> None:
    """The first layers' keys and values are the same, whoever computed them."""
    seen = []
    for cache in ("shared", "own"):
        subject = six(build, "gemma")
        SelfDrafting().apply(subject, SelfDraft(keep=4, cache=cache))
        decoder = Decoder(subject, Sampling(), 1)
        decoder.start(subject.sample_ids[:30], 40)
        while len(decoder.ids) < 70:
            decoder.step()
        seen.append((decoder.speculation.drafted, decoder.speculation.by_place))
    assert seen[0] == seen[1]


def test_read_back_names_the_layers_and_sees_a_stranger(build: Build) -> None:
    subject, switch = six(build, "llama"), SelfDraft(keep=2, tokens=3)
    technique = SelfDrafting()
    assert technique.read_back(subject, switch).took_effect is False
    technique.apply(subject, switch)
    subject.run = Run("DynamicCache", (), (), 1, rounds=4, drafted=12)
    effect = technique.read_back(subject, switch)
    assert effect.took_effect
    assert effect.summary == "layers 0 1 of 6 guess 3 tokens at a time"
    assert effect.facts["draft_weights_bytes"] == 0
    draft = few_layers(six(build, "llama"), [0, 1], "self_draft")  # the same layers of another copy of the model
    subject.plan.proposer = SharedCacheProposer(draft, [0, 1], 3, 256)
    assert technique.read_back(subject, switch).took_effect is False
    subject.plan.proposer = OwnLayersProposer(few_layers(subject, [0, 1], "self_draft"), 3, 256)
    assert technique.read_back(subject, switch).took_effect is False  # its cache is its own and not the model's


@pytest.mark.parametrize("fields", [{"keep": 6}, {"keep": 9}, {"layers": "0 6"}, {"layers": "0-5"}])
def test_as_many_layers_as_there_are_guess_nothing_cheaper(build: Build, fields: dict[str, Any]) -> None:
    subject = six(build, "llama")
    with pytest.raises(RecipeError, match="fewer than the model's 6 layers"):
        SelfDrafting().apply(subject, SelfDraft(**fields))
    assert SelfDraft(**fields).refuse(subject.facts)


def test_nearest_needs_text(build: Build) -> None:
    subject = six(build, "llama")
    subject.sample_ids = []
    with pytest.raises(RecipeError, match="text to rank the layers on"):
        SelfDrafting().apply(subject, SelfDraft(which="nearest"))


@pytest.mark.parametrize("fields", [{"tokens": 0}, {"branches": 9}, {"keep": 0}, {"length": "long"}, {"depth": 3}])
def test_bad_input_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((RecipeError, ValidationError)):
        SelfDraft.read(fields)


def test_more_guesses_than_the_context_are_refused(build: Build) -> None:
    facts = build("llama", max_position_embeddings=16).facts
    assert SelfDraft(tokens=16).refuse(facts) == "fewer guesses than the model's context of 16 tokens"
    assert SelfDraft(tokens=15).refuse(facts) is None
