from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache, StaticCache

from backend.recipe.base import RecipeError
from backend.recipe.switches.draft import DraftModel, PromptLookup, SelfDraft
from backend.techniques.base import Subject
from backend.techniques.draft.prompt_lookup import PromptLookupDrafting, joined
from backend.techniques.draft.self_draft import SelfDrafting
from backend.techniques.guess import Guess
from backend.techniques.tree import check_tree, keep_path, tree_inputs

Build = Callable[..., Subject]
PARENTS = [-1, -1, 0, 0, 1, 3]
TOKENS = [11, 22, 33, 44, 55, 66]


def begun(subject: Subject, count: int) -> tuple[list[int], DynamicCache]:
    """A cache that holds the first tokens, as a decoder leaves it between rounds."""
    cache = DynamicCache(config=subject.model.config)
    cache.activate_past_recording()
    ids = subject.sample_ids[:count]
    subject.model(input_ids=torch.tensor([ids]), cache=cache, use_cache=True, logits_to_keep=1)
    cache.crop(0)
    return ids, cache


@pytest.mark.parametrize("shape", ["llama", "gqa", "gemma"])
@pytest.mark.parametrize("before", [4, 15, 30])  # short of Gemma's window of 16, at its edge, past it
@torch.inference_mode()
def test_each_row_is_that_of_its_own_whole_text(build: Build, shape: str, before: int) -> None:
    subject = build(shape)
    ids, cache = begun(subject, before)
    fed = torch.tensor([[7, *TOKENS]])
    inputs = tree_inputs(subject.model, cache, PARENTS)
    logits = subject.model(input_ids=fed, cache=cache, use_cache=True, **inputs).logits[0]
    for row, way in enumerate(Guess(TOKENS, None, PARENTS).ways):
        whole = subject.model(input_ids=torch.tensor([[*ids, 7, *way]]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(logits[row], whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@torch.inference_mode()
def test_after_a_branch_was_kept_the_cache_is_that_of_its_text(build: Build, shape: str) -> None:
    subject = build(shape)
    ids, cache = begun(subject, 30)
    fed = torch.tensor([[7, *TOKENS]])
    subject.model(input_ids=fed, cache=cache, use_cache=True, **tree_inputs(subject.model, cache, PARENTS))
    keep_path(cache, 7, [0, 1, 4, 6])  # 7, 11, 44, 66
    cache.crop(-3)
    assert cache.get_seq_length() == 34
    ours = subject.model(input_ids=torch.tensor([[9]]), cache=cache, use_cache=True).logits[0, -1]
    whole = subject.model(input_ids=torch.tensor([[*ids, 7, 11, 44, 66, 9]]), use_cache=False).logits[0, -1]
    torch.testing.assert_close(ours, whole, atol=1e-4, rtol=1e-4)


def test_copies_share_their_common_beginning() -> None:
    guess = joined([[1, 2, 3], [1, 2, 9], [4, 2, 3]])
    assert guess.tokens == [1, 2, 3, 9, 4, 2, 3]
    assert guess.parents == [-1, 0, 1, 1, -1, 4, 5]
    assert guess.depth == 3


def test_any_model_of_the_usual_kind_can_verify_a_tree(any_subject: Subject) -> None:
    check_tree(any_subject, "switches.draft_model.branches")


def test_a_cache_that_cannot_be_gathered_is_refused(tiny_llama: Subject) -> None:
    config = tiny_llama.model.config
    tiny_llama.plan.make_cache = lambda total: StaticCache(config=config, max_cache_len=total)
    with pytest.raises(RecipeError, match="StaticLayer") as caught:
        PromptLookupDrafting().apply(tiny_llama, PromptLookup(branches=2))
    assert caught.value.field == "switches.prompt_lookup.branches"
    assert "Set branches to 1" in caught.value.remedy
    PromptLookupDrafting().apply(tiny_llama, PromptLookup(branches=1))


def test_attention_that_takes_no_mask_of_ours_is_refused(tiny_llama: Subject) -> None:
    tiny_llama.model.config._attn_implementation = "flex_attention"
    with pytest.raises(RecipeError, match="flex_attention"):
        SelfDrafting().apply(tiny_llama, SelfDraft(branches=2, keep=1))


def test_a_model_that_does_not_heed_the_mask_is_refused(tiny_llama: Subject) -> None:
    """Its attentions are told nothing of a tree: a branch sees the other."""
    for layer in tiny_llama.model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {"attention_mask": None}), with_kwargs=True
        )
    with pytest.raises(RecipeError, match="heeds the mask"):
        check_tree(tiny_llama, "switches.draft_model.branches")


def test_labels_tell_what_is_not_usual() -> None:
    assert DraftModel().label == "draft"
    assert PromptLookup(tokens=6, branches=2).label == "prompt lookup of 6, 2 branches"
    assert SelfDraft(keep=1, length="adaptive").label == "1 own layer as draft, adaptive"
