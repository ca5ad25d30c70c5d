"""Bodies that are none, too large or of another kind, and more texts than a server takes: each with its own status."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from benchmarks._served import Served

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def small(serve: Callable[..., Served], tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server of narrow limits, with a chat template that fails."""
    template = tmp_path_factory.mktemp("template") / "bad.jinja"
    template.write_text("{{ messages[0].content + 1 }}", encoding="utf-8")
    limits = ("--max-requests", "2", "--slots", "1", "--max-body", "2000", "--max-prompt", "50")
    return serve(str(tiny_folder), "--name", "tiny", "--chat-template", str(template), *limits)


def ask(served: Served, path: str, body: bytes | None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of a raw request."""
    request = urllib.request.Request(served.url + path, body, headers or JSON)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{not json", JSON, 400, "invalid_json"),
        (b"\xff\xfe", JSON, 400, "invalid_json"),
        (b"[]", JSON, 400, "invalid_type"),
        (b"[" * 1_900, JSON, 400, "invalid_json"),
        (rb'{"model": "tiny", "prompt": "\ud800"}', JSON, 400, "invalid_json"),
        (b"{}", JSON, 400, "missing_required_parameter"),
        (b'{"model": "tiny", "prompt": "a", "max_tokens": "7"}', JSON, 400, "invalid_type"),
        (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', JSON, 400, None),
        (b'{"model": "tiny", "prompt": "a", "stop": ""}', JSON, 400, "invalid_value"),
        (b'{"model": "tiny", "prompt": [1, 99999]}', JSON, 400, "invalid_value"),
        (b'{"model": "tiny", "prompt": "a", "n": 500}', JSON, 400, "above_max_value"),
        (b" " * 2_001, JSON, 413, "request_too_large"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_content_type"),
        (b"{}", JSON | {"Host": "evil.example"}, 403, "unknown_host"),
    ],
)  # fmt: skip
def test_bad_bodies(small: Served, body: bytes, headers: dict[str, str], status: int, code: str | None) -> None:
    answered, told = ask(small, "/completions", body, headers)
    assert answered == status
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert code is None or told["error"]["code"] == code


def test_addresses_and_methods_that_are_none(small: Served) -> None:
    assert ask(small, "/nothing", None)[0] == 404
    assert ask(small, "/completions", None)[0] == 405
    assert ask(small, "/models/other", None)[1]["error"]["code"] == "model_not_found"


def test_a_prompt_longer_than_the_server_takes(small: Served) -> None:
    body = json.dumps({"model": "tiny", "prompt": [1] * 51}).encode()
    assert ask(small, "/completions", body)[1]["error"]["code"] == "prompt_too_long"


def test_a_template_that_fails_refuses_its_own_request_only(small: Served) -> None:
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}).encode()
    assert ask(small, "/chat/completions", body)[0] == 400
    assert ask(small, "/completions", b'{"model": "tiny", "prompt": "Once", "max_tokens": 2}')[0] == 200


def test_more_texts_than_it_takes(small: Served) -> None:
    client: OpenAI = small.client()
    many: dict[str, Any] = {"model": "tiny", "prompt": "Once", "extra_body": {"ignore_eos": True}}
    with client.completions.create(**many, n=2, max_tokens=900, stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as told:
            client.completions.create(**many, max_tokens=1)
    assert told.value.code == "too_many_requests"
    assert told.value.response.headers["retry-after"] == "1"
    small.settled()
    assert client.completions.create(**many, max_tokens=1).usage is not None
