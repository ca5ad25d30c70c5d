"""What do the heads look at, and which of them matter? Heat maps, layers down and heads across."""

from __future__ import annotations

from typing import Any

from backend.inspection import InspectedLane, unpack_map
from backend.ui.figures import share, three
from backend.ui.inspect.plot import Chart, as_text, figure, sentences, title_of

SCALE = "Cividis"  # reads the same for every kind of colour vision
MEASURES = {
    "importance": "Importance: how much the loss moves when a head is turned down",
    "entropy": "Entropy: from one token (0) to all alike (1)",
    "first": "Weight on the first token",
    "previous": "Weight on the token before",
}


NAMES = {"entropy": "spread", "first": "weight on the first token", "previous": "weight on the token before"}


def measures(lane: InspectedLane) -> list[str]:
    """What was measured of this lane's heads."""
    return [name for name in MEASURES if values(lane, name)]


def values(lane: InspectedLane, measure: str) -> list[list[float]]:
    """L x H figures of every head; empty where there are none."""
    found: list[list[float]] = lane.importance if measure == "importance" else lane.attention.get(measure, [])
    return found


def head_map(lane: InspectedLane, measure: str, dark: bool) -> Chart:
    """One measure of every head."""
    table = values(lane, measure)
    if not table:
        return Chart("Heads", None, why_none(lane))
    drawn = figure("head", "layer", dark, 120 + 22 * min(24, len(table)))
    drawn.add_heatmap(
        z=table,
        colorscale=SCALE,
        zmin=0,
        zmax=max(max(row) for row in table) if measure == "importance" else 1,
        colorbar={"thickness": 10, "outlinewidth": 0},
        hovertemplate="layer %{y}, head %{x}: %{z:.3g}<extra></extra>",
    )
    _whole_steps(drawn.update_xaxes, len(table[0]))
    _whole_steps(drawn.update_yaxes, len(table))
    drawn.update_yaxes(autorange="reversed", showgrid=False)
    drawn.update_xaxes(showgrid=False)
    return Chart(MEASURES[measure], drawn, sentences([_words(lane, measure, table)], ""))


def _whole_steps(update: Any, count: int) -> None:
    update(tickmode="linear", tick0=0, dtick=max(1, -(-count // 16)))


def _words(lane: InspectedLane, measure: str, table: list[list[float]]) -> str:
    ranked = sorted(((value, layer, head) for layer, row in enumerate(table) for head, value in enumerate(row)))
    low, high = ranked[0], ranked[-1]
    if measure == "importance":
        whole = sum(value for value, _, _ in ranked) or 1.0
        tenth = sum(value for value, _, _ in ranked[-max(1, len(ranked) // 10) :])
        most = f"head {high[2]} of layer {high[1]} matters most ({three(high[0])} nats a unit of its gate)"
        least = f"head {low[2]} of layer {low[1]} least ({three(low[0])})"
        held = f"the first tenth of the heads holds {share(tenth / whole)} of the sum"
        return f"{title_of(lane)}: {most}, {least}; {held}."
    name = NAMES[measure]
    most = f"most {name}: head {high[2]} of layer {high[1]}, {three(high[0])}"
    return f"{title_of(lane)}, {most}; least: head {low[2]} of layer {low[1]}, {three(low[0])}."


def attention_map(lane: InspectedLane, layer: int, head: int, dark: bool) -> Chart:
    """Which token looks at which, in one head."""
    title = f"Layer {layer}, head {head}: the row looks at the columns"
    if layer not in lane.maps:
        return Chart(title, None, why_none(lane))
    weights = unpack_map(lane.maps[layer])[head]  # (T, T)
    texts = [as_text(text.replace("\n", " ")) or "·" for text in lane.attention["texts"]]
    count = len(texts)
    drawn = figure("", "", dark, 460)
    drawn.add_heatmap(
        z=weights.round(3),
        colorscale=SCALE,
        zmin=0,
        zmax=1,
        colorbar={"thickness": 10, "outlinewidth": 0},
        hovertemplate="token %{y} looks at %{x}: %{z:.2f}<extra></extra>",
    )
    step = max(1, -(-count // 40))
    ticks = {"tickvals": list(range(0, count, step)), "ticktext": texts[::step], "showgrid": False}
    drawn.update_xaxes(tickangle=-60, **ticks)
    drawn.update_yaxes(autorange="reversed", **ticks)
    return Chart(title, drawn, _map_words(lane, layer, head))


def _map_words(lane: InspectedLane, layer: int, head: int) -> str:
    found = {name: lane.attention[name][layer][head] for name in ("entropy", "first", "previous")}
    shown, of = len(lane.attention["texts"]), lane.attention["of"]
    cut = f" The first {shown} of the prompt's {of} tokens are shown." if shown < of else ""
    first, before = share(found["first"]), share(found["previous"])
    habits = f"puts {first} of its weight on the first token and {before} on the one before"
    return f"On average a token {habits}; spread {three(found['entropy'])} of the most possible.{cut}"


def why_none(lane: InspectedLane) -> str:
    """Why this lane's heads are not shown."""
    reasons = [lane.unavailable[name] for name in ("attention", "importance") if name in lane.unavailable]
    return f"Not measured for {title_of(lane)}: {'; '.join(reasons)}." if reasons else "No head was looked at."
