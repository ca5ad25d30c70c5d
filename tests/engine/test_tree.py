"""Siblings in a tree of guesses: whichever is kept, the token is drawn from the model's own distribution."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from backend.engine.sampling import Sampler
from backend.engine.speculate import judge
from backend.recipe.race import Sampling
from backend.techniques.guess import Guess


@pytest.mark.parametrize("certain", [True, False])
def test_siblings_keep_the_distribution(certain: bool) -> None:
    """The first token of many rounds with three candidates, against the model's own probabilities."""
    generator = torch.Generator().manual_seed(2)
    logits, draft = (torch.randn(8, generator=generator) * 1.5 for _ in range(2))
    sampler, counts, draws = Sampler(Sampling(temperature=1.0), 5, torch.device("cpu")), Counter[int](), 4000
    rows = logits.expand(4, 8)
    for _ in range(draws):
        drawn, row = sampler.draw(draft[None], (), 3)
        q = None if certain else row.expand(3, 8)  # type: ignore[union-attr]
        tokens = [1, 4, 6] if certain else drawn[0].tolist()
        counts[judge(rows, Guess(tokens, q, [-1, -1, -1]), sampler).tokens[0]] += 1
    expected = (logits.softmax(-1) * draws).tolist()
    assert chisquare([counts[i] for i in range(8)], expected, sum_check=False).pvalue > 0.001
