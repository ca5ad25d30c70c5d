from __future__ import annotations

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from backend.engine.sampling import Sampler
from backend.recipe.race import Sampling

CPU = torch.device("cpu")


def sampler(seed: int = 1, **fields: float) -> Sampler:
    return Sampler(Sampling.read(fields), seed, CPU)


def rows(count: int, vocab: int = 50) -> torch.Tensor:
    return torch.randn(count, vocab, generator=torch.Generator().manual_seed(count)) * 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 7, 500])
@pytest.mark.parametrize("top_p", [0.2, 0.9, 1.0])
def test_warp_equals_the_librarys_processors(temperature: float, top_k: int, top_p: float) -> None:
    logits = rows(6)
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    warped = sampler(temperature=temperature, top_k=top_k, top_p=top_p).warp(logits)
    torch.testing.assert_close(warped, expected.softmax(-1))
    assert torch.equal(warped > 0, expected.softmax(-1) > 0)


def test_warp_of_one_row_is_that_row() -> None:
    logits = rows(3)
    chosen = sampler(temperature=0.8, top_k=5, top_p=0.9)
    assert torch.equal(chosen.warp(logits[1]), chosen.warp(logits)[1])


def test_warp_gives_float32_for_half_precision() -> None:
    assert sampler(temperature=1.0).warp(rows(2).bfloat16()).dtype == torch.float32


def test_greedy_warp_is_one_hot_and_chooses_the_most_likely() -> None:
    logits = rows(4)
    greedy = sampler(temperature=0.0)
    assert greedy.generator is None
    assert torch.equal(greedy.warp(logits).argmax(-1), logits.argmax(-1))
    assert greedy.warp(logits).sum(-1).tolist() == [1.0] * 4
    assert greedy.choose(logits[2]) == greedy.pick(greedy.warp(logits[2])) == int(logits[2].argmax())


def test_equal_seeds_choose_equally_and_others_do_not() -> None:
    logits = rows(1)[0] / 3
    first, second, other = (sampler(seed, temperature=1.0) for seed in (5, 5, 6))
    drawn = [[s.choose(logits) for _ in range(20)] for s in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_pick_follows_weights_that_are_not_normalised() -> None:
    chosen = sampler(temperature=1.0)
    drawn = [chosen.pick(torch.tensor([0.0, 0.3, 0.1])) for _ in range(2000)]
    assert 0 not in drawn
    assert 0.70 < drawn.count(1) / 2000 < 0.80


@pytest.mark.parametrize("fields", [{"temperature": 0.8, "min_p": 0.1}, {"temperature": 1.3, "top_k": 9, "min_p": 0.3}])
def test_min_p_and_penalty_equal_the_librarys_processors(fields: dict[str, float]) -> None:
    logits, text = rows(1), [3, 9, 9, 41]
    expected = RepetitionPenaltyLogitsProcessor(1.4)(torch.tensor([text]), logits.clone())
    expected = TemperatureLogitsWarper(fields["temperature"])(None, expected)
    if "top_k" in fields:
        expected = TopKLogitsWarper(int(fields["top_k"]))(None, expected)
    expected = MinPLogitsWarper(fields["min_p"])(None, expected)
    ours = sampler(repetition_penalty=1.4, **fields)
    ours.follow(text[:2])
    ours.note(text[2:])
    torch.testing.assert_close(ours.warp(logits), expected.softmax(-1))


def test_guesses_count_for_the_rows_behind_them() -> None:
    logits = rows(3)
    greedy = sampler(temperature=0.0, repetition_penalty=1.7)
    greedy.follow([4])
    found = greedy.scores(logits, [[], [8], [8, 30]])
    for row, text in enumerate(([4], [4, 8], [4, 8, 30])):
        one = logits[row : row + 1].clone()
        expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([text]), one)
        torch.testing.assert_close(found[row], expected[0])
