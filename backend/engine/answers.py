"""What a lane's text is worth: the project's own metric modules, run by `evaluate` from their folders."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import evaluate

from backend.cloze import Cloze
from backend.engine.quality import finds, first_choice
from backend.engine.text import encode
from backend.storyteller.stories import END, exam
from backend.techniques.base import Subject

_FOLDER = Path(__file__).resolve().parents[1] / "evaluations"
EXAM_SEED = 5000
LONGEST_PASSAGE = 512  # tokens; tokenizers with few words need several for one


@cache
def metric(name: str) -> evaluate.EvaluationModule:
    """One of the project's metric modules, loaded from its folder with no network."""
    return evaluate.load(str(_FOLDER / name))


def answer_questions(subject: Subject, count: int) -> dict[str, Any]:
    """Exact match on `count` questions over stories never seen in training; an answer is one token."""
    if subject.tokenizer is None:
        raise RuntimeError("questions are text, and this model has no tokenizer")
    pairs = exam(EXAM_SEED, count)
    given = []
    for story, question in pairs:
        ids = subject.tokenizer.encode(f"{END}{story} {question.text}", add_special_tokens=False)
        given.append(subject.tokenizer.decode([first_choice(subject, ids)]))
    result = metric("storyteller_match").compute(
        predictions=given,
        references=[question.answer for _, question in pairs],
        kinds=[question.kind for _, question in pairs],
    )
    return {
        "right": sum(result["marks"]),
        "asked": count,
        "marks": result["marks"],
        "by_kind": result["by_kind"],
        "protocol": f"exact match, {count} held-out stories, one greedy token each",
    }


def finds_last_word(subject: Subject, item: Cloze) -> bool:
    """Whether the model, greedily, writes all tokens of the last word after its passage."""
    whole, before = (encode(subject, text) for text in (f"{item.passage} {item.word}", item.passage))
    pairs = enumerate(zip(whole, before, strict=False))
    start = next((place for place, (ours, theirs) in pairs if ours != theirs), min(len(whole), len(before)))
    if start == len(whole):
        return False  # the tokenizer has nothing for the word
    most = min(LONGEST_PASSAGE, subject.facts.context) - (len(whole) - start)
    return finds(subject, whole[:start][-max(1, most) :], whole[start:])


def text_overlap(reference: str, text: str) -> float:
    """ROUGE-L F-measure of a text against the baseline's."""
    return float(metric("rouge_l").compute(predictions=[text], references=[reference])["rouge_l"])


def perplexity(sums: list[float], tokens: list[int]) -> float:
    """Perplexity over windows."""
    return float(metric("held_out_perplexity").compute(predictions=sums, references=tokens)["perplexity"])
