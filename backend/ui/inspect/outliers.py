"""Do a few large numbers spoil the rest? Inputs of the linear layers, the worst named first."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from backend.inspection import InspectedLane
from backend.ui.figures import share, three
from backend.ui.inspect.plot import Chart, colour, figure, ink, title_of

SPOILED = 0.5  # the share of a layer's inputs that one int8 scale would round to 0, from which on it is blamed
NAMED = 3
SHOWN = 20  # rows of the table
SHARES = ("Range used by the largest 0.1%", "Rounds to 0 in int8")
FIGURES = ("max|x| / rms", "max|x|", "Weights, max / rms")


def blamed(lane: InspectedLane) -> list[dict[str, Any]]:
    """The layers that one int8 scale a call would spoil, the worst first."""
    layers = lane.outliers.get("layers", [])
    return sorted((one for one in layers if one["zero_share"] >= SPOILED), key=lambda one: -one["zero_share"])


def by_layer(lane: InspectedLane, dark: bool) -> Chart:
    """max|x| / rms of every linear layer's input."""
    title = f"How far the largest input stands out: {title_of(lane)}"
    layers = lane.outliers.get("layers")
    if not layers:
        return Chart(title, None, why_none(lane))
    drawn = figure("decoder layer", "max|x| / rms", dark, 300)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for one in layers:
        kinds.setdefault(one["name"].rpartition(".")[2], []).append(one)
    symbols = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star")
    for number, (kind, ones) in enumerate(kinds.items()):
        inside = sorted((one for one in ones if one["layer"] is not None), key=lambda one: one["layer"])
        if not inside:
            continue
        drawn.add_scatter(
            x=[one["layer"] for one in inside],
            y=[one["ratio"] for one in inside],
            mode="markers",
            name=kind,
            marker={"symbol": symbols[number % len(symbols)], "size": 8, "color": colour(lane.name, dark)},
            hovertemplate=f"layer %{{x}} {kind}: %{{y:.3g}}<extra></extra>",
        )
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    drawn.update_yaxes(type="log", dtick=1)
    return Chart(title, drawn, words(lane))


def words(lane: InspectedLane) -> str:
    """Which layers are to blame, and for what."""
    layers = lane.outliers["layers"]
    guilty = blamed(lane)
    if not guilty:
        worst = layers[0]
        return (
            f"No layer's inputs are spoiled by outliers. The farthest is {worst['name']}: its largest input is "
            f"{three(worst['ratio'])} times the root mean square, and one int8 scale would round "
            f"{share(worst['zero_share'])} of the rest to 0."
        )
    told = [
        f"{one['name']} (largest {three(one['ratio'])} times the rms, in channel {one['channel']} at token "
        f"{one['token']}; {share(one['zero_share'])} would round to 0)"
        for one in guilty[:NAMED]
    ]
    more = f"; and {len(guilty) - NAMED} more" if len(guilty) > NAMED else ""
    return (
        f"To blame: {'; '.join(told)}{more}. One int8 scale for all activations of a call must reach their largest "
        f"value, so what is small is lost: dynamic int8 suffers, weight-only int8 does not. "
        f"Over {lane.outliers['tokens']} tokens in one call."
    )


def histogram(lane: InspectedLane, name: str, dark: bool) -> Chart:
    """How large the inputs of one layer are, and its weights, in bins of |x| / rms on a log scale."""
    one = next((one for one in lane.outliers.get("layers", ()) if one["name"] == name), None)
    title = f"Inputs of {name}"
    if one is None:
        return Chart(title, None, why_none(lane))
    edges = lane.outliers["edges"]
    middle = [10 ** ((low + high) / 2) for low, high in pairwise(edges)]
    drawn = figure("|x| / rms", "share of the numbers", dark, 300)
    whole = sum(one["histogram"])
    drawn.add_bar(
        x=middle,
        y=[count / whole for count in one["histogram"]],
        width=[10**high - 10**low for low, high in pairwise(edges)],
        marker={"color": colour(lane.name, dark)},
        hovertemplate="%{x:.3g} rms: %{y:.3g}<extra></extra>",
    )
    if weight := one.get("weight"):
        of_weight = sum(weight["histogram"])
        y = [count / of_weight if count else None for count in weight["histogram"]]
        drawn.add_scatter(x=middle, y=y, mode="lines", line={"color": ink(dark), "dash": "dot"}, name="weights")
    drawn.update_xaxes(type="log", dtick=1)
    drawn.update_yaxes(type="log", dtick=1)
    weights = f" Its weights (dotted) reach {three(one['weight']['ratio'])} times theirs." if one.get("weight") else ""
    summary = (
        f"Inputs reach {three(one['ratio'])} times their root mean square of {three(one['rms'])}; the largest "
        f"thousandth alone uses {share(one['range_share'])} of the range.{weights}"
    )
    return Chart(title, drawn, summary)


def rows(lane: InspectedLane) -> list[dict[str, Any]]:
    """The layers as a table, the worst first."""
    return [
        {
            "Layer": one["name"],
            "max|x| / rms": one["ratio"],
            "max|x|": one["max_abs"],
            "Range used by the largest 0.1%": one["range_share"],
            "Rounds to 0 in int8": one["zero_share"],
            "Channel": one["channel"],
            "Token": one["token"],
            "Weights, max / rms": one["weight"]["ratio"] if one.get("weight") else None,
        }
        for one in lane.outliers.get("layers", ())[:SHOWN]
    ]


def why_none(lane: InspectedLane) -> str:
    """Why nothing is shown."""
    reason = lane.unavailable.get("outliers")
    return f"Not measured: {reason}." if reason else "No layer was looked at."
