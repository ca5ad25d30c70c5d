"""Texts: what a model is scored on and calibrated with, and prompts to begin with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backend.modelref import ModelRef
from backend.recipe.base import RecipeError
from backend.storyteller import stories

HELD_OUT_SEED = 4000
HELD_OUT_STORIES = 400  # about 200,000 characters
MOST_FILE_BYTES = 20_000_000
_CODE_MARKS = re.compile(r"::=|>>>|^\s*[|+]|[*=~^\-]{4,}|^-\[|^\[\d+\]")


@dataclass(frozen=True)
class HeldOut:
    """A text that the model was not trained on, as far as anybody can know, and where it comes from."""

    text: str
    source: str


def held_out_text(ref: ModelRef, file: Path | None = None) -> HeldOut:
    """Text for perplexity and calibration.

    The storyteller's own generator for shipped models, with seeds that training never uses; for others the English
    of the Python language reference that comes with every Python; or a text file.

    Raises:
        RecipeError: when the file cannot be read as UTF-8 text.
    """
    if file is not None:
        return HeldOut(_read_file(file), f"file {file.name}")
    if ref.tells_stories:
        text = stories.held_out_text(HELD_OUT_SEED, HELD_OUT_STORIES)
        return HeldOut(text, f"held-out stories, seed {HELD_OUT_SEED}")
    return HeldOut(reference_english(), "English of the Python language reference")


def _read_file(file: Path) -> str:
    if not file.is_file():
        raise RecipeError("text", file, "an existing text file", "Correct the path.")
    if file.stat().st_size > MOST_FILE_BYTES:
        raise RecipeError("text", file, f"at most {MOST_FILE_BYTES / 1e6:.0f} MB", "Give a part of it.")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError("text", file, "text in UTF-8", "Save it as UTF-8.") from None
    if not text.strip():
        raise RecipeError("text", file, "a file with text in it", "Give another file.")
    return text


@cache
def reference_english() -> str:
    """The prose of `pydoc_data.topics`: paragraphs of whole sentences, without headings, tables, grammar and code."""
    from pydoc_data.topics import topics

    paragraphs = [block for topic in sorted(topics) for block in re.split(r"\n\s*\n", topics[topic])]
    kept = [" ".join(block.split()) for block in paragraphs if _is_prose(block)]
    return "\n\n".join(dict.fromkeys(kept))


def _is_prose(block: str) -> bool:
    lines = block.strip("\n").split("\n")
    if any(_CODE_MARKS.search(line) for line in lines) or lines[0].startswith("    "):
        return False
    words = block.split()
    plain = sum(word.strip(",.;:()'\"“”").isalpha() for word in words)
    return len(words) >= 12 and plain >= 0.8 * len(words) and block.rstrip().endswith((".", "?"))


_OPENINGS = (
    "Once upon a time",
    "The most important thing about a bridge is that it",
    "To make good bread you need flour, water, salt and",
    "The history of the city began when",
)
_LIST = " ".join(f"Item {n}: the quick brown fox jumps over the lazy dog." for n in range(1, 5)) + " Item 5:"
_REPEATED = (
    "Once there was a lantern in the harbor. The lantern is red. Anna was in the harbor. Ben was in the mill. "
    "Where is Anna? Anna is in the harbor. Where is Ben? Ben is in the mill. "
    "Where is Anna? Anna is in the harbor. Where is Ben? Ben is in the mill. Where is Anna?"
)


def examples(ref: ModelRef) -> list[str]:
    """Prompts to pick from; the last one repeats itself, which is what prompt lookup lives on."""
    if not ref.tells_stories and not ref.name.startswith("storyteller"):
        return [*_OPENINGS, _LIST]
    return [*(f"{story} {question.text}" for story, question in stories.exam(HELD_OUT_SEED, 4)), _REPEATED]
