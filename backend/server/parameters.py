"""What a client may ask for, and what of it this server knows."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.server.errors import ApiError, from_validation

MOST_STOPS = 4  # as in the API
IGNORED = frozenset(  # they change nothing in what is written
    ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
)
_TEXT = {"type": "text"}
NEUTRAL: dict[str, tuple[Any, ...]] = {  # parameters that are not supported, and the values that ask for nothing
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": (_TEXT,),
    "modalities": (["text"],),
}

T = TypeVar("T", bound="Asked")
Stop = Annotated[str, Field(min_length=1, max_length=500)]
Token = Annotated[int, Field(ge=0)]
Tokens = Annotated[list[Token], Field(fail_fast=True)]
UNIONS = {
    "prompt": "a text, a list of texts, a list of token numbers, or a list of such lists",
    "stop": f"a text, or a list of at most {MOST_STOPS}; none of them empty or longer than 500 characters",
    "messages.content": "a text, or a list of parts of the type 'text'",
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    """What a stream tells besides its text."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class Asked(_Strict):
    """What both endpoints know. Fields of `Sampling` that the API does not have may stand beside them."""

    model_config = ConfigDict(extra="allow")

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False  # as vLLM has it; load generators want answers of one length

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage_asked(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> Sampling:
        """How tokens are chosen; like the API it draws from the whole distribution unless told otherwise."""
        extra = self.model_extra or {}
        known = {name: value for name, value in extra.items() if name in Sampling.model_fields and value is not None}
        chosen = {"temperature": self.temperature, "top_p": self.top_p}
        given = {name: value for name, value in chosen.items() if value is not None}
        try:
            return Sampling.read({"temperature": 1.0} | known | given)
        except RecipeError as error:
            message = f"{error.field} is {error.value!r}; it should be {error.allowed}."
            raise ApiError(400, message, param=error.field, code="invalid_value") from None

    def seeds(self, count: int) -> list[int]:
        """A seed for each text: equal requests with a seed of their own get equal texts."""
        first = secrets.randbits(62) if self.seed is None else self.seed
        return [(first + place) % 2**63 for place in range(count)]

    def check_extra(self) -> None:
        """Refuse what would be silently ignored otherwise.

        Raises:
            ApiError: for a parameter that nobody knows, or that this server does not do.
        """
        for name, value in (self.model_extra or {}).items():
            if name in Sampling.model_fields or name in IGNORED or value is None:
                continue
            if name not in NEUTRAL:
                raise ApiError(400, f"There is no parameter {name}.", param=name, code="unknown_parameter")
            if value not in NEUTRAL[name]:
                message = f"{name} is not supported by this server: leave it out."
                raise ApiError(400, message, param=name, code="unsupported_parameter")


class CompletionAsked(Asked):
    """The body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(fail_fast=True)] | Tokens | Annotated[list[Tokens], Field(fail_fast=True)]
    logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        """The prompts, each as text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(part, int) for part in self.prompt):
            return [tuple(part for part in self.prompt if isinstance(part, int))]
        return [part if isinstance(part, str) else tuple(part) for part in self.prompt if not isinstance(part, int)]


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Turn(_Strict):
    """One message."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]

    @property
    def text(self) -> str:
        """The message's text in one piece."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatAsked(Asked):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Turn], Field(fail_fast=True)] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


def read(kind: type[T], body: bytes) -> T:
    """Validate a body.

    Raises:
        ApiError: for what is not JSON, not an object, or asks for what this server does not know.
    """
    try:
        asked = kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error, UNIONS) from None
    asked.check_extra()
    return asked
