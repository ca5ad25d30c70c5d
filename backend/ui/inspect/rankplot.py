"""Which heads and layers can go? A heat map by layer and head, bars by layer, and marks on what a choice takes."""

from __future__ import annotations

from math import hypot
from typing import Any

from backend.inspection import InspectedLane
from backend.recipe.switch import Switch
from backend.ui.figures import three
from backend.ui.inspect.cuts import FREE, GOES, KEPT, REMOVED, Fields, Scores, Unit, scores_of, states
from backend.ui.inspect.plot import Chart, colour, figure, ink, title_of

TITLES = {
    "output": "what a head adds to its layer's output",
    "weights": "the norm of its weights",
    "activation": "the norm of its activation",
    "taylor": "the first-order change of the loss without it",
    "entropy": "attention on few tokens (1) or spread over all (0)",
    "cosine": "Block Influence, which is 1 - cosine of a layer's input and output",
    "angular": "angular distance of a layer's input and output",
}
SCALE = "Cividis"  # reads the same for every kind of colour vision
MARK = "#e8175d"  # stands out from both ends of the scale
SYMBOLS = {FREE: "square", GOES: "x-thin-open", REMOVED: "x", KEPT: "circle-open"}
SHOWN = {FREE: "stays by its rank", GOES: "goes by its rank", REMOVED: "removed by hand", KEPT: "kept by hand"}


def chart(lane: InspectedLane, part: str, fields: Fields, switch: Switch | None, dark: bool) -> Chart:
    """The units' worth with marks on those that go or are kept; each point can be clicked."""
    scores = scores_of(lane, part, fields["by"])
    title = f"{part.capitalize()} by {fields['by']}: {TITLES[fields['by']]}"
    shown = states(switch, scores) if switch else {}
    draw = _bars if part == "layers" else _map
    return Chart(title, draw(lane, scores, shown, dark), words(lane, part, fields, shown))


def _map(lane: InspectedLane, scores: Scores, shown: dict[Unit, str], dark: bool) -> Any:
    drawn = figure(
        "head" if _together(lane) == 1 else "KV head with its query heads", "layer", dark, 120 + 24 * len(scores)
    )
    shares = [[value / (hypot(*row) or 1.0) for value in row] for row in scores]  # layers differ in scale
    bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": "of its layer"}}
    drawn.add_heatmap(z=shares, colorscale=SCALE, zmin=0, colorbar=bar, hoverinfo="skip")
    units = [(layer, unit) for layer, row in enumerate(scores) for unit in range(len(row))]
    kinds = [shown.get(unit, FREE) for unit in units]
    marks = {
        "symbol": [SYMBOLS[kind] for kind in kinds],
        "opacity": [0.0 if kind == FREE else 1.0 for kind in kinds],
        "size": 13,
        "color": ["#ffffff" if kind == REMOVED else MARK for kind in kinds],
        "line": {"width": 3, "color": MARK},
    }
    drawn.add_scatter(
        x=[unit for _, unit in units],
        y=[layer for layer, _ in units],
        mode="markers",
        marker=marks,
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 1}},
        customdata=[
            [*unit, SHOWN[kind], three(scores[unit[0]][unit[1]])] for unit, kind in zip(units, kinds, strict=True)
        ],
        hovertemplate="layer %{y}, head %{x}: %{customdata[3]}, %{customdata[2]}<extra></extra>",
    )
    widest = max(len(row) for row in scores)
    drawn.update_xaxes(tickmode="linear", tick0=0, dtick=max(1, -(-widest // 16)), showgrid=False)
    drawn.update_yaxes(tickmode="linear", tick0=0, dtick=max(1, -(-len(scores) // 16)), showgrid=False)
    drawn.update_yaxes(autorange="reversed")
    return drawn


def _bars(lane: InspectedLane, scores: Scores, shown: dict[Unit, str], dark: bool) -> Any:
    drawn = figure("layer", "distance", dark)
    kinds = [shown.get((layer, 0), FREE) for layer in range(len(scores))]
    told = {FREE: "", GOES: "goes", REMOVED: "removed", KEPT: "kept"}
    drawn.add_bar(
        x=list(range(len(scores))),
        y=[row[0] for row in scores],
        text=[told[kind] for kind in kinds],
        textposition="outside",
        textfont={"color": ink(dark)},
        marker={
            "color": colour(lane.name, dark),
            "opacity": [0.35 if kind in (GOES, REMOVED) else 1.0 for kind in kinds],
            "pattern": {"shape": ["x" if kind in (GOES, REMOVED) else "" for kind in kinds]},
        },
        customdata=[[layer, 0, SHOWN[kind]] for layer, kind in enumerate(kinds)],
        hovertemplate="layer %{x}: %{y:.3g}, %{customdata[2]}<extra></extra>",
    )
    drawn.update_xaxes(tickmode="linear", tick0=0, dtick=max(1, -(-len(scores) // 24)))
    drawn.update_yaxes(rangemode="tozero")
    return drawn


def _together(lane: InspectedLane) -> int:
    return next((int(one["together"]) for one in lane.rankings.get("heads", {}).values()), 1)


def words(lane: InspectedLane, part: str, fields: Fields, shown: dict[Unit, str]) -> str:
    """The least and the most worth, and what goes."""
    found = lane.rankings[part][fields["by"]]
    ranked = sorted((value, layer, unit) for layer, row in enumerate(found["scores"]) for unit, value in enumerate(row))
    low, high = ranked[0], ranked[-1]

    def name(layer: int, unit: int) -> str:
        return f"layer {layer}" if part == "layers" else f"head {unit} of layer {layer}"

    told = f"{title_of(lane).capitalize()}, measured on {found['tokens']} tokens: "
    told += f"least {name(*low[1:])}, {three(low[0])}; most {name(*high[1:])}, {three(high[0])}."
    if low[0] == high[0]:
        told += " All are worth the same here: what goes is decided by index."
    by_hand = sum(kind == REMOVED for kind in shown.values())
    by_rank = sum(kind == GOES for kind in shown.values())
    kept = sum(kind == KEPT for kind in shown.values())
    unit = f"KV heads, each with {_together(lane)} query heads," if part == "heads" and _together(lane) > 1 else part
    told += (
        f" {by_hand + by_rank} of {len(ranked)} {unit} go: {by_hand} by hand, {by_rank} by rank; {kept} kept by hand."
    )
    if fields.get("pattern") == "block" and fields["count"] > 1 and not by_rank:
        told += " Which block goes is measured when it is done: its distance is not the sum of its layers'."
    return told
