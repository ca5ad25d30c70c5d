from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from backend.engine.decode import Decoder
from backend.engine.sampling import Sampler
from backend.engine.speculate import judge
from backend.recipe.race import Sampling
from backend.techniques.draft.own_layers import OwnLayersProposer, SharedCacheProposer, few_layers
from backend.techniques.draft.pace import Pace
from backend.techniques.draft.prompt_lookup import PromptLookupProposer
from backend.techniques.draft.proposer import DraftModelProposer
from backend.techniques.guess import Guess

Make = Callable[..., Any]
PENALISED = Sampling(repetition_penalty=1.3)


def decoded(subject: Any, ids: list[int], count: int, sampling: Sampling) -> list[int]:
    decoder = Decoder(subject, sampling, 1)
    decoder.start(ids, count)
    while len(decoder.ids) < len(ids) + count:
        decoder.step()
        assert decoder.cache.get_seq_length() == len(decoder.ids) - 1
    return decoder.ids


@pytest.mark.parametrize("sampling", [Sampling(), PENALISED])
@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("way", ["draft tree", "lookup tree", "shared", "own", "adaptive"])
def test_every_way_to_guess_keeps_the_greedy_text(
    subject_of: Make, with_plan: Make, prompt: Make, way: str, shape: str, sampling: Sampling
) -> None:
    plain = subject_of(shape, 3)
    makers: dict[str, Callable[[], Any]] = {
        "draft tree": lambda: DraftModelProposer(subject_of(shape, 4), 3, 64, 3),
        "lookup tree": lambda: PromptLookupProposer(4, 2, 3),
        "shared": lambda: SharedCacheProposer(few_layers(plain, [0], "self_draft"), [0], 3, 64, 2),
        "own": lambda: OwnLayersProposer(few_layers(plain, [1], "self_draft"), 3, 64, 1),
        "adaptive": lambda: DraftModelProposer(subject_of(shape, 3), 4, 64, 2, Pace()),
    }
    ids = prompt(10, 3) * 3  # past the window of 16
    assert decoded(with_plan(plain, proposer=makers[way]()), ids, 40, sampling) == decoded(plain, ids, 40, sampling)


@pytest.mark.parametrize("certain", [True, False])
def test_siblings_keep_the_distribution(certain: bool) -> None:
    """The first token of many rounds with three candidates, against the model's own probabilities."""
    generator = torch.Generator().manual_seed(2)
    logits, draft = (torch.randn(8, generator=generator) * 1.5 for _ in range(2))
    sampler, counts, draws = Sampler(Sampling(temperature=1.0), 5, torch.device("cpu")), Counter[int](), 6000
    rows = logits.expand(4, 8)
    for _ in range(draws):
        drawn, row = sampler.draw(draft[None], (), 3)
        q = None if certain else row.expand(3, 8)  # type: ignore[union-attr]
        tokens = [1, 4, 6] if certain else drawn[0].tolist()
        counts[judge(rows, Guess(tokens, q, [-1, -1, -1]), sampler).tokens[0]] += 1
    expected = (logits.softmax(-1) * draws).tolist()
    assert chisquare([counts[i] for i in range(8)], expected, sum_check=False).pvalue > 0.001
