"""A serving in words and rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.recipe.serving import Targets
from backend.serving.view import ServedView, ServingView
from backend.ui.figures import ratio, seconds, three
from backend.ui.palette import look

LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "latency": "whole answer"}


def rows(lanes: list[ServedView], targets: Targets) -> list[dict[str, str]]:
    """The table: a figure a row, a lane a column."""
    found = {look(lane.name).title: lane.figures(targets) for lane in lanes}
    table = [
        ("Throughput, tokens/s", "tokens_per_s", three),
        ("Requests a second", "requests_per_s", three),
        (f"Goodput a second (TTFT {targets.ttft_s:g} s, TPOT {targets.tpot_s:g} s)", "goodput_per_s", three),
        *((f"{title} p{p}", f"{name}_p{p}_s", seconds) for name, title in LATENCIES.items() for p in (50, 95, 99)),
        ("Preemptions", "preemptions", lambda value: f"{value:g}"),
        ("Prefix hit rate: prompt tokens that were not computed", "prefix_hit_rate", lambda value: f"{value:.1%}"),
    ]
    return [
        {"figure": title} | {lane: show(held[key]) if key in held else "" for lane, held in found.items()}
        for title, key, show in table
    ]


def sentences(view: ServingView) -> Iterator[str]:
    """What each variant gained or lost against the baseline."""
    for name, held in (view.verdict or {}).get("ratio", {}).items():
        told = [f"{ratio(held['tokens_per_s'])} of the baseline's throughput"] if "tokens_per_s" in held else []
        told += [f"{ratio(held['goodput_per_s'])} of its goodput"] if "goodput_per_s" in held else []
        told += [f"{ratio(held['ttft_p99_s'])} of its p99 TTFT"] if "ttft_p99_s" in held else []
        told += [f"{ratio(held['tpot_p99_s'])} of its p99 TPOT"] if "tpot_p99_s" in held else []
        yield f"{name}, {view.lanes[name].label}: {', '.join(told)}."


def alone(lane: ServedView) -> str:
    """Whether answers of the batch are those that the lane writes alone."""
    if not lane.alone:
        return ""
    same = sum(one["same"] for one in lane.alone)
    head = f"{look(lane.name).title}: {same} of {len(lane.alone)} answers have the tokens that they have alone"
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
