"""A finished race of encoders for the command line: one JSON object, or tables of plain text."""

from __future__ import annotations

from typing import Any

from backend.cli_table import aligned
from backend.encodingview import EncodingView
from backend.recipe.race import Race
from backend.ui.encoding.words import WORTH, memory_rows, sentences, speed_rows, summary, worth_rows
from backend.ui.no_effect import alarms


def encoding_report(view: EncodingView, race: Race) -> dict[str, Any]:
    """Figures, receipt and what the query found per lane; the verdict with its intervals."""
    lanes = {
        name: {
            "label": lane.label,
            "memory": lane.memory,
            "receipt": lane.receipt,
            "found": lane.found,
            "failure": lane.failure,
        }
        for name, lane in view.lanes.items()
    }
    return {
        "state": view.state,
        "task": "encoder",
        "race": race.model_dump(mode="json"),
        "machine": {key: view.opened.get(key) for key in ("hardware", "versions")},
        "lanes": lanes,
        "verdict": view.verdict,
        "card": view.card,
        "wall_s": view.wall_s,
    }


def encoding_table(result: dict[str, Any]) -> str:
    """The verdict in sentences, then speed, memory and vectors as tables."""
    verdict = result["verdict"]
    if verdict is None:
        return ""
    base = verdict["lanes"].get("base", {})
    told = [" ".join(sentences(name, lane, base)) for name, lane in verdict["lanes"].items() if name != "base"]
    parts = [*alarms(verdict), *told]
    if len(rows := speed_rows(verdict)) > 1:
        parts.append(f"{summary(verdict)}\n{aligned(rows)}")
    parts.append(aligned(memory_rows(verdict, {name: lane["memory"] for name, lane in result["lanes"].items()})))
    if len(rows := worth_rows(verdict)) > 1:
        parts.append(f"{WORTH}\n{aligned(rows)}")
    return "\n\n".join([*parts, *verdict["suspicions"], *verdict["notes"]])
