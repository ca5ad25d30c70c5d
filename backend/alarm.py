"""The quality alarm: which metrics of a variant fell, by how much, and which of them say the opposite. Pure.

    {"raised": bool, "judged": [metric], "fell": [{"metric", "shape", "value", "limit", "baseline", "times_over"}, ...],
     "disagree": [{"steady": metric, "fell": metric, "shape"}, ...]}

A metric that fell by itself raises the alarm only beyond noise: where the whole 95% interval lies past its limit, or
McNemar's test says so. Metrics for which one text gives no interval (WITNESSES) are named beside the others and raise
nothing. `times_over` is how often the distance that the limit allows was covered: the most telling stands first.

Limits, from what is known of methods that people do and do not accept (llama.cpp's perplexity README: q8_0 has a mean
KLD of .001, q4_K_M .03, q2_K .45 nats; weight-only int8 on Gemma 3 270M .005, with 95% top-1 and a ratio of 1.01):
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

KLD = 0.1  # nats, mean: between the coarsest 4 bit that is in wide use and a 2 bit that is not
KLD_P99 = 2.0  # nats: one token in a hundred whose odds are off by a factor of e^2, however good the mean
FEWEST_TOKENS = 10  # fewer say nothing of how often the first choice is kept
P99_TOKENS = 50  # fewer have no 99th percentile to speak of
TOP1 = 0.9  # share of tokens
TOP5 = 0.8  # one of five lost on average
PERPLEXITY = 1.1  # times the baseline's
POINTS = 0.02  # share of questions or last words lost
STEADY = 0.05  # what lies further apart is not called equal, noise or not
REPETITION = 0.3  # more of its 4-grams said before than the baseline's
MOST_TIMES = 1e6  # for what is not a number

SHAPES = (("decode", ""), ("prefill", "_prefill"))
WITNESSES = ("top5", "repetition")
TASKS = ("answers", "cloze")
Entry = dict[str, Any]


@dataclass(frozen=True)
class Fall:
    """One metric past its limit."""

    metric: str  # 'kld', 'kld_p99', 'top1', 'top5', 'perplexity', 'answers', 'cloze', 'repetition'
    value: float
    limit: float
    times_over: float
    shape: str | None = None  # 'decode' | 'prefill'
    baseline: float | None = None


def judge_quality(entry: Entry, base: Entry) -> Entry | None:
    """Judge a variant's entry of the verdict beside the baseline's; None where no quality was measured."""
    judged = list(_judged(entry))
    if not judged:
        return None
    found = [*_agreement(entry), *_perplexity(entry), *_tasks(entry), *_repetition(entry, base)]
    fell = sorted(found, key=lambda fall: fall.times_over, reverse=True)
    raised = any(fall.metric not in WITNESSES for fall in fell)
    return {
        "raised": raised,
        "judged": judged,
        "fell": [asdict(fall) for fall in fell] if raised else [],
        "disagree": list(_disagreements(entry, fell)) if raised else [],
    }


def _judged(entry: Entry) -> Iterator[str]:
    keys = [f"{key}{ending}" for _, ending in SHAPES for key in ("kld", "top1", "top5")]
    yield from (key for key in (*keys, "perplexity", *TASKS) if key in entry)


def _agreement(entry: Entry) -> Iterator[Fall]:
    """KLD, its tail, top-1 and top-5, in each call shape."""
    for shape, ending in SHAPES:
        kld = entry.get(f"kld{ending}")
        if kld is None:
            continue
        if not math.isfinite(kld["mean"]):
            yield Fall("kld", kld["mean"], KLD, MOST_TIMES, shape)
        elif kld.get("low", 0.0) > KLD:
            yield Fall("kld", kld["mean"], KLD, kld["mean"] / KLD, shape)
        if kld["p99"] > KLD_P99 and kld["tokens"] >= P99_TOKENS:
            yield Fall("kld_p99", kld["p99"], KLD_P99, kld["p99"] / KLD_P99, shape)
        top1 = entry[f"top1{ending}"]
        if entry[f"top1{ending}_range"]["high"] < TOP1 and kld["tokens"] >= FEWEST_TOKENS:
            yield Fall("top1", top1, TOP1, (1 - top1) / (1 - TOP1), shape)
        top5 = entry.get(f"top5{ending}")
        if top5 is not None and top5 < TOP5:
            yield Fall("top5", top5, TOP5, (1 - top5) / (1 - TOP5), shape)


def _perplexity(entry: Entry) -> Iterator[Fall]:
    found = entry.get("perplexity")
    if found is None:
        return
    if not math.isfinite(found["ratio"]):
        yield Fall("perplexity", found["ratio"], PERPLEXITY, MOST_TIMES, baseline=found["baseline"])
    elif found.get("low", 0.0) > PERPLEXITY:
        times = min(MOST_TIMES, (found["ratio"] - 1) / (PERPLEXITY - 1))
        yield Fall("perplexity", found["ratio"], PERPLEXITY, times, baseline=found["baseline"])


def _tasks(entry: Entry) -> Iterator[Fall]:
    """Questions and last words."""
    for key in TASKS:
        found = entry.get(key)
        if found is None or found["within_noise"]:
            continue
        if (lost := _lost(found)) > POINTS:
            yield Fall(key, found["share"], POINTS, lost / POINTS, baseline=found["baseline_share"])


def _lost(task: Entry) -> float:
    return float(task["baseline_share"] - task["share"])


def _repetition(entry: Entry, base: Entry) -> Iterator[Fall]:
    ours, theirs = entry.get("repetition"), base.get("repetition")
    if ours is not None and theirs is not None and ours - theirs > REPETITION:
        yield Fall("repetition", ours, REPETITION, (ours - theirs) / REPETITION, baseline=theirs)


def _disagreements(entry: Entry, fell: list[Fall]) -> Iterator[Entry]:
    """Pairs of which one says that nothing happened: what a single metric would have hidden."""
    by_metric = {(fall.metric, fall.shape): fall for fall in reversed(fell)}
    inner = next((fall for fall in fell if fall.metric in ("kld", "kld_p99", "top1", "perplexity")), None)
    task = next((fall for fall in fell if fall.metric in TASKS), None)
    for key in TASKS:
        # A loss that is within noise for want of questions is no sign that nothing happened.
        if inner and (found := entry.get(key)) and found["within_noise"] and _lost(found) <= STEADY:
            yield {"steady": key, "fell": inner.metric, "shape": inner.shape}
    if task and "perplexity" in entry and ("perplexity", None) not in by_metric:
        yield {"steady": "perplexity", "fell": task.metric, "shape": None}
    for here, there in (("decode", "prefill"), ("prefill", "decode")):
        ending = dict(SHAPES)[there]
        if ("kld", here) in by_metric and ("kld", there) not in by_metric and f"kld{ending}" in entry:
            yield {"steady": f"kld{ending}", "fell": "kld", "shape": here}
