"""Which level for which layer? The predicted frontier, what one allocation comes to, and the race that tries it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from backend.allocation import Allocation, Frontier, frontier, units_of
from backend.forecast import float_bytes
from backend.inspection import InspectedLane
from backend.packing import unit_bytes
from backend.parts import pruned, weight_parts
from backend.recipe.facts import ModelFacts
from backend.recipe.race import LANES, Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Group, Switch
from backend.recipe.switches.mixed import LEVELS, SPLIT, MixedPrecision, write_levels
from backend.recipe.switches.precision import Int8WeightOnly
from backend.ui.figures import ratio, share, three
from backend.ui.inspect.plot import Chart, colour, figure, ink

SIMULATED = MixedPrecision()  # its groups and the share of likely rows are those that an inspection simulates
MEASURED = ("int4", "int8")
MOST_BITS = 16.0  # to the right of it there is little to see
UNIFORM = (("int8", "B", "square"), ("int4", "base", "diamond"))  # as it is raced: A is the mixed one
TITLE = "Mixed precision: KLD against bits per weight (predicted)"


def frontier_of(lane: InspectedLane, facts: ModelFacts, baseline: Recipe) -> Frontier | str:
    """The frontier from what was measured, or the reason why there is none."""
    if reason := lane.unavailable.get("sensitivity"):
        return f"not measured: {reason}"
    absent = [scheme for scheme in MEASURED if not lane.sensitivity.get(scheme)]
    if absent:
        return f"this inspection holds nothing of {' and '.join(absent)} weights; press Inspect to look again"
    parts = weight_parts(pruned(facts, baseline))
    sizes = unit_bytes(parts, SIMULATED, float_bytes(facts, baseline))
    if any(unit not in lane.sensitivity[scheme] for scheme in MEASURED for unit in sizes):
        return "not every layer was quantized alone"
    return frontier(units_of(lane.sensitivity, sizes))


def most_bits(front: Frontier) -> float:
    """The end of the slider."""
    return min(MOST_BITS, front.points[-1].bits_per_weight)


def chart(front: Frontier, chosen: Allocation, dark: bool) -> Chart:
    """The frontier as steps, the uniform levels as points on or above it, and what is chosen."""
    drawn = figure("bits per weight of layers and head, scales included", "KLD, nats, predicted", dark, 300)
    seen = [point for point in front.points if point.kld > 0 and point.bits_per_weight <= most_bits(front)]
    x, y = [point.bits_per_weight for point in seen], [point.kld for point in seen]
    hover = "%{x:.3g} bits: %{y:.3g} nats, predicted<extra></extra>"
    line = {"color": colour("A", dark), "width": 2, "shape": "hv"}
    drawn.add_scatter(x=x, y=y, mode="lines", line=line, name="best mix", hovertemplate=hover)
    for level, lane, symbol in UNIFORM:
        if (one := front.uniform(level)) and one.kld > 0:
            _mark(drawn, one, f"all {level}", colour(lane, dark), symbol, dark)
    if chosen.kld > 0:
        _mark(drawn, chosen, "this mix", colour("A", dark), "circle", dark)
    drawn.update_xaxes(range=[front.points[0].bits_per_weight - 0.2, most_bits(front) + 0.8])
    drawn.update_yaxes(type="log", dtick=1)
    return Chart(TITLE, drawn, words(front, chosen))


def _mark(drawn: go.Figure, one: Allocation, text: str, ink_colour: str, symbol: str, dark: bool) -> None:
    drawn.add_scatter(
        x=[one.bits_per_weight],
        y=[one.kld],
        mode="markers+text",
        text=[text],
        textposition="top right",
        textfont={"color": ink(dark)},
        marker={"symbol": symbol, "size": 11, "color": ink_colour, "line": {"width": 1, "color": ink(dark)}},
        hovertemplate=f"{text}: %{{x:.3g}} bits, %{{y:.3g}} nats, predicted<extra></extra>",
    )


def words(front: Frontier, chosen: Allocation) -> str:
    """What the mix comes to, beside all int8, beside the best of its size, and how far to trust it."""
    told = [f"This mix ({level_words(dict(chosen.levels))}): {figures(chosen)}, predicted."]
    if whole := front.uniform("int8"):
        told.append(f"All int8: {figures(whole)}{_beside(chosen, whole)}.")
    if (fours := front.uniform("int4")) and dict(chosen.levels) != dict(fours.levels):
        told.append(f"All int4: {figures(fours)}.")
    best = front.at(chosen.bits_per_weight)
    if best.kld < 0.999 * chosen.kld:
        told.append(f"The best mix that is no larger: {figures(best)}.")
    return " ".join([*told, "The sum of what each layer costs alone, which is an assumption: race it to know."])


def figures(one: Allocation) -> str:
    """'5.94 bits per weight, KLD 0.0812'."""
    return f"{three(one.bits_per_weight)} bits per weight, KLD {three(one.kld)}"


def _beside(chosen: Allocation, whole: Allocation) -> str:
    """'; the mix is 26% smaller at 3.10x its KLD'."""
    smaller = 1 - chosen.bits_per_weight / whole.bits_per_weight
    if abs(smaller) < 0.001 or whole.kld <= 0:
        return ""
    size = f"{share(abs(smaller))} {'smaller' if smaller > 0 else 'larger'}"
    return f"; the mix is {size} at {ratio(chosen.kld / whole.kld)} its KLD"


def level_words(levels: Mapping[str, str]) -> str:
    """'3 layers and head int4, 15 layers int8'."""
    counts = Counter(level for unit, level in levels.items() if unit.isdigit())
    heads = {level: unit for unit, level in levels.items() if not unit.isdigit()}
    told = []
    for level in LEVELS:
        parts = [f"{counts[level]} layer{'s' if counts[level] > 1 else ''}"] if counts[level] else []
        parts += [heads[level]] if level in heads else []
        told += [f"{' and '.join(parts)} {level}"] if parts else []
    return ", ".join(told)


def switch_of(levels: Mapping[str, str]) -> MixedPrecision:
    """The switch that asks for these levels, the most frequent one as the rest."""
    rest = Counter(level for level in levels.values() if level != SPLIT).most_common(1)[0][0]
    named = {unit: level for unit, level in levels.items() if level != rest}
    return MixedPrecision.read({"levels": write_levels(named), "rest": rest})


def race_of(race: Race, levels: Mapping[str, str]) -> Race:
    """The same race with two variants: the baseline's own switches with this mix, and with uniform int8.

    Raises:
        RecipeError: where the baseline's other switches do not go with it.
    """

    def variant(switch: Switch) -> dict[str, object]:
        others = {kind: one for kind, one in race.baseline.switches.items() if one.group != Group.PRECISION}
        return Recipe.read({"switches": {**others, switch.kind: switch}}).model_dump(mode="json")

    variants = [variant(switch_of(levels)), variant(Int8WeightOnly())]
    return Race.read(race.model_dump(mode="json") | {"variants": variants})


def lane_raced(race: Race, switch: Switch, spec: Mapping[str, Any]) -> str | None:
    """The variant of another race, as its job holds it, that tried this switch on the same model and baseline."""
    wanted, plain = switch.model_dump(mode="json"), race.model_dump(mode="json")
    if any(spec.get(name) != plain[name] for name in ("model", "revision", "baseline")):
        return None
    tried = zip(LANES[1:], spec.get("variants", ()), strict=False)
    return next((lane for lane, recipe in tried if recipe.get("switches", {}).get(switch.kind) == wanted), None)


def raced_words(job: int, lane: Mapping[str, Any]) -> str:
    """What that race measured: 'Race 12 tried this mix: KLD measured 0.0912 in prefill over 63 tokens.'"""
    shapes = (("prefill", lane.get("kld_prefill")), ("decode", lane.get("kld")))
    told = [f"{three(kld['mean'])} in {shape} over {kld['tokens']} tokens" for shape, kld in shapes if kld]
    return f"Race {job} tried this mix: KLD measured {', '.join(told)}." if told else ""
