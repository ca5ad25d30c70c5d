"""A serving in words and rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.recipe.serving import Serving, Targets
from backend.serving.view import ServedView, ServingView
from backend.ui.figures import ratio, seconds, three
from backend.ui.palette import look

Figures = dict[str, Any]
LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "latency": "Whole answer"}
EQUAL = 0.02  # ratios nearer to 1 than this are not called faster or slower: it is one run
TERMS = (
    "Throughput counts the tokens of ended answers. Goodput counts the requests that kept to both targets. TTFT: from "
    "arrival to the first token, waiting included. TPOT: for each token after the first. p99: 99 of 100 requests took "
    "no longer; of fewer than 100 requests, the slowest."
)


def rows(lanes: list[ServedView], targets: Targets) -> list[dict[str, str]]:
    """The table: a figure a row, a lane a column."""
    found = {look(lane.name).title: lane.figures(targets) for lane in lanes}
    table = [
        ("Throughput, tokens/s", "tokens_per_s", three),
        ("Requests a second", "requests_per_s", three),
        (f"Goodput, requests/s ({_promise(targets)})", "goodput_per_s", three),
        *((f"{title} p{p}", f"{name}_p{p}_s", seconds) for name, title in LATENCIES.items() for p in (50, 95, 99)),
        ("Preemptions", "preemptions", lambda value: f"{value:,g}"),
        ("Prefix hit rate: prompt tokens that were not computed", "prefix_hit_rate", lambda value: f"{value:.1%}"),
    ]
    return [
        {"figure": title} | {lane: show(held[key]) if key in held else "" for lane, held in found.items()}
        for title, key, show in table
    ]


def _promise(targets: Targets) -> str:
    return f"TTFT {seconds(targets.ttft_s)}, TPOT {seconds(targets.tpot_s)}"


def verdict(view: ServingView, asked: Serving) -> Iterator[tuple[str, list[str]]]:
    """Of each variant its headline, and what else it gained or lost against the baseline."""
    found: dict[str, Figures] = (view.verdict or {}).get("lanes", {})
    base = found.get("base")
    for name, lane in view.lanes.items():
        if name == "base":
            continue
        if base is None or name not in found:
            who = name if name not in found else "The baseline"
            yield f"{who} did not serve to its end, so there is no verdict on {name}.", []
            continue
        yield headline(name, lane.label, found[name], base), details(found[name], base, asked.targets)


def headline(name: str, label: str, ours: Figures, base: Figures) -> str:
    """'A, continuous batching, serves 1.62x as many tokens a second as the baseline: 612 against 378.'"""
    times, span = ours["tokens_per_s"] / base["tokens_per_s"], _against(ours, base, "tokens_per_s", three)
    if abs(times - 1) < EQUAL:
        return f"{name}, {label}, serves as many tokens a second as the baseline: {span}, {ratio(times)}."
    if times < 1:
        return f"{name}, {label}, serves fewer tokens a second than the baseline, {ratio(times)}: {span}."
    return f"{name}, {label}, serves {ratio(times)} as many tokens a second as the baseline: {span}."


def details(ours: Figures, base: Figures, targets: Targets) -> list[str]:
    """Goodput, and how long the slowest waited and read."""
    told = [
        f"{ours['good']} of {ours['requests']} kept to both targets ({_promise(targets)}), against {base['good']} of "
        f"{base['requests']}: goodput {_against(ours, base, 'goodput_per_s', three)} requests/s."
    ]
    for key, what in (("ttft", "To the first token"), ("tpot", "For each further token")):
        if f"{key}_p99_s" in ours and f"{key}_p99_s" in base:
            half, last = (_against(ours, base, f"{key}_p{p}_s", seconds) for p in (50, 99))
            rest = "99 of 100 at most" if ours["requests"] >= 100 else "the slowest"
            told.append(f"{what}: half took at most {half}, {rest} {last}.")
    if count := ours.get("preemptions"):
        times = "once" if count == 1 else f"{count:,g} times"
        told.append(f"Memory ran out {times}, and a request had to leave and come back.")
    return told


def _against(ours: Figures, base: Figures, key: str, show: Any) -> str:
    return f"{show(ours[key])} against {show(base[key])}"


def alone(lane: ServedView) -> str:
    """Whether answers of the batch are those that the lane writes alone."""
    if not lane.alone:
        return ""
    same = sum(one["same"] for one in lane.alone)
    who = look(lane.name).title
    head = f"{who[:1].upper()}{who[1:]}: {same} of {len(lane.alone)} answers have the tokens that they have alone"
    other = next((one for one in lane.alone if not one["same"]), None)
    return (
        f"{head}; request {other['request']} differs from token {other['differs_at'] + 1} on." if other else f"{head}."
    )


def as_rows(view: ServingView) -> Iterator[dict[str, Any]]:
    """Every request of every lane that has ended, with raw values."""
    for lane in view.lanes.values():
        lengths = {int(id): int(prompt) for id, _, prompt, _ in lane.arrived}
        for one in lane.ended:
            yield {
                "lane": lane.name, "label": lane.label, "request": one.id, "arrival_s": one.arrival_s,
                "first_s": one.first_s, "end_s": one.end_s, "prompt_tokens": lengths[one.id],
                "output_tokens": one.tokens, "ttft_s": one.ttft_s, "tpot_s": one.tpot_s,
            }  # fmt: skip
