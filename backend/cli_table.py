"""A finished race as tables of plain text, for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backend.ui.figuretable import HEAD, kinds_of, plain_table
from backend.ui.no_effect import alarms
from backend.ui.quality_words import quality_lines


def table(result: dict[str, Any]) -> str:
    """The lanes as a table of plain text."""
    rows = [("lane", "recipe", "tokens/s", "ratio", "interval", "held MB", "KLD", "top-1", "perplexity")]
    verdict = (result["verdict"] or {}).get("lanes", {})
    for name, lane in result["lanes"].items():
        speed = verdict.get(name, {}).get("speed", {})
        memory = lane["memory"]
        held = (memory["weights_bytes"] + memory["kv_bytes"]) / 1e6 if memory else None
        interval = f"{speed['low']:.3g} to {speed['high']:.3g}" if "low" in speed else ""
        figures = (
            lane["tokens_per_s"],
            speed.get("ratio"),
            interval,
            held,
            (lane["kld"] or {}).get("mean"),
            lane["top1"],
            (lane["perplexity"] or {}).get("value"),
        )
        tag = " (simulated)" if verdict.get(name, {}).get("simulated") else ""
        rows.append((name, lane["label"] + tag, *(_cell(figure) for figure in figures)))
    told = [f"{name}: {line}" for name, lane in verdict.items() for line in quality_lines(lane)]
    judged = ["\n".join(told)] if told else []
    return "\n\n".join([*alarms(result["verdict"]), aligned(rows), *judged, *_measured(result["verdict"])])


def _measured(verdict: dict[str, Any] | None) -> Iterator[str]:
    """The measured figures side by side, each kind of prompt apart, and what gives reason to doubt them."""
    if not verdict or len(plain_table(verdict)) < 2:
        return
    yield f"{HEAD}\n{aligned(plain_table(verdict))}"
    for kind in kinds_of(verdict):
        yield f"{kind.capitalize()} alone:\n{aligned(plain_table(verdict, kind))}"
    if said := [*verdict.get("notes", ()), *verdict.get("suspicions", ())]:
        yield "\n".join(said)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines, the columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _cell(figure: Any) -> str:
    if figure is None:
        return "-"
    return figure if isinstance(figure, str) else f"{figure:.3g}"
