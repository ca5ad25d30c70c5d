"""From what a client asks to tokens that fit the model, or to the reason why they do not."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from backend.engine.text import encode
from backend.recipe.base import RecipeError
from backend.serving.request import Request
from backend.serving.talk import PLAIN, Ask, Chat, Order
from backend.techniques.base import Subject


class Unreadable(ValueError):
    """A client's mistake, with the parameter that holds it."""

    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param, self.code = param, code


class Reader:
    """Reads asks for one model. Used by one thread."""

    def __init__(self, subject: Subject, order: Order) -> None:
        self._subject = subject
        self._order = order
        self._template = order.chat_template or getattr(subject.tokenizer, "chat_template", None) or ""
        end = subject.model.generation_config.eos_token_id
        self.ends: tuple[int, ...] = tuple(end) if isinstance(end, list) else () if end is None else (int(end),)

    @property
    def chats(self) -> bool:
        """Whether conversations can be written down."""
        return self._subject.tokenizer is not None and bool(self._template)

    def read(self, ask: Ask) -> Request:
        """The request in tokens.

        Raises:
            Unreadable: when it cannot be read or does not fit.
        """
        ids = self._ids(ask.prompt)
        param = "messages" if isinstance(ask.prompt, Chat) else "prompt"
        if not ids:
            raise Unreadable("The prompt holds no tokens: write something.", param)
        context = self._subject.facts.context
        most = self._order.most_prompt_tokens
        if most and len(ids) > most:
            message = f"The {param} has {len(ids):,} tokens; this server takes at most {most:,}. Shorten it."
            raise Unreadable(message, param, "prompt_too_long")
        asked = 1 if ask.max_new_tokens is None else ask.max_new_tokens
        if len(ids) + asked > context:
            said = f"{len(ids):,} tokens in the {param} and {asked:,} to be written"
            message = f"This model's context holds {context:,} tokens; {said} are {len(ids) + asked:,}. Shorten either."
            raise Unreadable(message, param, "context_length_exceeded")
        room = (
            min(context - len(ids), self._order.most_new_tokens) if ask.max_new_tokens is None else ask.max_new_tokens
        )
        stops = () if ask.ignore_end else self.ends
        return Request(ask.id, tuple(ids), room, sampling=ask.sampling, seed=ask.seed, stop_ids=stops)

    def _ids(self, prompt: str | tuple[int, ...] | Chat) -> list[int]:
        if isinstance(prompt, tuple):
            vocab = self._subject.facts.vocab
            if bad := next((token for token in prompt if not 0 <= token < vocab), None):
                raise Unreadable(f"Token {bad} is none of this model's: they are 0 to {vocab - 1}.", "prompt")
            return list(prompt)
        if isinstance(prompt, Chat):
            return self._conversation(prompt)
        return self._encode(prompt, "prompt")

    def _encode(self, text: str, param: str) -> list[int]:
        try:
            return encode(self._subject, text) if text else self._opening()
        except RecipeError as error:
            raise Unreadable(str(error), param) from None

    def _opening(self) -> list[int]:
        """An empty prompt is the beginning of a text, where the model knows a token for that."""
        opening = getattr(self._subject.tokenizer, "bos_token_id", None)
        return [] if opening is None else [int(opening)]

    def _conversation(self, chat: Chat) -> list[int]:
        tokenizer: Any = self._subject.tokenizer
        if tokenizer is None or not self._template:
            remedy = "use /v1/completions, or start the server with --chat-template"
            raise Unreadable(f"This model has no chat template: {remedy}.", "messages", "no_chat_template")
        if self._template == PLAIN:
            return self._encode(plain(chat), "messages")
        messages = [{"role": role, "content": content} for role, content in chat.messages]
        try:
            text = tokenizer.apply_chat_template(
                messages, chat_template=self._template, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise Unreadable(f"The chat template refuses these messages: {error}", "messages") from None
        return list(tokenizer.encode(text, add_special_tokens=False))  # the template has written them


def plain(chat: Chat) -> str:
    """The conversation as lines 'Role: text', ready for the assistant's next."""
    return "".join(f"{role.capitalize()}: {content}\n" for role, content in chat.messages) + "Assistant:"
