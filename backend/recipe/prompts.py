"""Prompt sets: the texts of a list, one a line, and what is wrong with one that cannot be asked."""

from __future__ import annotations

from backend.recipe.base import RecipeError

MAX_PROMPT_CHARACTERS = 200_000  # of one prompt, and of a whole list
MAX_PROMPTS = 64
FIELD = "measure.prompts"
MODES = ("one", "list", "mix")


def prompt_lines(text: str) -> tuple[str, ...]:
    """The prompts of a list, one a line; a line break at the very end begins no line.

    Raises:
        RecipeError: for no line, an empty one, too many, NUL bytes, or too many characters.
    """
    if "\0" in text:
        raise RecipeError(FIELD, "text with NUL bytes", "text without NUL bytes", "Remove the NUL bytes.")
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) > MAX_PROMPTS:
        remedy = "Keep the lines that matter most: every prompt is asked of every lane, again and again."
        raise RecipeError(FIELD, f"{len(lines):,} lines", f"at most {MAX_PROMPTS} prompts, one a line", remedy)
    if len(text) > MAX_PROMPT_CHARACTERS:
        allowed = f"at most {MAX_PROMPT_CHARACTERS:,} characters together"
        raise RecipeError(FIELD, f"{len(text):,} characters", allowed, "Shorten the prompts.")
    if not text.strip():
        raise RecipeError(FIELD, "empty", "one prompt a line", "Write the prompts, or choose another prompt set.")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise RecipeError(FIELD, f"line {number} is empty", "some text in every line", f"Remove line {number}.")
    return tuple(lines)


def prompt_file(name: str, data: bytes) -> str:
    """The text of an uploaded file, checked as a list of prompts.

    Raises:
        RecipeError: when it is no text, or no list of prompts.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        value = f"{name}: byte {error.start} is not text"
        raise RecipeError(FIELD, value, "a text file in UTF-8, one prompt a line", "Save it as UTF-8 text.") from None
    prompt_lines(text)
    return text
