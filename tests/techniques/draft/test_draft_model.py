from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import DynamicCache, PreTrainedTokenizerFast

from backend.engine.sampling import Sampler
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.recipe.switches.draft import DraftModel
from backend.techniques.base import Subject
from backend.techniques.draft.draft_model import ModelDrafting
from backend.techniques.draft.proposer import DraftModelProposer

Build = Callable[..., Subject]
SWITCH = DraftModel(model="small", tokens=3)
NO_CACHE = DynamicCache()  # the target's, which this proposer never looks into


def sampler(seed: int, temperature: float = 1.0) -> Sampler:
    return Sampler(Sampling(temperature=temperature), seed, torch.device("cpu"))


GREEDY = sampler(1, 0.0)


def words(*names: str) -> PreTrainedTokenizerFast:
    vocabulary = {name: index for index, name in enumerate(names)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token=names[0])))


def applied(subject: Subject, draft: Subject) -> Subject:
    subject.load_other = lambda name: draft
    ModelDrafting().apply(subject, SWITCH)
    return subject


def named(subject: Subject, name: str, tokenizer: Any = None) -> Subject:
    return dataclasses.replace(subject, facts=dataclasses.replace(subject.facts, name=name), tokenizer=tokenizer)


def test_it_is_put_into_the_plan_and_read_back_from_it(build: Build) -> None:
    subject = build("llama")
    assert not ModelDrafting().read_back(subject, SWITCH).took_effect
    draft = build("llama", num_hidden_layers=1)
    effect = ModelDrafting().read_back(applied(subject, draft), SWITCH)
    assert effect.took_effect
    assert effect.facts["draft_parameters"] == draft.model.num_parameters()
    assert effect.facts["draft_weights_bytes"] >= 4 * draft.model.num_parameters()
    assert (effect.facts["draft_vocab"], effect.facts["vocab"], effect.facts["tokens"]) == (256, 256, 3)


def test_the_named_model_is_loaded(build: Build) -> None:
    subject, asked = build("llama"), []

    def load(name: str) -> Subject:
        asked.append(name)
        return build("llama", num_hidden_layers=1)

    subject.load_other = load
    ModelDrafting().apply(subject, SWITCH)
    assert asked == ["small"]


def test_other_words_are_refused_and_both_models_named(build: Build) -> None:
    target = named(build("llama"), "big", words("<unk>", "one", "two"))
    draft = named(build("llama"), "small", words("<unk>", "eins", "zwei"))
    with pytest.raises(RecipeError) as caught:
        applied(target, draft)
    assert caught.value.field == "switches.draft_model.model"
    assert caught.value.value == "small"
    assert "big has 3 entries, small 3, and 1 are the same" in caught.value.allowed
    assert target.plan.proposer is None


def test_other_sizes_are_refused_where_there_are_no_words_to_compare(build: Build) -> None:
    with pytest.raises(RecipeError, match="256 rows and small 128"):
        applied(build("llama"), named(build("llama", vocab_size=128), "small"))


def test_a_model_too_small_for_its_own_words_is_refused(build: Build) -> None:
    tokenizer = words(*(f"word{i}" for i in range(200)))
    with pytest.raises(RecipeError, match="for 200 tokens"):
        applied(named(build("llama"), "big", tokenizer), named(build("llama", vocab_size=128), "small", tokenizer))


def test_no_loader_is_a_card(build: Build) -> None:
    with pytest.raises(RecipeError, match="second model"):
        ModelDrafting().apply(build("llama"), SWITCH)


@pytest.mark.parametrize("rows", [192, 320])
def test_padding_may_differ(build: Build, rows: int) -> None:
    """Guesses stay within the target's rows and the draft is never fed a row that it lacks."""
    tokenizer = words(*(f"word{i}" for i in range(180)))
    target = named(build("llama"), "big", tokenizer)
    proposer = applied(target, named(build("llama", vocab_size=rows), "small", tokenizer)).plan.proposer
    ids = [5, 255, 7]
    proposer.start(ids, NO_CACHE)
    guess = proposer.propose([*ids, 250], sampler(1), 3)
    assert guess.probabilities.shape == (3, 256)
    torch.testing.assert_close(guess.probabilities.sum(-1), torch.ones(3))
    assert max(guess.tokens) < min(rows, 256)


def test_probabilities_are_those_the_guesses_were_drawn_from(build: Build) -> None:
    draft = build("llama")
    proposer = DraftModelProposer(draft, 3, 256)
    ids = [3, 9, 27]
    proposer.start(ids[:2], NO_CACHE)
    guess = proposer.propose(ids, sampler(1, temperature=2.0), 3)
    with torch.inference_mode():
        logits = draft.model(torch.tensor([ids + guess.tokens]), use_cache=False).logits[0, 2:5]
    torch.testing.assert_close(guess.probabilities, (logits / 2).softmax(-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_after_any_number_accepted_it_guesses_as_if_begun_anew(build: Build, shape: str, kept: int) -> None:
    """The crop leaves exactly what is still true, past the window of sliding layers too."""
    draft = build(shape)
    ids = torch.randint(1, 256, (40,), generator=torch.Generator().manual_seed(kept)).tolist()
    proposer, fresh = DraftModelProposer(draft, 3, 256), DraftModelProposer(draft, 3, 256)
    proposer.start(ids[:-1], NO_CACHE)
    for _ in range(4):
        guess = proposer.propose(ids, sampler(1), 3)
        proposer.accepted(range(kept))
        ids = [*ids, *guess.tokens[:kept], 77]
    fresh.start(ids[:-1], NO_CACHE)
    ours = proposer.propose(ids, sampler(2), 3)
    theirs = fresh.propose(ids, sampler(2), 3)
    assert ours.tokens == theirs.tokens
    torch.testing.assert_close(ours.probabilities, theirs.probabilities, atol=1e-5, rtol=1e-4)


def test_it_feeds_at_most_two_tokens_a_call_after_the_prompt(build: Build) -> None:
    draft = build("llama")
    fed: list[int] = []
    draft.model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    proposer = DraftModelProposer(draft, 3, 256)
    ids = list(range(1, 21))
    proposer.start(ids, NO_CACHE)
    ids.append(30)
    for kept in (3, 0, 3, 2):
        guess = proposer.propose(ids, GREEDY, 3)
        proposer.accepted(range(kept))
        ids += [*guess.tokens[:kept], 31]
    assert fed == [20, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1]


def test_past_its_context_it_guesses_nothing(build: Build) -> None:
    proposer = DraftModelProposer(build("llama", max_position_embeddings=256), 4, 256)
    proposer.start([1] * 251, NO_CACHE)
    assert proposer.propose([1] * 252, GREEDY, 4).tokens
    proposer.accepted([])
    assert len(proposer.propose([1] * 253, GREEDY, 3).tokens) == 3
    proposer.accepted([])
    assert proposer.propose([1] * 253, GREEDY, 4).tokens == []
    proposer.start([1] * 300, NO_CACHE)
    assert proposer.propose([1] * 301, GREEDY, 4).tokens == []


def test_bytes_are_those_of_its_cache_and_weights(build: Build) -> None:
    draft = build("llama", num_hidden_layers=1)
    proposer = DraftModelProposer(draft, 2, 256)
    assert proposer.kv_bytes == 0
    proposer.start([1] * 10, NO_CACHE)
    assert proposer.kv_bytes == 10 * 2 * 4 * 16 * 4
    assert proposer.weights_bytes >= 4 * draft.model.num_parameters()
