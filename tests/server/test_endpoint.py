"""OpenAI's client asks a tiny model: whole and streamed answers, stop strings, seeds, scores, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from benchmarks._served import Served

ASK: dict[str, Any] = {"model": "tiny", "prompt": "Once there was", "max_tokens": 24}


def test_a_stream_joins_to_the_whole_answer(client: OpenAI) -> None:
    whole = client.completions.create(**ASK, seed=5)
    pieces = list(client.completions.create(**ASK, seed=5, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].text for p in pieces if p.choices) == whole.choices[0].text
    assert pieces[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 24


def test_a_stop_string_across_tokens_ends_the_text_before_it(client: OpenAI) -> None:
    free = client.completions.create(**ASK, temperature=0).choices[0].text
    stop = free[5:12]
    cut = client.completions.create(**ASK, temperature=0, stop=stop).choices[0]
    assert cut.text == free[: free.index(stop)]
    assert cut.finish_reason == "stop"


def test_scores_stand_beside_tokens(client: OpenAI) -> None:
    told = client.completions.create(**ASK, temperature=0, logprobs=2).choices[0].logprobs
    assert told is not None
    assert all(score == max(top.values()) for score, top in zip(told.token_logprobs, told.top_logprobs, strict=True))


def test_a_chat_by_the_plain_template(client: OpenAI) -> None:
    turns: Any = [{"role": "user", "content": "hello"}]
    told = client.chat.completions.create(model="tiny", messages=turns, max_tokens=4, n=2, seed=1)
    assert [choice.index for choice in told.choices] == [0, 1]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"max_tokens": -1}, 400, "below_min_value"),
        ({"model": "other"}, 404, "model_not_found"),
        ({"prompt": "word " * 100_000}, 400, "context_length_exceeded"),
        ({"extra_body": {"nonsense": 1}}, 400, "unknown_parameter"),
        ({"presence_penalty": 1.0}, 400, "unsupported_parameter"),
    ],
)
def test_mistakes_are_told_in_the_form_of_the_api(
    client: OpenAI, change: dict[str, Any], status: int, code: str
) -> None:
    with pytest.raises(openai.APIStatusError) as told:
        client.completions.create(**ASK | change)
    assert (told.value.status_code, told.value.code) == (status, code)


def test_a_recipe_that_no_batch_can_run_is_served_in_turn_and_says_so(
    serve: Callable[..., Served], tiny_folder: Path, client: OpenAI
) -> None:
    lane = {"switches": {"prompt_lookup": {}}}
    race = json.dumps({"model": str(tiny_folder), "prompt": "Once", "variants": [lane]})
    other = serve(race, "--name", "tiny").client()
    told = other.models.list().data[0].model_dump()
    assert "one after the other" in told["engine"]
    assert "no draft" in told["engine"]
    asked = ASK | {"temperature": 0, "max_tokens": 60}
    assert other.completions.create(**asked).choices[0].text == client.completions.create(**asked).choices[0].text
    turns: Any = [{"role": "user", "content": "hello"}]  # and it was given no template
    with pytest.raises(openai.BadRequestError) as refused:
        other.chat.completions.create(model="tiny", messages=turns)
    assert refused.value.code == "no_chat_template"


def test_tokens_of_a_prompt_that_were_not_computed_are_told(serve: Callable[..., Served], tiny_folder: Path) -> None:
    one = serve(str(tiny_folder), "--name", "tiny", "--prefix-blocks", "32")
    asked = ASK | {"prompt": "Once there was a lantern in the harbor. " * 4, "temperature": 0}
    first, second = (one.client().completions.create(**asked) for _ in range(2))
    streamed = list(one.client().completions.create(**asked, stream=True, stream_options={"include_usage": True}))[-1]
    assert first.choices[0].text == second.choices[0].text
    cached = [told.usage.prompt_tokens_details.cached_tokens for told in (first, second, streamed)]
    assert cached[0] == 0 < cached[1] == cached[2] < first.usage.prompt_tokens
    assert cached[1] % 16 == 0
    told = one.settled()
    assert told["headway_prefix_reused_tokens_total"] == sum(cached)
    assert told["headway_prefix_hit_rate"] == pytest.approx(sum(cached) / (3 * first.usage.prompt_tokens))
    one.stop()
