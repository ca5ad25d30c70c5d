"""Which layer suffers most when it alone is quantized? Bars by layer, simulated."""

from __future__ import annotations

from backend.inspection import InspectedLane
from backend.ui.figures import share, three
from backend.ui.inspect.plot import Chart, colour, figure, title_of

SCHEMES = {
    "int4": "int4 weights in groups of 32, rounded to nearest",
    "int8": "int8 weights with one scale a row",
    "int8_dynamic": "int8 activations with one scale a call",
}


def chart(lane: InspectedLane, scheme: str, dark: bool) -> Chart:
    """KLD against the model as it is, with one layer quantized at a time."""
    title = f"{SCHEMES[scheme].capitalize()} (simulated)"
    found = lane.sensitivity.get(scheme)
    if not found:
        reason = lane.unavailable.get("sensitivity")
        return Chart(title, None, f"Not measured: {reason}." if reason else "No layer was quantized alone.")
    drawn = figure("layer that is quantized alone", "KLD, nats", dark)
    drawn.add_bar(
        x=list(found),
        y=[one["kld"] for one in found.values()],
        marker={"color": colour(lane.name, dark)},
        hovertemplate="layer %{x}: %{y:.3g} nats<extra></extra>",
    )
    drawn.update_xaxes(type="category")
    drawn.update_yaxes(rangemode="tozero")
    return Chart(title, drawn, words(lane, scheme))


def words(lane: InspectedLane, scheme: str) -> str:
    """The layers that suffer most and least."""
    found = lane.sensitivity[scheme]
    ranked = sorted(found.items(), key=lambda item: -item[1]["kld"])
    whole = sum(one["kld"] for one in found.values())
    worst, best = ranked[0], ranked[-1]
    named = f"{_unit(worst[0])} suffers most, KLD {three(worst[1]['kld'])}"
    part = f" ({share(worst[1]['kld'] / whole)} of the sum over layers)" if whole else ""
    second = f", then {_unit(ranked[1][0])} with {three(ranked[1][1]['kld'])}" if len(ranked) > 2 else ""
    agree = f" The first choice stays the same {share(worst[1]['top1'])} of the time even there."
    tokens = f" Measured on {worst[1]['tokens']} tokens of text of the model's own kind."
    least = f"; {_unit(best[0])} least, {three(best[1]['kld'])}."
    return f"In {title_of(lane)}, {named}{part}{second}{least}{agree}{tokens}"


def _unit(unit: str) -> str:
    return f"layer {unit}" if unit.isdigit() else f"the {unit}"
