from __future__ import annotations

from random import Random

import pytest
import torch
from transformers import DynamicCache

from backend.engine.sampling import Sampler
from backend.recipe.race import Sampling
from backend.recipe.switches.draft import PromptLookup
from backend.techniques.base import Subject
from backend.techniques.draft.prompt_lookup import PromptLookupDrafting, PromptLookupProposer

GREEDY = Sampler(Sampling(), 1, torch.device("cpu"))
NO_CACHE = DynamicCache()


def guess(ids: list[int], width: int = 4, ngram: int = 2) -> list[int]:
    proposer = PromptLookupProposer(width, ngram)
    proposer.start(ids, NO_CACHE)
    return proposer.propose(ids, GREEDY, width).tokens


def test_the_longest_match_comes_first() -> None:
    # The end is 1 2. The later 2 was followed by 8, the 2 after a 1 by 7.
    assert guess([1, 2, 7, 5, 2, 8, 1, 2], width=2) == [7, 5]


def test_the_most_recent_of_equal_matches_comes_first() -> None:
    assert guess([1, 2, 7, 1, 2, 9, 1, 2], width=1) == [9]


def test_a_shorter_match_serves_where_no_longer_one_is() -> None:
    assert guess([3, 2, 7, 5, 1, 2], width=2, ngram=3) == [7, 5]


def test_no_match_gives_no_guess() -> None:
    assert guess([1, 2, 3, 4]) == []
    assert guess([1]) == []


def test_a_copy_that_reaches_the_end_goes_on_with_itself() -> None:
    assert guess([9, 1, 2, 1, 2], width=5) == [1, 2, 1, 2, 1]
    assert guess([6, 6], width=3, ngram=1) == [6, 6, 6]


def test_a_new_request_forgets_the_last() -> None:
    proposer = PromptLookupProposer(2, 2)
    proposer.start([1, 2, 3, 1, 2], NO_CACHE)
    proposer.start([4, 1, 2], NO_CACHE)
    assert proposer.propose([4, 1, 2], GREEDY, 2).tokens == []


@pytest.mark.parametrize("seed", range(5))
def test_the_growing_index_finds_what_a_search_through_the_whole_text_finds(seed: int) -> None:
    random = Random(seed)
    ids = [random.randrange(4) for _ in range(10)]
    proposer = PromptLookupProposer(1, 3)
    proposer.start(ids, NO_CACHE)
    for _ in range(60):
        ids = ids + [random.randrange(4) for _ in range(random.randint(1, 5))]
        assert proposer.propose(ids, GREEDY, 1).tokens == searched(ids, 3)


def searched(ids: list[int], ngram: int) -> list[int]:
    for n in range(ngram, 0, -1):
        for start in range(len(ids) - n - 1, -1, -1):
            if ids[start : start + n] == ids[-n:]:
                return [ids[start + n]]
    return []


def test_it_is_put_into_the_plan_and_read_back_from_it(tiny_llama: Subject) -> None:
    switch = PromptLookup(tokens=6, ngram=3)
    assert not PromptLookupDrafting().read_back(tiny_llama, switch).took_effect
    PromptLookupDrafting().apply(tiny_llama, switch)
    assert not PromptLookupDrafting().read_back(tiny_llama, PromptLookup(tokens=2)).took_effect
    effect = PromptLookupDrafting().read_back(tiny_llama, switch)
    assert effect.took_effect
    assert (effect.facts["tokens"], effect.facts["ngram"]) == (6, 3)
