"""Every way to guess through the whole decoder: its text is drawn as plain sampling draws, and greedy as generate."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from backend.engine import decode
from backend.engine.decode import Decoder
from backend.engine.sampling import Sampler
from backend.engine.speculate import Judged, judge
from backend.recipe.race import Sampling
from backend.techniques.base import Subject
from backend.techniques.draft.own_layers import OwnLayersProposer, SharedCacheProposer, few_layers
from backend.techniques.draft.pace import Pace
from backend.techniques.draft.prompt_lookup import PromptLookupProposer
from backend.techniques.draft.proposer import DraftModelProposer
from backend.techniques.guess import Guess, Proposer

Make = Callable[..., Any]
VOCAB = 8
BINS = 12
REQUESTS = 16
TOKENS = 48
WARM = Sampling(temperature=1.0)
CUT = Sampling(temperature=1.4, top_k=6, top_p=0.95, min_p=0.02, repetition_penalty=1.2)
WAYS = (
    "plain", "draft", "draft tree", "adaptive", "lookup", "lookup tree", "shared", "shared tree", "own", "own tree",
)  # fmt: skip


def proposer(way: str, plain: Subject, draft: Subject) -> Proposer | None:
    """A new one of each kind; the draft's vocabulary is the model's."""
    few = few_layers(plain, [0], "self_draft")
    made: dict[str, Proposer | None] = {
        "plain": None,
        "draft": DraftModelProposer(draft, 3, VOCAB),
        "draft tree": DraftModelProposer(draft, 3, VOCAB, 3),
        "adaptive": DraftModelProposer(draft, 4, VOCAB, 2, Pace()),
        "lookup": PromptLookupProposer(3, 2),
        "lookup tree": PromptLookupProposer(3, 2, 3),
        "shared": SharedCacheProposer(few, [0], 3, VOCAB),
        "shared tree": SharedCacheProposer(few, [0], 3, VOCAB, 2),
        "own": OwnLayersProposer(few, 3, VOCAB),
        "own tree": OwnLayersProposer(few, 3, VOCAB, 2),
    }
    return made[way]


def p_value(subject: Subject, sampling: Sampling, ids: list[int]) -> float:
    """Of the hypothesis that each token was drawn from the model's own distribution after the text before it.

    The place of each token in its distribution, likeliest first, is uniform from 0 to 1 if so (Rosenblatt 1952; spread
    at random within the token's own share), whatever the text; the places are counted in bins of equal size.
    """
    noise = torch.Generator().manual_seed(9)
    counts = [0] * BINS
    for seed in range(REQUESTS):
        decoder = Decoder(subject, sampling, seed)
        emitted = [decoder.start(ids, TOKENS)]
        while len(emitted) < TOKENS:
            emitted += decoder.step()
        told = Sampler(sampling, 0, subject.device)
        told.follow(ids)
        for emission in emitted:
            row = told.warp(emission.logits[None])[0]
            told.note([emission.token])
            own = row[emission.token]
            before = float(row[row > own].sum() + row[: emission.token][row[: emission.token] == own].sum())
            place = before + float(own) * float(torch.rand(1, generator=noise))
            counts[min(BINS - 1, int(place * BINS))] += 1
    return float(chisquare(counts).pvalue)


def small(subject_of: Make, shape: str, seed: int) -> Subject:
    made: Subject = subject_of(shape, seed, vocab_size=VOCAB)
    return made


@pytest.mark.parametrize(
    ("way", "sampling"),
    [*((way, CUT) for way in WAYS), ("draft", WARM), ("lookup tree", WARM)],
    ids=[*WAYS, "draft, nothing cut", "lookup tree, nothing cut"],
)
def test_every_way_to_guess_draws_as_plain_sampling_does(
    subject_of: Make, with_plan: Make, prompt: Make, way: str, sampling: Sampling
) -> None:
    plain = small(subject_of, "gemma", 3)
    made = proposer(way, plain, small(subject_of, "gemma", 4))
    ids = prompt(20, 3, VOCAB)  # past the window of 16
    assert p_value(with_plan(plain, proposer=made), sampling, ids) > 0.001


def broken(logits: torch.Tensor, guess: Guess, sampler: Sampler) -> Judged:
    """The sabotage: the first candidate stands, whatever the model says."""
    judged = judge(logits, guess, sampler)
    return judged if judged.path else Judged([guess.tokens[0], judged.tokens[0]], [0], 1)


@pytest.mark.parametrize("way", ["draft", "lookup"])
def test_a_broken_verification_is_seen(
    monkeypatch: pytest.MonkeyPatch, subject_of: Make, with_plan: Make, prompt: Make, way: str
) -> None:
    plain = small(subject_of, "gemma", 3)
    made = proposer(way, plain, small(subject_of, "gemma", 4))

    monkeypatch.setattr(decode, "judge", broken)
    assert p_value(with_plan(plain, proposer=made), WARM, prompt(20, 3, VOCAB)) < 1e-6


@pytest.fixture(scope="module")
def of_generate(subject_of: Make, prompt: Make) -> Callable[[str, float], list[int]]:
    """Prompt and greedy text of transformers' own loop, written once for each shape and penalty."""

    @cache
    def write(shape: str, penalty: float) -> list[int]:
        ids = torch.tensor([prompt(20, 5, VOCAB)])  # past the window of 16
        told = small(subject_of, shape, 5).model.generate(
            ids, max_new_tokens=40, min_new_tokens=40, do_sample=False, repetition_penalty=penalty, eos_token_id=None
        )
        return list(told[0].tolist())

    return write


@pytest.mark.parametrize(("shape", "penalty"), [("llama", 1.0), ("gemma", 1.3)])
@pytest.mark.parametrize("way", WAYS)
def test_greedy_texts_are_those_of_generate(
    subject_of: Make, with_plan: Make, of_generate: Callable[..., list[int]], way: str, shape: str, penalty: float
) -> None:
    plain = small(subject_of, shape, 5)
    made = proposer(way, plain, small(subject_of, shape, 6))
    expected = of_generate(shape, penalty)
    decoder = Decoder(with_plan(plain, proposer=made), Sampling(repetition_penalty=penalty), 1)
    decoder.start(expected[:20], 40)
    while len(decoder.ids) < 60:
        decoder.step()
        assert decoder.cache.get_seq_length() == len(decoder.ids) - 1
    assert decoder.ids == expected
