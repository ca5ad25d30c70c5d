"""What the measurement asks of a lane: the race's prompt, a list of prompts, or a mix of lengths, as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.engine.text import encode
from backend.recipe.prompts import prompt_lines
from backend.recipe.race import Race
from backend.techniques.base import Subject

SHORT_TOKENS = 64  # of the prompt of a short chat, at most
LONG_TOKENS = 512  # of a long prompt, or half of the context where that is less
LONG_ANSWER = 4  # times the tokens of the other requests


@dataclass(frozen=True)
class Ask:
    """One prompt of the set; `kind` is 'prompt', or the name of its length in a mix."""

    kind: str
    ids: list[int]
    answer: int  # times the usual output tokens
    context: int

    def output_tokens(self, tokens: int) -> int:
        """Tokens that are written when `tokens` is the usual length, clipped to the context."""
        return max(1, min(self.answer * tokens, self.context - len(self.ids)))

    def facts(self, tokens: int) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "prompt_tokens": len(self.ids),
            "output_tokens": self.output_tokens(tokens),
            "context": self.context,
        }


def asks(subject: Subject, race: Race, prompt: list[int], held_out: list[int]) -> list[Ask]:
    """The prompt set of a race, the same in every lane.

    Args:
        prompt: tokens of the race's own prompt.
        held_out: tokens of text that the long prompt of a mix begins with.
    """
    context = subject.facts.context
    if race.measure.prompt_set == "list":
        return [Ask("prompt", encode(subject, line), 1, context) for line in prompt_lines(race.measure.prompts)]
    if race.measure.prompt_set == "mix":
        short = _end(prompt, SHORT_TOKENS)
        filling = min(LONG_TOKENS, context // 2) - len(short)
        # The text stands before the prompt's last words, so that the answer is to the same question.
        long = short[:1] + held_out[1 : 1 + max(0, filling)] + short[1:]
        return [
            Ask("short chat", short, 1, context),
            Ask("long prompt", long, 1, context),
            Ask("long answer", short, LONG_ANSWER, context),
        ]
    return [Ask("prompt", prompt, 1, context)]


def _end(ids: list[int], most: int) -> list[int]:
    """The end of a prompt, with the token that opened it."""
    return ids if len(ids) <= most else ids[:1] + ids[1 - most :]
