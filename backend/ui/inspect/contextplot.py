"""What a longer text changes, as curves over its length: KLD and bytes of caches, time and memory of lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.recipe.contexts import ContextSweep
from backend.swept import SweptLane, attention_share, safety
from backend.ui.figures import seconds, share, size, three
from backend.ui.inspect.plot import Chart, as_text, colour, figure, ink
from backend.ui.palette import look

AXIS = "tokens of the text"
LEAST = 1e-7  # nats: what is drawn for nothing at all, on a scale of powers of ten
STYLES = (
    *(("A", "circle", "solid"), ("B", "square", "dash"), ("C", "diamond", "dot")),
    *(("base", "x", "dashdot"), ("A", "cross", "longdash"), ("B", "star", "longdashdot")),
)


def quality(lane: SweptLane, asked: ContextSweep, dark: bool) -> Chart:
    """KLD of each cache against the length of the text, with the bound across it."""
    title = "KLD against the length of the text, a curve a cache"
    if not lane.quality:
        return Chart(title, None, "No length was scored so far.")
    drawn = figure(AXIS, "KLD, nats", dark, 300)
    for number, recipe in enumerate(asked.caches):
        curve = lane.curve(number)
        values = [max(LEAST, point["kld"]) for point in curve]
        spread = {"type": "data", "array": [max(0.0, p["high"] - p["kld"]) for p in curve], "thickness": 1}
        _line(drawn, number, recipe.label, [p["length"] for p in curve], values, dark, error_y=spread)
    lengths = [point["length"] for point in lane.quality]
    bound = {"mode": "lines", "line": {"dash": "dash", "color": ink(dark), "width": 1}, "hoverinfo": "skip"}
    drawn.add_scatter(x=[lengths[0] / 1.2, lengths[-1] * 1.2], y=[asked.kld] * 2, name="bound", **bound)
    _lengths(drawn, lengths)
    drawn.update_yaxes(type="log", exponentformat="power", dtick=1)
    return Chart(title, drawn, f"{verdicts(lane, asked)} {protocol(lane, asked)}")


def loss(lane: SweptLane, asked: ContextSweep, dark: bool) -> Chart:
    """Loss of each cache on the same tokens against their place in the text, the full cache's beside them."""
    title = "Loss against the position in the text"
    scored = [point for point in lane.quality if "loss" in point]
    if not scored:
        return Chart(title, None, "No length was scored so far.")
    drawn = figure("position in the text, tokens", "loss, nats a token", dark)
    lengths, last = [point["length"] for point in scored], scored[-1]
    _line(drawn, 3, "full cache", lengths, [point["loss"] for point in scored], dark)
    told = [f"the full cache {three(last['loss'])}"]
    for number, recipe in enumerate(asked.caches):
        values = [point["caches"][number]["loss"] for point in scored]
        _line(drawn, number if number < 3 else number + 1, recipe.label, lengths, values, dark)
        told.append(f"{recipe.label} {three(values[-1])}")
    _lengths(drawn, lengths)
    scored_each = lane.start.get("scored", 0)
    return Chart(title, drawn, f"Mean of the {scored_each} tokens before {last['length']:,}: {', '.join(told)}.")


def held(lane: SweptLane, asked: ContextSweep, dark: bool) -> Chart:
    """Bytes of each cache against the length of the text."""
    title = "Bytes of the cache against the length of the text"
    if not lane.quality:
        return Chart(title, None, "No length was measured so far.")
    drawn = figure(AXIS, "cache, MB", dark)
    lengths, last = [point["length"] for point in lane.quality], lane.quality[-1]
    _line(drawn, 3, "full cache", lengths, [point["kv_bytes"] / 1e6 for point in lane.quality], dark)
    told = [f"the full cache {size(last['kv_bytes'])}"]
    for number, recipe in enumerate(asked.caches):
        curve = lane.curve(number)
        style = number if number < 3 else number + 1
        _line(drawn, style, recipe.label, lengths, [point["kv_bytes"] / 1e6 for point in curve], dark)
        told.append(f"{recipe.label} {size(curve[-1]['kv_bytes'])} ({share(curve[-1]['kv_bytes'] / last['kv_bytes'])})")
    _lengths(drawn, lengths)
    drawn.update_yaxes(rangemode="tozero")
    return Chart(title, drawn, f"At {last['length']:,} tokens: {', '.join(told)}.")


def verdicts(lane: SweptLane, asked: ContextSweep) -> str:
    """One sentence a cache: up to how many tokens it is safe, as measured."""
    return " ".join(verdict(recipe.label, lane.curve(number), asked) for number, recipe in enumerate(asked.caches))


def verdict(label: str, curve: list[dict[str, Any]], asked: ContextSweep) -> str:
    """'int4 cache: safe for this model up to 2,048 tokens, KLD at most .004 (95% interval up to .006).'"""
    found = safety(curve, asked.kld)
    within = [point for point in curve if found.safe and point["length"] <= found.safe]
    if within:
        worst = max(within, key=lambda point: point["kld"])
        told = f"{label}: safe for this model up to {found.safe:,} tokens, KLD at most {three(worst['kld'])}"
        told += f" (95% interval up to {three(max(point['high'] for point in within))})"
    else:
        told = f"{label}: not safe for this model at any length measured"
    if found.broken:
        return f"{told}; at {found.broken['length']:,} tokens KLD is {three(found.broken['kld'])}."
    if found.mean != found.safe:
        return f"{told}; up to {found.mean:,} the mean keeps the bound, but its interval does not."
    return f"{told}; longer texts were not measured."


def protocol(lane: SweptLane, asked: ContextSweep) -> str:
    """How it was scored."""
    return (
        f"Safe: mean KLD with its whole interval below {three(asked.kld)} nats at this length and every shorter one. "
        f"Each length: all but its last {lane.start.get('scored', 0)} tokens are read as a prompt, in which every "
        "cache shows its tokens in full; the last are decoded, whatever a cache would have chosen, and each is scored "
        "against the full cache."
    )


def speed(lanes: Sequence[SweptLane], dark: bool) -> list[Chart]:
    """Time of a step, share of attention in it, and memory, a curve a lane."""
    swept = [lane for lane in lanes if lane.speed]
    if not swept:
        return [Chart("Time of a step against the length of the text", None, "No length was timed so far.")]
    charts = [
        _lanes(swept, "Time of a step against the length of the text", "step, ms", dark, _step_ms, _steps_in_words),
        _lanes(swept, "Share of attention in a step, what grows with the text", "%", dark, _share, _shares_in_words),
        _lanes(swept, "Peak memory against the length of the text", "peak, MB", dark, _peak, _peaks_in_words),
    ]
    return [chart for chart in charts if chart.figure is not None]


def _lanes(lanes: Sequence[SweptLane], title: str, unit: str, dark: bool, value: Any, words: Any) -> Chart:
    """One figure with a curve a lane; none where no lane has the value."""
    drawn, any_value = figure(AXIS, unit, dark), False
    for lane in lanes:
        points = [(point["prompt_tokens"], value(point)) for point in lane.speed]
        known = [(tokens, number) for tokens, number in points if number is not None]
        if not known:
            continue
        any_value = True
        drawn.add_scatter(
            x=[tokens for tokens, _ in known],
            y=[number for _, number in known],
            name=lane.name,
            mode="lines+markers+text",
            text=[""] * (len(known) - 1) + [look(lane.name).title],
            textposition="top left",
            line={"color": colour(lane.name, dark), "width": 2, "dash": look(lane.name).dash},
            hovertemplate="%{x} tokens: %{y:.3g}<extra></extra>",
        )
    if not any_value:
        return Chart(title, None, "")
    _lengths(drawn, [point["length"] for point in max(lanes, key=lambda lane: len(lane.speed)).speed])
    drawn.update_yaxes(rangemode="tozero")
    told = "; ".join(f"{look(lane.name).title} ({lane.label}) {words(lane.speed[0], lane.speed[-1])}" for lane in lanes)
    return Chart(title, drawn, f"{told[:1].upper()}{told[1:]}.")


def _step_ms(point: dict[str, Any]) -> float:
    return float(point["step_s"] * 1e3)


def _share(point: dict[str, Any]) -> float | None:
    found = attention_share(point)
    return 100 * found["grows"] if found else None


def _peak(point: dict[str, Any]) -> float:
    return float(point["peak_bytes"] / 1e6)


def _steps_in_words(first: dict[str, Any], last: dict[str, Any]) -> str:
    return (
        f"{seconds(first['step_s'])} a step after {first['prompt_tokens']:,} tokens, "
        f"{seconds(last['step_s'])} after {last['prompt_tokens']:,}"
    )


def _shares_in_words(first: dict[str, Any], last: dict[str, Any]) -> str:
    told = [attention_share(point) for point in (first, last)]
    if not told[0] or not told[1]:
        return "was not told apart by part"
    return (
        f"{share(told[0]['grows'])} of a step after {first['prompt_tokens']:,} tokens, {share(told[1]['grows'])} after "
        f"{last['prompt_tokens']:,}; with its projections {share(told[0]['attention'])} and "
        f"{share(told[1]['attention'])}"
    )


def _peaks_in_words(first: dict[str, Any], last: dict[str, Any]) -> str:
    cache = f", of it the cache {size(last['kv_bytes'])}" if last["kv_bytes"] else ""
    told = f"{size(first['peak_bytes'])} after {first['prompt_tokens']:,} tokens"
    return f"{told}, {size(last['peak_bytes'])} after {last['prompt_tokens']:,}{cache}"


def _line(drawn: Any, style: int, name: str, x: list[int], y: list[float], dark: bool, **more: Any) -> None:
    """A labelled curve in one of six styles."""
    hue, symbol, dash = STYLES[style % len(STYLES)]
    drawn.add_scatter(
        x=x,
        y=y,
        name=as_text(name),
        mode="lines+markers+text",
        text=[""] * (len(x) - 1) + [as_text(name)],
        textposition="top left",
        line={"color": colour(hue, dark), "width": 2, "dash": dash},
        marker={"size": 8, "symbol": symbol},
        hovertemplate=f"{as_text(name)}, %{{x}} tokens: %{{y:.3g}}<extra></extra>",
        **more,
    )


def _lengths(drawn: Any, lengths: list[int]) -> None:
    """Tokens on a scale of powers of two."""
    drawn.update_xaxes(type="log", tickvals=lengths, ticktext=[f"{length:,}" for length in lengths])
