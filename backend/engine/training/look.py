"""A look at a student: how it does on text that it never learns from, beside its teacher, piece by piece."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from backend.engine.quality import compare
from backend.engine.training.encoderlook import look_encoder
from backend.engine.training.sentences import SentenceRows
from backend.engine.training.text import Text, Windows
from backend.recipe.training import Looks
from backend.storyteller.exams import accuracy
from backend.techniques.base import Subject

EXAM_SEED = 5000  # held out, and not that of a race
ASKED_AT_ONCE = 8
SAMPLE_TOKENS = 40
ROWS = 64  # of logits compared at a time, so that a large vocabulary takes no second copy of them all

Pieces = Generator[None, None, dict[str, Any]]


def look(student: Subject, teacher: Subject | None, text: Text, looks: Looks, exam: bool) -> Pieces:
    """Look piece by piece, so that whoever waits for the machine gets it in between.

    Returns:
        loss in nats; beside a teacher kld (nats), top1, and accepted: the share of its guesses that the teacher would
        keep if the student were its draft (Leviathan et al. 2023, alpha); of a storyteller accuracy; a sample text.
        Of an encoder what `look_encoder` finds.
    """
    if isinstance(text, SentenceRows):
        return (yield from look_encoder(student, teacher))
    return (yield from _look_decoder(student, teacher, text, looks, exam))


def _look_decoder(student: Subject, teacher: Subject | None, windows: Windows, looks: Looks, exam: bool) -> Pieces:
    sums: dict[str, float] = {"loss": 0.0}
    count = min(looks.windows, windows.count)
    for number in range(count):
        ids = windows.batch(number, 1)[0].tolist()
        for name, value in _window(student, teacher, ids).items():
            sums[name] = sums.get(name, 0.0) + value / count
        yield
    found: dict[str, Any] = sums | {"tokens": count * windows.length}
    if exam and looks.questions and student.tokenizer is not None:
        right = 0.0
        for start in range(0, looks.questions, ASKED_AT_ONCE):
            asked = min(ASKED_AT_ONCE, looks.questions - start)
            right += accuracy(student.model, student.tokenizer, EXAM_SEED + start, asked)["all"] * asked
            yield
        found["accuracy"] = right / looks.questions
    found["sample"] = _sample(student, windows)
    return found


@torch.inference_mode()
def _window(student: Subject, teacher: Subject | None, ids: list[int]) -> dict[str, float]:
    """Means over the tokens of one window."""
    ours, next_ids = _logits(student, ids), ids[1:]
    loss = torch.nn.functional.cross_entropy(ours, torch.tensor(next_ids)).item()
    if teacher is None:
        return {"loss": loss}
    theirs = _logits(teacher, ids)
    sums, accepted = {"kld": 0.0, "top1": 0.0}, 0.0
    for start in range(0, len(next_ids), ROWS):
        rows = slice(start, start + ROWS)
        width = min(ours.shape[-1], theirs.shape[-1])
        base = torch.log_softmax(theirs[rows, :width], dim=-1)
        found = compare(base, ours[rows, :width], next_ids[rows])
        for name in sums:
            sums[name] += sum(found[name])
        accepted += torch.minimum(base.exp(), torch.softmax(ours[rows, :width], dim=-1)).sum().item()
    return {"loss": loss} | {name: value / len(next_ids) for name, value in (sums | {"accepted": accepted}).items()}


def _logits(subject: Subject, ids: list[int]) -> Tensor:
    """Logits (T, V) that predict all but the first token, in fp32 on the CPU."""
    inputs = torch.tensor([ids[:-1]], device=subject.device)
    return subject.model(input_ids=inputs, use_cache=False).logits[0].float().cpu()


@torch.inference_mode()
def _sample(student: Subject, windows: Windows) -> str:
    """What the student writes after the beginning of a held-out window, greedily."""
    if student.tokenizer is None:
        return ""
    ids = windows.batch(0, 1)[0, : windows.length // 2].tolist()
    given = torch.tensor([ids], device=student.device)
    model: Any = student.model
    written = model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=SAMPLE_TOKENS, do_sample=False, use_cache=True,
        pad_token_id=0,
    )  # fmt: skip
    return str(student.tokenizer.decode(written[0, len(ids) :].tolist(), skip_special_tokens=True))
