"""The alarm of the receipt: a switch that was on and changed nothing. Pure functions."""

from __future__ import annotations

from typing import Any

from backend.recipe.switch import all_switches

Lane = dict[str, Any]


def no_effect(name: str, lane: Lane) -> str:
    """'A, no effect: Attention kernel (attention ran as sdpa flash, not eager).' Empty where all took effect."""
    told = [
        f"{_title(effect.get('kind', ''))} ({effect['summary']})"
        for effect in lane.get("effects", ())
        if not effect.get("took_effect")
    ]
    who = "The baseline" if name == "base" else name
    return f"{who}, no effect: {'; '.join(told)}." if told else ""


def alarms(verdict: dict[str, Any] | None) -> list[str]:
    """The alarm of every lane that has one, the baseline first."""
    lanes = (verdict or {}).get("lanes", {})
    return [line for name, lane in lanes.items() if (line := no_effect(name, lane))]


def _title(kind: str) -> str:
    """The switch as the form names it; a switch of another version by its kind."""
    known = all_switches().get(kind)
    return known.title if known else kind
