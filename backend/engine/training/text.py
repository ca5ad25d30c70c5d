"""What is trained on and what never is: documents apart by their hash, tokenized once, in windows by step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.engine.training.order import place_of
from backend.engine.training.sentences import SentenceRows, sentences_of
from backend.modelref import ModelRef
from backend.recipe.base import RecipeError
from backend.sentences import own_sentences
from backend.storyteller.stories import END, FIRST_HELD_OUT, stories
from backend.techniques.base import Subject
from backend.texts import HELD_OUT_SEED, held_out_text, reference_english

HELD_OUT_SHARE = 20  # of a person's own text, one document of so many
RACED_CHARACTERS = 40_000  # at the beginning of the language reference: what races score
LEAST_WINDOWS, LEAST_SENTENCES = 4, 16
HUB = "hub:"


@dataclass(frozen=True)
class Documents:
    """Documents to train on, without end where a generator tells them, and documents that are only looked at."""

    training: Iterator[str]
    held_out: list[str]
    source: str


def digest(document: str) -> bytes:
    """By which a document is known."""
    return hashlib.sha256(document.strip().encode()).digest()


def read_documents(ref: ModelRef, text: str, seed: int) -> Documents:
    """The documents of a training.

    A storyteller's are told by its generator, with seeds of its training range; for other models they are the prose of
    Python's language reference but for the part that races score. Of a text of one's own, every document whose hash
    says so is held out.

    Raises:
        RecipeError: for a text that cannot be read.
    """
    if text.startswith(HUB):
        return _apart(_hub_rows(text.removeprefix(HUB)), text)
    if text:
        file = Path(text).expanduser()
        return _apart(iter(held_out_text(ref, file).text.split("\n\n")), f"file {file.name}")
    if ref.tells_stories:
        told, kept = stories(seed % FIRST_HELD_OUT), stories(HELD_OUT_SEED)
        held = [END + next(kept) for _ in range(200)]
        return Documents((END + story for story in told), held, "stories told while it trains")
    english = reference_english()
    held, rest = english[:RACED_CHARACTERS].split("\n\n"), english[RACED_CHARACTERS:].split("\n\n")
    return Documents(iter(rest[1:]), held, "English of the Python language reference, but for what races score")


def _apart(documents: Iterator[str], source: str) -> Documents:
    """Documents on the side on which their hashes put them: equal ones never stand on both."""
    training: list[str] = []
    held: list[str] = []
    for document in documents:
        if document.strip():
            (held if digest(document)[0] % HELD_OUT_SHARE == 0 else training).append(document)
    return Documents(iter(training), held or training[-1:], source)


def _hub_rows(name: str) -> Iterator[str]:
    """The texts of a data set of the Hub, read as they come."""
    import datasets

    try:
        rows = datasets.load_dataset(name, split="train", streaming=True)
        column = next(iter(key for key in ("text", "content", "sentence") if key in next(iter(rows))), None)
    except Exception as error:  # the library's own and the network's errors are of many kinds
        remedy = f"Correct the name, or give a text file. The library says: {str(error)[:200]}"
        raise RecipeError("text", HUB + name, "a data set of the Hub that can be reached", remedy) from error
    if column is None:
        remedy = "Choose another, or give a text file."
        raise RecipeError("text", HUB + name, "a data set with a column text, content or sentence", remedy)
    return (str(row[column]) for row, _ in zip(rows, range(200_000), strict=False))


@dataclass(frozen=True)
class Windows:
    """Tokenized text, cut into windows of `length` + 1 tokens whose order the seed decides.

    A model that was trained with an opening token before every text is lost without one: it stands before each window.
    """

    tokens: np.ndarray  # (N,), int32
    length: int
    seed: int
    opening: tuple[int, ...] = ()  # one token or none

    @property
    def total(self) -> int:
        """Tokens of all."""
        return len(self.tokens)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return (len(self.tokens) - 1) // self.length

    def batch(self, step: int, size: int) -> Tensor:
        """The windows (B, T + 1) of a step: the same for the same step, whatever happened before."""
        first = step * size
        rows = [self._row(place_of(number, self.count, self.seed)) for number in range(first, first + size)]
        return torch.from_numpy(np.stack(rows)).long()

    def _row(self, place: int) -> np.ndarray:
        start = place * self.length
        row = self.tokens[start : start + self.length + 1 - len(self.opening)]
        return np.concatenate([np.array(self.opening, np.int32), row])


Text = Windows | SentenceRows


@dataclass(frozen=True)
class Lesson:
    """What one training reads: text to learn from, text to look at, and where they come from."""

    training: Text
    held_out: Text
    source: str
    dropped: int  # documents that were held out and came up again


def read_lesson(
    subject: Subject, documents: Documents, tokens: int, length: int, seed: int, tell: Callable[[float, str], None]
) -> Lesson:
    """Tokenize, once; documents that are held out are left out of what is trained on, wherever they come from.

    Raises:
        RecipeError: for a text with too little in it.
    """
    if subject.facts.task == "encoder":
        return _read_sentences(subject, documents, tokens, length, seed)
    held = {digest(document) for document in documents.held_out}
    looked = _encode(subject, documents.held_out)
    learned: list[int] = []
    dropped = 0
    for document in documents.training:
        if digest(document) in held:
            dropped += 1
            continue
        learned += _encode(subject, [document])
        if len(learned) > tokens:
            break
        if len(learned) % 64 == 0:
            tell(len(learned) / tokens, "Reading the text")
    for name, found, least in (("training", learned, LEAST_WINDOWS), ("held-out", looked, 1)):
        if len(found) <= least * length:
            value = f"{documents.source}: {len(found):,} {name} tokens"
            remedy = "Give more text, or train on shorter windows."
            raise RecipeError("text", value, f"more than {least * length:,} of them for windows of {length}", remedy)
    opening = tuple(subject.opening)
    return Lesson(
        Windows(np.array(learned, np.int32), length, seed, opening),
        Windows(np.array(looked, np.int32), length, 0, opening), documents.source, dropped,
    )  # fmt: skip


def _read_sentences(subject: Subject, documents: Documents, tokens: int, length: int, seed: int) -> Lesson:
    """Sentences, each cut to `length` tokens; this project's own are held out, since encoders are measured on them."""
    own = own_sentences().texts
    held, seen = {digest(sentence) for sentence in own}, set[bytes]()
    rows: list[list[int]] = []
    dropped = 0
    for sentence in sentences_of(documents.training):
        mark = digest(sentence)
        if mark in held:
            dropped += 1
        elif mark not in seen:
            rows.append(_row(subject, sentence, length))
            seen.add(mark)
        if len(rows) * length > tokens:
            break
    if len(rows) < LEAST_SENTENCES:
        value, remedy = f"{documents.source}: {len(rows)} sentences", "Give more text."
        raise RecipeError("text", value, f"at least {LEAST_SENTENCES} sentences to learn from", remedy)
    looked = SentenceRows([_row(subject, sentence, length) for sentence in own], 0)
    return Lesson(SentenceRows(rows, seed), looked, f"sentences of: {documents.source}", dropped)


def _row(subject: Subject, sentence: str, length: int) -> list[int]:
    if subject.tokenizer is None:
        raise _no_tokenizer(subject)
    ids: list[int] = subject.tokenizer.encode(sentence, truncation=True, max_length=length)
    return ids


def _no_tokenizer(subject: Subject) -> RecipeError:
    return RecipeError("model", subject.facts.name, "a model with a tokenizer", "Choose another model.")


def _encode(subject: Subject, documents: list[str]) -> list[int]:
    """Token ids of documents one after the other, each as it stands."""
    if subject.tokenizer is None:
        raise _no_tokenizer(subject)
    ids: list[int] = []
    for document in documents:
        ids += subject.tokenizer.encode(document, add_special_tokens=False)
    return ids
