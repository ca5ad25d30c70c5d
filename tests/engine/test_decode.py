from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

from backend.engine.decode import Decoder, Emission
from backend.recipe.race import Sampling
from backend.techniques.base import Subject

GREEDY = Sampling()
SHAPES = ["llama", "gemma"]
Make = Callable[..., Any]


def run(subject: Subject, ids: list[int], count: int, sampling: Sampling = GREEDY, seed: int = 1) -> list[Emission]:
    decoder = Decoder(subject, sampling, seed)
    emitted = [decoder.start(ids, count)]
    while len(emitted) < count:
        emitted += decoder.step()
    return emitted


def tokens(emitted: list[Emission]) -> list[int]:
    return [emission.token for emission in emitted]


def generated(subject: Subject, ids: list[int], count: int) -> list[int]:
    settings = {"max_new_tokens": count, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return subject.model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_equals_generate(subject_of: Make, prompt: Make, shape: str) -> None:
    subject = subject_of(shape)
    assert tokens(run(subject, prompt(9), 40)) == generated(subject, prompt(9), 40)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_models_raw_ones(subject_of: Make, prompt: Make, shape: str) -> None:
    subject = subject_of(shape)
    ids = prompt(20)
    emitted = run(subject, ids, 12, Sampling(temperature=0.7, top_k=5, top_p=1.0))
    with torch.inference_mode():
        whole = subject.model(torch.tensor([ids + tokens(emitted)]), use_cache=False).logits[0]
    seen = torch.stack([emission.logits for emission in emitted])
    torch.testing.assert_close(seen, whole[len(ids) - 1 : -1], atol=1e-4, rtol=1e-4)


def test_ids_and_cache_stay_one_token_apart(subject_of: Make, prompt: Make) -> None:
    decoder = Decoder(subject_of(), GREEDY, 1)
    first = decoder.start(prompt(5), 4)
    assert decoder.ids == [*prompt(5), first.token]
    for length in (6, 7, 8):
        assert decoder.cache.get_seq_length() == length - 1
        (emission,) = decoder.step()
        assert decoder.ids[length] == emission.token
    assert not emission.drafted
    assert decoder.speculation is None


def test_equal_seeds_give_equal_requests(subject_of: Make, prompt: Make) -> None:
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0)
    subject = subject_of()
    decoder = Decoder(subject, sampling, 3)
    again = []
    for _ in range(2):
        again.append([decoder.start(prompt(6), 10), *(decoder.step()[0] for _ in range(9))])
    assert tokens(again[0]) == tokens(again[1]) == tokens(run(subject, prompt(6), 10, sampling, 3))
    assert tokens(again[0]) != tokens(run(subject, prompt(6), 10, sampling, 4))


def test_the_plans_cache_is_made_for_prompt_and_room(subject_of: Make, with_plan: Make, prompt: Make) -> None:
    plain = subject_of()
    asked: list[int] = []

    def make(total: int) -> StaticCache:
        asked.append(total)
        return StaticCache(config=plain.model.config, max_cache_len=total)

    emitted = run(with_plan(plain, make_cache=make), prompt(7), 20)
    assert asked == [27]
    assert tokens(emitted) == generated(plain, prompt(7), 20)


def test_room_for_rejected_guesses_is_asked_for(
    subject_of: Make, with_plan: Make, scripted: Make, prompt: Make
) -> None:
    plain = subject_of()
    asked: list[int] = []

    def make(total: int) -> DynamicCache:
        asked.append(total)
        return DynamicCache(config=plain.model.config)

    Decoder(with_plan(plain, make_cache=make, proposer=scripted([], width=6)), GREEDY, 1).start(prompt(7), 20)
    assert asked == [33]


def test_the_compiled_forward_takes_the_one_token_steps(subject_of: Make, with_plan: Make, prompt: Make) -> None:
    plain = subject_of()
    lengths: list[int] = []

    def forward(**inputs: Any) -> Any:
        lengths.append(inputs["input_ids"].shape[1])
        return plain.model(**inputs)

    emitted = run(with_plan(plain, forward=forward), prompt(7), 5)
    assert lengths == [1, 1, 1, 1]
    assert tokens(emitted) == generated(plain, prompt(7), 5)


def test_kv_bytes_of_a_growing_cache(subject_of: Make, prompt: Make) -> None:
    decoder = Decoder(subject_of(), GREEDY, 1)
    assert decoder.kv_bytes == 0
    decoder.start(prompt(10), 8)
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, KV heads, head size, bytes
    assert decoder.kv_bytes == 10 * per_token
    decoder.step()
    assert decoder.kv_bytes == 11 * per_token


def test_kv_bytes_of_a_static_cache_is_all_it_took(subject_of: Make, with_plan: Make, prompt: Make) -> None:
    plain = subject_of()
    make = lambda total: StaticCache(config=plain.model.config, max_cache_len=total)  # noqa: E731
    decoder = Decoder(with_plan(plain, make_cache=make), GREEDY, 1)
    decoder.start(prompt(10), 30)
    assert decoder.kv_bytes == 40 * 2 * 2 * 2 * 16 * 4


def test_kv_bytes_stop_growing_in_sliding_layers(subject_of: Make, prompt: Make) -> None:
    decoder = Decoder(subject_of("gemma"), GREEDY, 1)
    decoder.start(prompt(40), 8)
    decoder.step()
    before = decoder.kv_bytes
    decoder.step()
    assert decoder.kv_bytes - before == 2 * 2 * 16 * 4  # one more token in the one full layer
