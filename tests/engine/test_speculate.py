from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from backend.engine.decode import Decoder
from backend.engine.sampling import Sampler
from backend.engine.speculate import Judged, Speculation, judge
from backend.recipe.race import Sampling
from backend.techniques.base import Subject
from backend.techniques.draft.prompt_lookup import PromptLookupProposer
from backend.techniques.draft.proposer import DraftModelProposer
from backend.techniques.guess import Guess

GREEDY = Sampling()
WARM = Sampling(temperature=1.0, top_k=0, top_p=1.0)
CUT = Sampling(temperature=1.5, top_k=6, top_p=0.95)
Make = Callable[..., Any]
CPU = torch.device("cpu")


def run(subject: Subject, ids: list[int], count: int, sampling: Sampling = GREEDY, seed: int = 1) -> Decoder:
    """Decode `count` tokens, checking after every round that the cache holds all tokens but the last."""
    decoder = Decoder(subject, sampling, seed)
    decoder.start(ids, count)
    while len(decoder.ids) < len(ids) + count:
        before = len(decoder.ids)
        assert len(decoder.step()) == len(decoder.ids) - before
        assert decoder.cache.get_seq_length() == len(decoder.ids) - 1
    return decoder


def text(decoder: Decoder, ids: list[int]) -> list[int]:
    return decoder.ids[len(ids) :]


# Greedy: the text of plain decoding, whatever is guessed


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("seed", range(3))
def test_prompt_lookup_keeps_the_greedy_text(
    subject_of: Make, with_plan: Make, prompt: Make, shape: str, seed: int
) -> None:
    plain = subject_of(shape, seed)
    ids = prompt(10, seed) * 3  # past the window of 16, and repetitive
    decoder = run(with_plan(plain, proposer=PromptLookupProposer(4, 2)), ids, 60)
    expected = text(run(plain, ids, 60), ids)
    assert text(decoder, ids) == expected
    assert len(set(expected)) > 3  # a text that only repeats one token would prove little
    assert decoder.speculation.drafted > decoder.speculation.accepted > 0


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("seed", range(3))
def test_a_draft_that_guesses_badly_keeps_the_greedy_text(
    subject_of: Make, with_plan: Make, prompt: Make, shape: str, seed: int
) -> None:
    plain = subject_of(shape, seed)
    ids = prompt(12, seed)
    draft = DraftModelProposer(subject_of(shape, seed + 100), 3, 64)
    decoder = run(with_plan(plain, proposer=draft), ids, 40)
    assert text(decoder, ids) == text(run(plain, ids, 40), ids)
    assert decoder.speculation.acceptance_rate < 0.5


@pytest.mark.parametrize("shape", ["llama", "gemma"])
@pytest.mark.parametrize("seed", range(3))
def test_the_model_as_its_own_draft_has_all_accepted(
    subject_of: Make, with_plan: Make, prompt: Make, shape: str, seed: int
) -> None:
    plain = subject_of(shape, seed)
    ids = prompt(12, seed)
    decoder = run(with_plan(plain, proposer=DraftModelProposer(subject_of(shape, seed), 4, 64)), ids, 41)
    assert text(decoder, ids) == text(run(plain, ids, 41), ids)
    assert decoder.speculation.acceptance_rate == 1.0
    assert decoder.speculation.mean_acceptance_length == 5.0
    assert decoder.speculation.rounds == 8


def test_a_mixed_draft_is_cropped_as_far_as_it_was_wrong(subject_of: Make, with_plan: Make, prompt: Make) -> None:
    """The model with slightly different weights: some guesses stand, some fall, at all places."""
    plain = subject_of("gemma", 2)
    near = subject_of("gemma", 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in near.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    ids = prompt(30)
    proposer = DraftModelProposer(near, 4, 64)
    decoder = run(with_plan(plain, proposer=proposer), ids, 120)
    assert text(decoder, ids) == text(run(plain, ids, 120), ids)
    assert 0.2 < decoder.speculation.acceptance_rate < 0.95
    assert all(kept > 0 for kept in decoder.speculation.by_place)
    assert decoder.speculation.by_place[3] < decoder.speculation.tried[0]


def test_a_round_never_goes_past_the_room(subject_of: Make, with_plan: Make, prompt: Make) -> None:
    plain = subject_of()
    for room in range(1, 9):
        decoder = run(with_plan(plain, proposer=DraftModelProposer(plain, 4, 64)), prompt(6), room)
        assert len(decoder.ids) == 6 + room


# Counting


def test_counts_by_hand(subject_of: Make, with_plan: Make, scripted: Make, prompt: Make) -> None:
    plain = subject_of()
    ids = prompt(8)
    true = text(run(plain, ids, 12), ids)
    wrong = [(token + 1) % 64 for token in true]
    guesses = [[true[1], true[2], wrong[3]], [wrong[4]], [], true[6:9]]
    proposer = scripted(guesses)
    decoder = Decoder(with_plan(plain, proposer=proposer), GREEDY, 1)
    decoder.start(ids, 20)
    rounds = [decoder.step() for _ in range(4)]
    assert [[e.token for e in emitted] for emitted in rounds] == [true[1:4], [true[4]], [true[5]], true[6:10]]
    assert [[e.drafted for e in emitted] for emitted in rounds] == [
        [True, True, False],
        [False],
        [False],
        [True, True, True, False],
    ]
    assert proposer.heard == [2, 0, 3]
    counts = decoder.speculation
    assert (counts.drafted, counts.accepted, counts.rounds, counts.plain_rounds) == (7, 5, 3, 1)
    assert (counts.tried, counts.by_place) == ([3, 2, 2], [2, 2, 1])
    assert counts.acceptance_rate == 5 / 7
    assert counts.alpha == 5 / 7
    assert counts.mean_acceptance_length == 1 + 5 / 3
    assert counts.verify_s > 0
    assert counts.plain_s > 0
    assert 0 < counts.draft_cost_share < 1


def test_alpha_counts_only_guesses_that_were_judged() -> None:
    counts = Speculation()
    counts.record(4, 0)
    counts.record(4, 1)
    assert counts.tried == [2, 1, 0, 0]
    assert counts.acceptance_rate == 1 / 8
    assert counts.alpha == 1 / 3
    assert counts.as_dict()["alpha"] == 1 / 3


def test_nothing_is_claimed_before_anything_was_drafted() -> None:
    shares = ("acceptance_rate", "alpha", "mean_acceptance_length", "draft_cost_share")
    assert [Speculation().as_dict()[share] for share in shares] == [None] * 4


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_logits_of_a_round_are_the_models_raw_ones(
    subject_of: Make, with_plan: Make, prompt: Make, sampling: Sampling
) -> None:
    plain = subject_of("gemma", 3)
    ids = prompt(20)
    decoder = Decoder(with_plan(plain, proposer=DraftModelProposer(subject_of("gemma", 4), 3, 64)), sampling, 5)
    emitted = [decoder.start(ids, 30)]
    while len(emitted) < 30:
        emitted += decoder.step()
    with torch.inference_mode():
        whole = plain.model(torch.tensor([decoder.ids]), use_cache=False).logits[0, len(ids) - 1 : -1]
    torch.testing.assert_close(torch.stack([e.logits for e in emitted]), whole, atol=1e-4, rtol=1e-4)


# Sampling: the distribution of plain decoding, whatever is guessed

VOCAB = 8
PLACES = 3
DRAWS = 8_000
START = [3, 1, 5]


class Tables:
    """The real probabilities of a tiny model after every text of up to four tokens, and its raw logits."""

    def __init__(self, subject: Subject, sampler: Sampler) -> None:
        self.logits: dict[tuple[int, ...], Tensor] = {}
        for length in range(PLACES + 1):
            texts = list(product(range(VOCAB), repeat=length))
            with torch.inference_mode():
                ids = torch.tensor([[*START, *t] for t in texts])
                rows = subject.model(ids, use_cache=False).logits[:, -1]
            self.logits.update(zip(texts, rows.clone(), strict=True))
        self.probabilities = {t: sampler.warp(row) for t, row in self.logits.items()}

    def exact(self) -> dict[tuple[int, ...], float]:
        """The probability of each text of three tokens under plain sampling."""
        return {
            t: float(torch.stack([self.probabilities[t[:i]][t[i]] for i in range(PLACES)]).prod())
            for t in product(range(VOCAB), repeat=PLACES)
        }


Judge = Callable[[Tensor, Guess, Sampler], Judged]


def always_accept(logits: Tensor, guess: Guess, sampler: Sampler) -> Judged:
    """The sabotage: what a broken verification would do."""
    path = list(range(len(guess.tokens)))
    return Judged([*guess.tokens, sampler.choose(logits[-1])], path, len(path))


def no_residual(logits: Tensor, guess: Guess, sampler: Sampler) -> Judged:
    """A subtler sabotage: after a rejection it draws from the model's own distribution, not from what is left."""
    judged = judge(logits, guess, sampler)
    if len(judged.path) < len(guess.tokens):
        judged.tokens[-1] = sampler.choose(logits[judged.rows[-1]])
    return judged


def draw(tables: Tables, draft: Tables | None, sampler: Sampler, decide: Judge) -> Counter[tuple[int, ...]]:
    """Texts of three tokens, decoded in rounds of two guesses with the models' real probabilities.

    The guesses are drawn from the draft, or are certain: a copy of the last token, twice.
    """
    drawn: Counter[tuple[int, ...]] = Counter()
    for _ in range(DRAWS):
        ids: tuple[int, ...] = ()
        while len(ids) < PLACES:
            width = min(2, PLACES - len(ids))
            guess, rows = ids, []
            for _ in range(width):
                rows.append(draft.probabilities[guess] if draft else None)
                token = sampler.pick(rows[-1]) if draft else (*START, *guess)[-1]
                guess = (*guess, token)
            logits = torch.stack([tables.logits[guess[:i]] for i in range(len(ids), len(guess) + 1)])
            made = Guess(list(guess[len(ids) :]), torch.stack(rows) if draft else None)
            ids = (*ids, *decide(logits, made, sampler).tokens)
        drawn[ids[:PLACES]] += 1
    return drawn


def chi_squared(drawn: Counter[tuple[int, ...]], exact: dict[tuple[int, ...], float]) -> list[float]:
    """p-values: the token at each place on its own, then the texts as wholes (rare ones taken together)."""
    total = sum(drawn.values())
    values = []
    for place in range(PLACES):
        seen, expected = [0.0] * VOCAB, [0.0] * VOCAB
        for t, share in exact.items():
            expected[t[place]] += share * total
            seen[t[place]] += drawn[t]
        values.append(_p(seen, expected))
    common = [t for t, share in exact.items() if share * total >= 5]
    seen = [drawn[t] for t in common]
    expected = [exact[t] * total for t in common]
    return [*values, _p([*seen, total - sum(seen)], [*expected, total - sum(expected)])]


def _p(seen: list[float], expected: list[float]) -> float:
    """0 where something was seen that cannot be."""
    possible = [i for i, share in enumerate(expected) if share > 1e-6]
    if sum(seen[i] for i in possible) < sum(seen):
        return 0.0
    return float(chisquare([seen[i] for i in possible], [expected[i] for i in possible], sum_check=False).pvalue)


@pytest.mark.parametrize(("sampling", "guesser"), [(WARM, "draft"), (WARM, "copy"), (CUT, "draft")])
def test_sampling_keeps_the_distribution(subject_of: Make, sampling: Sampling, guesser: str) -> None:
    sampler = Sampler(sampling, 11, CPU)
    tables = Tables(subject_of("llama", 1, vocab_size=VOCAB), sampler)
    draft = Tables(subject_of("llama", 2, vocab_size=VOCAB), sampler) if guesser == "draft" else None
    assert min(chi_squared(draw(tables, draft, sampler, judge), tables.exact())) > 0.001


@pytest.mark.parametrize("sabotage", [always_accept, no_residual])
def test_sabotaged_verification_is_found_out(subject_of: Make, sabotage: Judge) -> None:
    sampler = Sampler(WARM, 11, CPU)
    tables = Tables(subject_of("llama", 1, vocab_size=VOCAB), sampler)
    draft = Tables(subject_of("llama", 2, vocab_size=VOCAB), sampler)
    assert min(chi_squared(draw(tables, draft, sampler, sabotage), tables.exact())) < 1e-9


@pytest.mark.parametrize("guesser", ["draft", "copy"])
def test_the_decoder_itself_keeps_the_distribution(subject_of: Make, with_plan: Make, guesser: str) -> None:
    """Fewer draws, through caches, crops and real calls."""
    small = {"vocab_size": VOCAB, "num_hidden_layers": 1}
    plain = subject_of("llama", 1, **small)
    draft = DraftModelProposer(subject_of("llama", 2, **small), 2, VOCAB)
    subject = with_plan(plain, proposer=draft if guesser == "draft" else PromptLookupProposer(2, 1))
    drawn: Counter[tuple[int, ...]] = Counter()
    for seed in range(500):
        decoder = Decoder(subject, WARM, seed)
        decoder.start(START, PLACES)
        while len(decoder.ids) < len(START) + PLACES:
            decoder.step()
        drawn[tuple(decoder.ids[len(START) :])] += 1
    exact = Tables(plain, Sampler(WARM, 0, CPU)).exact()
    assert min(chi_squared(drawn, exact)) > 0.001


def test_equal_distributions_are_always_accepted() -> None:
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    sampler = Sampler(WARM, 1, CPU)
    probabilities = sampler.warp(logits[:2])
    for _ in range(200):
        tokens = torch.multinomial(probabilities, 1, generator=sampler.generator)[:, 0].tolist()
        judged = judge(logits, Guess(tokens, probabilities), sampler)
        assert judged.path == [0, 1]
        assert judged.tokens[:2] == tokens


def test_a_certain_guess_that_cannot_be_is_never_drawn_again() -> None:
    logits = torch.full((2, VOCAB), 0.0)
    logits[0, 4] = float("-inf")
    sampler = Sampler(WARM, 1, CPU)
    for _ in range(100):
        judged = judge(logits, Guess([4]), sampler)
        assert judged.path == []
        assert judged.tokens != [4]
