"""A training in words and rows: what was measured, how it ended, and what happened on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.recipe.training import Training
from backend.trained import TrainedLane, TrainingView
from backend.ui.figures import count, seconds, share, size, three

NO_GAIN = 0.005  # a share recovered below this is no gain
COLUMNS = {
    "loss": "loss, nats", "kld": "KLD, nats", "top1": "top-1", "accepted": "accepted", "accuracy": "accuracy",
    "cosine": "cosine", "ranks": "rank correlation",
}  # fmt: skip
SHARES = ("top1", "accepted", "accuracy")
TERMS = (
    "Loss: cross-entropy on held-out text. KLD: how far the next-token distribution is from the teacher's. Top-1: how "
    "often both name the same next token. Accepted: the share of its guesses that the teacher would keep, were the "
    "student its draft. Recovered: the share of the first look's KLD that is gone, or without a "
    "KLD of its loss above the teacher's."
)


def recovery(lane: TrainedLane) -> str:
    """'94% of what was lost has come back', or that it went the other way; '' where nothing can be told."""
    if lane.recovered is None:
        return ""
    if lane.recovered < -NO_GAIN:
        return f"{share(-lane.recovered)} further from the teacher than at first"
    return f"{share(lane.recovered) if lane.recovered > NO_GAIN else 'nothing'} of what was lost has come back"


def headline(lane: TrainedLane, name: str) -> str:
    """'storyteller-half: 94% of what was lost has come back.'"""
    if not lane.looks:
        return f"{name}: nothing was looked at."
    first, last = lane.looks[0], lane.looks[-1]
    if lane.recovered is None:
        return f"{name}: the loss on held-out text went from {three(first['loss'])} to {three(last['loss'])} nats."
    worse = " Training made it worse." if lane.recovered < -NO_GAIN else ""
    return f"{name}: {recovery(lane)}.{worse}"


def details(lane: TrainedLane, asked: Training) -> list[str]:
    """What the looks saw at first and at last, what it took, and where the model is."""
    told = [line for line in (_quality(lane, asked), _effort(lane), _reason(lane)) if line]
    if lane.saved:
        told.append(f"Saved: it stands in the model menu as {lane.saved['name']}, {size(lane.saved['weights_bytes'])}.")
    return told


def _quality(lane: TrainedLane, asked: Training) -> str:
    if len(lane.looks) < 2:
        return ""
    first, last = lane.looks[0], lane.looks[-1]
    told = []
    for key, title in COLUMNS.items():
        if key in first and key in last and not (key == "loss" and "cosine" in last):  # which is 1 - cosine there
            teacher = f" (teacher {_figure(key, lane.teacher[key])})" if key in lane.teacher else ""
            told.append(f"{title.partition(',')[0]} {_figure(key, first[key])} to {_figure(key, last[key])}{teacher}")
    asks = f", accuracy on {asked.looks.questions} questions" if "accuracy" in last else ""
    text = f"{last['tokens']:,} held-out tokens" if "tokens" in last else f"{last['sentences']} sentences"
    return f"On {text}{asks}: {'; '.join(told)}."


def _figure(key: str, value: float) -> str:
    return share(value) if key in SHARES else three(value)


def _effort(lane: TrainedLane) -> str:
    if not lane.steps:
        return ""
    begun, spent = lane.begun, sum(step["seconds"] for step in lane.steps)
    tokens = lane.step * begun["step_tokens"]
    rate = f", {three(lane.tokens_per_s)} tokens/s at the end" if lane.tokens_per_s else ""
    whole, part = begun["parameters"], begun["trained_parameters"]
    trained = "all" if whole == part else f"{count(part)} ({share(part / whole)})"
    teacher = f"; the teacher has {count(begun['teacher_parameters'])}" if begun.get("teacher_parameters") else ""
    return (
        f"{count(tokens)} tokens in {seconds(spent)} of steps{rate}, {begun['dtype']}. {count(whole)} parameters, "
        f"{trained} trained{teacher}."
    )


def _reason(lane: TrainedLane) -> str:
    return f"Ended after step {lane.ended['step']:,}: {lane.ended['reason']}." if lane.ended else ""


def notes(view: TrainingView, lane: TrainedLane) -> list[str]:
    """What happened on the way: resumes, checkpoints that failed, and races that had the machine."""
    told = [f"Step {step:,}: {text}." for step, text in lane.notes]
    if lane.checkpoints:
        last = lane.checkpoints[-1]
        told.append(
            f"Last checkpoint after step {last['step']:,}, {size(last['bytes'])} in {seconds(last['seconds'])}."
        )
    if view.gave_way:
        away = sum(one["seconds"] for one in view.gave_way)
        waited = max(one["waited_s"] for one in view.gave_way)
        times = len(view.gave_way)
        jobs = "1 other job" if times == 1 else f"{times} other jobs"
        told.append(
            f"Gave way to {jobs} for {seconds(away)} in all; the longest that one waited for a step was "
            f"{seconds(waited)}."
        )
    return told


def text_line(lane: TrainedLane) -> str:
    """What it learns from and what it is looked at on."""
    begun = lane.begun
    if not begun:
        return ""
    again = begun.get("held_out_again")
    left = f"; {again:,} documents that are held out came up again and were left out" if again else ""
    return (
        f"Text: {begun['source']}, {count(begun['training_tokens'])} tokens to learn from, "
        f"{count(begun['held_out_tokens'])} held out{left}."
    )


def rows(lane: TrainedLane) -> Iterator[dict[str, Any]]:
    """The table of looks: the teacher, then the student at every look."""
    seen = (lane.teacher, *lane.looks)
    encoder = any("sentences" in look for look in seen)
    shown = [key for key in COLUMNS if any(key in look for look in seen) and not (encoder and key == "loss")]
    for who, look in [*([("teacher", lane.teacher)] if lane.teacher else []), *(("student", k) for k in lane.looks)]:
        tokens = look["step"] * lane.begun.get("step_tokens", 0)
        head = {"who": who, "step": f"{look['step']:,}", "trained on": count(tokens) if who == "student" else ""}
        figures = {COLUMNS[key]: _figure(key, look[key]) if key in look else "" for key in shown}
        yield head | figures | {"writes": " ".join(str(look.get("sample", "")).split())}
