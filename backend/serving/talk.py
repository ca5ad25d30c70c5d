"""What passes between a server and the process that holds its model: plain data, both ways.

Every `Ask` is answered by exactly one `Refused`, or by one `Began`, any number of `Said`, and one `Ended`. So whoever
counts asks knows that nothing was left behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from backend.recipe.race import Sampling

Reason = Literal["length", "stop", "cancelled"]
PLAIN = "plain"  # a chat template for models that have none: 'User: ...', 'Assistant: ...', a line each


@dataclass(frozen=True, slots=True)
class Order:
    """The model that is to be served, as plain data: a race, which of its lanes, and the limits of its engine."""

    race: dict[str, Any]
    lane: str
    limits: dict[str, Any]
    chat_template: str = ""  # a Jinja template, or PLAIN; '' is the model's own
    most_prompt_tokens: int = 0  # 0: what the context holds
    most_new_tokens: int = 4096  # of an answer for which no number is asked


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation as (role, text) pairs, to be written down by the model's chat template."""

    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One text to be written."""

    id: int
    prompt: str | tuple[int, ...] | Chat
    max_new_tokens: int | None  # None: as many as the model and the server allow
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # how many alternatives are told beside each token; None: nothing is told
    ignore_end: bool = False  # write on after the end-of-text token


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this text any more. One that has ended already is left alone."""

    id: int


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token with its own text and bytes, and its natural log-probability before temperature."""

    text: str
    data: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Scored:
    """The token that was chosen, where its text begins in the answer, and the likeliest tokens at its place."""

    chosen: Alternative
    offset: int
    top: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and changed."""

    label: str  # of its recipe
    context: int
    engine: str  # one sentence: how requests share the model
    slots: int
    chats: bool  # whether a conversation can be written down


@dataclass(frozen=True, slots=True)
class Loading:
    """How far the model is."""

    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be served, or not any longer: the four parts of a card."""

    card: dict[str, str]


@dataclass(frozen=True, slots=True)
class Refused:
    """This ask cannot be answered."""

    id: int
    message: str
    param: str
    code: str = "invalid_value"


@dataclass(frozen=True, slots=True)
class Began:
    """The ask was read and waits for its turn."""

    id: int
    prompt_tokens: int
    room: int  # tokens that it may have at most


@dataclass(frozen=True, slots=True)
class Said:
    """More of a text. `tokens` counts those written since the last time, shown or not."""

    id: int
    text: str
    tokens: int
    scored: tuple[Scored, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The text has ended, or nobody wanted it any more."""

    id: int
    reason: Reason
    tokens: int  # of the whole answer, the end-of-text token included
    cached: int = 0  # tokens of the prompt that were not computed


@dataclass(frozen=True, slots=True)
class Stats:
    """What the engine says of itself, and its steps since it began."""

    engine: dict[str, Any]
    steps: int
    step_s: float
    longest_step_s: float  # since the last time
    resident_bytes: int


Question = Ask | Cancel
News = Ready | Loading | Failed | Refused | Began | Said | Ended | Stats
