"""Gemma behind the endpoint, asked by OpenAI's client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks._served import Served


@pytest.mark.real
def test_gemma_answers_a_chat(serve: Callable[..., Served], gemma_home: Path) -> None:
    one = serve("gemma", "--chat-template", "plain", "--slots", "2", HEADWAY_HOME=str(gemma_home))
    turns: Any = [{"role": "user", "content": "The capital of France is Paris. What is the capital of France?"}]
    asked: dict[str, Any] = {"model": "gemma", "messages": turns, "max_tokens": 12, "temperature": 0, "stop": ["\n"]}
    told = one.client().chat.completions.create(**asked)
    assert "Paris" in str(told.choices[0].message.content)
    assert told.usage is not None
    assert 0 < told.usage.completion_tokens <= 12
    streamed = one.client().chat.completions.create(**asked, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in streamed) == told.choices[0].message.content
    assert one.stop() == 0
