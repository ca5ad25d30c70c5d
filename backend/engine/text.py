"""Text to tokens and back, token by token, without ever showing half a character."""

from __future__ import annotations

from backend.recipe.base import RecipeError
from backend.techniques.base import Subject

_HELD = "\ufffd"  # what a decoder puts where bytes are no character, or not yet
_MOST_HELD = 8  # tokens: a character has 4 bytes at most, and a token may end within the next one; more is broken


def encode(subject: Subject, text: str) -> list[int]:
    """Token ids of a text, with the opening token that the model was trained with.

    A shape has no tokenizer: each byte of the text becomes one token, modulo the vocabulary.

    Raises:
        RecipeError: when the tokenizer knows tokens that the model has no embedding for.
    """
    tokenizer, vocab = subject.tokenizer, subject.facts.vocab
    if tokenizer is None:
        return [byte % vocab for byte in text.encode("utf-8")]
    ids: list[int] = tokenizer.encode(text)
    opening = tokenizer.bos_token_id
    # Where one token both ends and opens texts (the storyteller, GPT-2), every text in training stood after it, and
    # tokenizers do not add it. Others (Gemma, Llama) have added theirs by now.
    if opening is not None and opening == tokenizer.eos_token_id and ids[:1] != [opening]:
        ids = [opening, *ids]
    if max(ids, default=0) >= vocab:
        remedy = "Tokenizer and weights are of two models: get both again."
        raise RecipeError("model", f"token {max(ids)}", f"tokens below the model's vocabulary of {vocab}", remedy)
    return ids


def decode(subject: Subject, ids: list[int]) -> str:
    """The text of tokens, special ones included; of a shape, which has no tokenizer, their numbers."""
    if subject.tokenizer is None:
        return " ".join(map(str, ids))
    return str(subject.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class Pieces:
    """The text of one token after the other. Tokens that hold part of a character only are held back.

    The pieces, `flush()` included, join to the text that the tokens have together, if their bytes are text at all.
    """

    def __init__(self, subject: Subject, prompt: list[int]) -> None:
        """Begin after the prompt's tokens, which are not given out."""
        self._subject = subject
        # A token's text depends on what stands before it: a word's first piece begins with a space or does not.
        self._before = list(prompt[-8:])
        self._held: list[int] = []

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        if self._subject.tokenizer is None:
            return f"{token} "
        self._held.append(token)
        text = self._text()
        if text.endswith(_HELD) and len(self._held) < _MOST_HELD:
            return ""
        return self._release(text)

    def flush(self) -> str:
        """What is still held when no more tokens come."""
        return self._release(self._text()) if self._held else ""

    def _text(self) -> str:
        before = decode(self._subject, self._before)
        return decode(self._subject, self._before + self._held)[len(before) :]

    def _release(self, text: str) -> str:
        self._before, self._held = self._held, []
        return text
