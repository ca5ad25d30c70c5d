"""The measured figures as rows of text: each lane's own value, and each variant's ratio with its interval in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.ui.figures import interval, ratio, seconds, size, three
from backend.ui.palette import look
from backend.ui.words import undecided

Lane = dict[str, Any]
TITLES = {
    "ttft_s": "TTFT",
    "prefill_tokens_per_s": "Prefill speed",
    "tpot_s": "TPOT",
    "itl_p50_s": "ITL p50",
    "itl_p95_s": "ITL p95",
    "itl_p99_s": "ITL p99",
    "tokens_per_s": "Decode speed",
    "e2e_s": "E2E latency",
    "peak_bytes": "Peak memory",
}
HEAD = "Medians of whole requests (peak memory: the highest). Ratios are paired, above 1 is better."


@dataclass(frozen=True)
class Row:
    """One figure: (number, unit) by lane, and the ratio in words by variant."""

    title: str
    values: dict[str, tuple[str, str]]
    ratios: dict[str, str]


def kinds_of(verdict: dict[str, Any]) -> list[str]:
    """The kinds of prompt that were measured apart."""
    return list(verdict["lanes"].get("base", {}).get("kinds", ()))


def rows(verdict: dict[str, Any], kind: str | None = None) -> list[Row]:
    """A row for every figure that was measured; `kind` picks one kind of prompt out of a mix."""
    lanes = {name: lane["kinds"].get(kind, {}) if kind else lane for name, lane in _lanes(verdict, kind).items()}
    made = []
    for figure, title in TITLES.items():
        values = {name: told(figure, value) for name, lane in lanes.items() if (value := own(figure, lane)) is not None}
        paired = {name: lane["paired"][figure] for name, lane in lanes.items() if figure in lane.get("paired", ())}
        if values:
            made.append(Row(title, values, {name: ratio_words(found) for name, found in paired.items()}))
    return made


def _lanes(verdict: dict[str, Any], kind: str | None) -> dict[str, Lane]:
    """The lanes that answered measured requests."""
    return {
        name: lane for name, lane in verdict["lanes"].items() if lane.get("requests") and (not kind or "kinds" in lane)
    }


def own(figure: str, lane: Lane) -> float | None:
    """A lane's own value of a figure; None where it was not measured."""
    if figure.startswith("itl_"):
        return lane.get("itl_s", {}).get(figure.split("_")[1])
    if figure == "e2e_s":
        return lane.get("e2e_s", {}).get("p50")
    return lane.get("request_peak_bytes" if figure == "peak_bytes" else figure)


def told(figure: str, value: float) -> tuple[str, str]:
    """Number and unit."""
    if figure.endswith("_per_s"):
        return three(value), "tokens/s"
    number, _, unit = (size(value) if figure.endswith("_bytes") else seconds(value)).partition(" ")
    return number, unit


def ratio_words(paired: dict[str, Any]) -> str:
    """'1.72x (1.69 to 1.75)', and what it means where it is no gain."""
    text = f"{ratio(paired['ratio'])} {interval(paired.get('low'), paired.get('high'))}"
    if noise := undecided(paired, "too noisy"):
        return text + noise
    return f"{text}, worse" if paired["ratio"] < 1 else text


def summary(verdict: dict[str, Any]) -> str:
    """What was measured, in one line."""
    seen = verdict.get("measurement", {})
    prompts = seen.get("prompts", ())
    if len(prompts) < 2:
        what = f"one prompt of {prompts[0]['prompt_tokens']} tokens" if prompts else "one prompt"
    elif seen.get("mode") == "mix":
        parts = (f"{p['kind']} ({p['prompt_tokens']} in, {p['output_tokens']} out)" for p in prompts)
        what = f"a mix: {', '.join(parts)}"
    else:
        what = f"{len(prompts)} prompts of {_span([p['prompt_tokens'] for p in prompts])} tokens"
    took = f" in {seconds(seen['seconds'])}" if seen.get("seconds") else ""
    return f"{seen.get('rounds', 0)} rounds{took} with {what}. {HEAD}"


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def columns(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    """(lane, title) of every lane that was measured, the baseline first."""
    tag = {True: " (simulated)", False: ""}
    return [(name, look(name).title + tag[bool(lane.get("simulated"))]) for name, lane in _lanes(verdict, None).items()]


def plain_table(verdict: dict[str, Any], kind: str | None = None) -> list[list[str]]:
    """The same rows as cells of plain text, with a row of titles first: figure, then every lane with its ratio."""
    named = columns(verdict)
    titles = ["figure"]
    for name, title in named:
        titles += [title] if name == "base" else [title, f"{title} against the baseline"]
    cells = [titles]
    for row in rows(verdict, kind):
        line = [row.title]
        for name, _ in named:
            line.append(" ".join(row.values.get(name, ("-", ""))).strip())
            if name != "base":
                line.append(row.ratios.get(name, "-"))
        cells.append(line)
    return cells
