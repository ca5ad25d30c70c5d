"""The scoring of a race: everything about quality that comes after it, off every clock."""

from __future__ import annotations

from backend.raceway import Raceway

TEXT, WORDS, QUESTIONS = "held-out text", "last words of passages", "questions"


def compare_quality(way: Raceway) -> None:
    """Prefill scores, the worst tokens, perplexity on held-out text, answers and last words."""
    for _ in way.each("release"):
        pass
    _score_prompt(way)
    for name, spots in way.each("worst", way.variants):
        way.write(("worst", name, spots))
    _read_text(way)
    way.phase("scoring", 0, 1, text=QUESTIONS)
    for name, reply in way.each("answers"):
        if reply:
            way.write(("answers", name, reply))
    _ask_last_words(way)


def compare_texts(way: Raceway) -> None:
    """Overlap of the texts, by the baseline's lane alone: so it comes after the measurement, which it would slow."""
    base = way.view.baseline
    pairs = {name: [base.text, way.view.lanes[name].text] for name in way.variants} if base else {}
    for name, value in (way.call("base", "overlap", texts=pairs) or {}).items():
        way.write(("overlap", name, {"rouge_l": value}))


def _score_prompt(way: Raceway) -> None:
    """Prefill, in the prompt's shape: the baseline publishes rows a ring at a time, the variants compare theirs."""
    if way.view.opened["prompt_tokens"] < 2:
        return
    held = dict(way.each("hold_prompt"))
    if "base" not in held:
        return
    rows, step = held["base"]["rows"], held["base"]["ring_rows"]
    for start in range(0, rows, step):
        count = min(step, rows - start)
        way.call("base", "publish_prompt", start=start, count=count)
        for name, scores in way.each("score_prompt", way.variants, start=start, count=count):
            way.write(("scores", name, {"shape": "prefill", "start": start, **scores}))
    for _ in way.each("release"):
        pass


def _read_text(way: Raceway) -> None:
    """Perplexity, a window of every lane at a time."""
    total = done = 1
    way.phase("scoring", 0, total, text=TEXT)
    while done <= total:
        for name, reply in way.each("perplexity"):
            total = reply["total"]
            if reply["done"]:
                way.write(("perplexity", name, reply))
        way.phase("scoring", min(done, total), total or 1, text=TEXT)
        done += 1


def _ask_last_words(way: Raceway) -> None:
    """Last words of real text, a few of every lane at a time; no lane asks a storyteller."""
    replies = dict(way.each("cloze"))
    while any(reply["done"] < reply["total"] for reply in replies.values()):
        done, total = next((reply["done"], reply["total"]) for reply in replies.values())
        way.phase("scoring", done, total, text=WORDS)
        replies = dict(way.each("cloze"))
    for name, reply in replies.items():
        if reply["total"]:
            way.write(("cloze", name, reply))
