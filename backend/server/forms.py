"""How answers look on the wire, whole and in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.serving.talk import Alternative, Scored


@dataclass
class Text:
    """One text as it stands."""

    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens read and written; `cached` of those read were not computed."""

    prompt: int
    completion: int
    cached: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As the API has it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class Form:
    """What both endpoints share: the frame around choices."""

    prefix, whole_kind, chunk_kind = "", "", ""

    def __init__(self, model: str, fingerprint: str, scores: bool, usage_follows: bool) -> None:
        """`scores`: log-probabilities were asked for; `usage_follows`: a stream ends with a chunk of its usage."""
        self.model, self.scores, self.usage_follows = model, scores, usage_follows
        self._frame = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._fingerprint = fingerprint
        self._begun: set[int] = set()

    def whole(self, texts: Sequence[Text], usage: Usage) -> dict[str, Any]:
        """The answer in one piece."""
        choices = [self.choice(place, text) for place, text in enumerate(texts)]
        return self._framed(self.whole_kind, choices) | {"usage": usage.as_dict()}

    def chunk(self, place: int, more: Text) -> dict[str, Any]:
        """What has come for one text since the last time; with a reason, its end."""
        first = place not in self._begun
        self._begun.add(place)
        told = self._framed(self.chunk_kind, [self.part(place, more, first)])
        return told | {"usage": None} if self.usage_follows else told

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The last chunk of a stream whose client asked for its usage."""
        return self._framed(self.chunk_kind, []) | {"usage": usage.as_dict()}

    def _framed(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._frame | {"object": kind, "system_fingerprint": self._fingerprint, "choices": choices}

    def choice(self, place: int, text: Text) -> dict[str, Any]:
        """A text of a whole answer."""
        raise NotImplementedError

    def part(self, place: int, more: Text, first: bool) -> dict[str, Any]:
        """A text's share of a chunk."""
        raise NotImplementedError


class CompletionForm(Form):
    """Of /v1/completions."""

    prefix, whole_kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def choice(self, place: int, text: Text) -> dict[str, Any]:
        """Text and log-probabilities as parallel lists."""
        scores = _lists(text.scored) if self.scores else None
        return {"index": place, "text": text.text, "logprobs": scores, "finish_reason": text.reason}

    def part(self, place: int, more: Text, first: bool) -> dict[str, Any]:
        """As a whole one."""
        return self.choice(place, more)


class ChatForm(Form):
    """Of /v1/chat/completions."""

    prefix, whole_kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, place: int, text: Text) -> dict[str, Any]:
        """A message of the assistant."""
        message = {"role": "assistant", "content": text.text, "refusal": None}
        return {"index": place, "message": message, "logprobs": self._scores(text), "finish_reason": text.reason}

    def part(self, place: int, more: Text, first: bool) -> dict[str, Any]:
        """What is new in the message; its first chunk says whose it is."""
        delta = {"role": "assistant"} if first else {}
        if more.text or first:
            delta["content"] = more.text
        return {"index": place, "delta": delta, "logprobs": self._scores(more), "finish_reason": more.reason}

    def _scores(self, text: Text) -> dict[str, Any] | None:
        if not self.scores:
            return None
        told = [_entry(one.chosen) | {"top_logprobs": [_entry(other) for other in one.top]} for one in text.scored]
        return {"content": told, "refusal": None}


def _entry(one: Alternative) -> dict[str, Any]:
    return {"token": one.text, "logprob": one.logprob, "bytes": list(one.data)}


def _lists(scored: Sequence[Scored]) -> dict[str, Any]:
    """The likeliest tokens of a place are an object by their text, the one that was chosen always among them."""
    top = [{other.text: other.logprob for other in (*one.top, one.chosen)} if one.top else None for one in scored]
    return {
        "tokens": [one.chosen.text for one in scored],
        "token_logprobs": [one.chosen.logprob for one in scored],
        "top_logprobs": top if any(top) else None,
        "text_offset": [one.offset for one in scored],
    }
