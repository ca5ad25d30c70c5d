"""Which heads and layers go: the fields of a pruning switch, changed by clicks, what they take, and the race of it."""

from __future__ import annotations

from math import hypot
from typing import Any

from backend.inspection import InspectedLane
from backend.recipe.named import read_heads, read_layers, write_heads, write_layers
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Switch
from backend.recipe.switches.layers import DropLayers, blocks
from backend.recipe.switches.pruning import PruneHeads
from backend.recipe.thinning import refuse_pruned

Fields = dict[str, Any]  # of the switch, as the person left them
Unit = tuple[int, int]  # layer, and the unit in it; 0 of a layer itself
Scores = list[list[float]]
START: dict[str, Fields] = {
    "heads": {"by": "output", "ratio": 0.25, "scope": "layer", "remove": "", "keep": ""},
    "layers": {"by": "cosine", "count": 1, "pattern": "scattered", "remove": "", "keep": ""},
}
SWITCHES: dict[str, type[PruneHeads] | type[DropLayers]] = {"heads": PruneHeads, "layers": DropLayers}
FREE, GOES, REMOVED, KEPT = "free", "goes", "removed", "kept"


def scores_of(lane: InspectedLane, part: str, by: str) -> Scores:
    """What was measured: layers down, units across; empty where nothing was."""
    found: Scores = lane.rankings.get(part, {}).get(by, {}).get("scores", [])
    return found


def switch_of(part: str, fields: Fields) -> Switch:
    """The switch that asks for it.

    Raises:
        RecipeError: for fields that do not fit.
    """
    return SWITCHES[part].read(fields, where=f"switches.{SWITCHES[part].kind}")


def named(part: str, text: str) -> set[Unit]:
    """The units that a field names.

    Raises:
        RecipeError: for an entry that cannot be read.
    """
    if part == "layers":
        return {(layer, 0) for layer in read_layers(text, "layers")}
    return {(layer, head) for layer, heads in read_heads(text, "heads").items() for head in heads}


def written(part: str, units: set[Unit]) -> str:
    """The text of a field that names these units."""
    if part == "layers":
        return write_layers(layer for layer, _ in units)
    layers = {layer for layer, _ in units}
    return write_heads({layer: [head for own, head in units if own == layer] for layer in layers})


def clicked(part: str, fields: Fields, unit: Unit) -> Fields:
    """The fields after a click on a unit: it is removed, at the next click kept, at the third left to its rank."""
    remove, keep = named(part, fields["remove"]), named(part, fields["keep"])
    if unit in remove:
        remove, keep = remove - {unit}, keep | {unit}
    elif unit in keep:
        keep = keep - {unit}
    else:
        remove = remove | {unit}
    return fields | {"remove": written(part, remove), "keep": written(part, keep)}


def states(switch: Switch, scores: Scores) -> dict[Unit, str]:
    """What becomes of every unit, by the scores of this inspection."""
    part = "layers" if isinstance(switch, DropLayers) else "heads"
    remove, keep = named(part, switch.remove), named(part, switch.keep)  # type: ignore[attr-defined]
    units = [(layer, unit) for layer, row in enumerate(scores) for unit in range(len(row))]
    gone = _layers_gone(switch, scores) if isinstance(switch, DropLayers) else _heads_gone(switch, scores)
    return {
        unit: REMOVED if unit in remove else KEPT if unit in keep else GOES if unit in gone else FREE for unit in units
    }


def _heads_gone(switch: Any, scores: Scores) -> set[Unit]:
    """As the technique chooses: named first, then the lowest of a layer, or of all by their layer's norm."""
    remove, keep = named("heads", switch.remove), named("heads", switch.keep)
    chosen = remove | keep
    norms = [hypot(*(v for u, v in enumerate(row) if (n, u) not in chosen)) or 1.0 for n, row in enumerate(scores)]

    def place(unit: Unit) -> tuple[float, Unit]:
        first = -1.0 if unit in remove else 1.0 if unit in keep else 0.0
        return first * float("inf") if first else scores[unit[0]][unit[1]] / norms[unit[0]], unit

    widths = [len(row) for row in scores]
    ranked = [sorted(((layer, unit) for unit in range(own)), key=place) for layer, own in enumerate(widths)]
    if switch.scope == "layer":
        return {unit for row, lost in zip(ranked, switch.lost(widths), strict=True) for unit in row[:lost]}
    free = sorted((unit for row in ranked for unit in row[:-1] if unit not in keep), key=place)
    return set(free[: switch.lost_of_all(widths)])


def _layers_gone(switch: DropLayers, scores: Scores) -> set[Unit]:
    """As the technique chooses one by one. Which block goes is known here only where there is but one: its distance is
    not the sum of its layers'."""
    lost = switch.lost_of(len(scores))
    if switch.pattern == "block" and lost > 1:
        starts = blocks(len(scores), lost, switch.removed, switch.kept)
        return {(starts[0] + n, 0) for n in range(lost)} if len(starts) == 1 else set()
    free = [n for n in range(len(scores)) if n not in switch.removed and n not in switch.kept]
    ranked = sorted(free, key=lambda layer: (scores[layer][0], layer))
    return {(layer, 0) for layer in (*switch.removed, *ranked[: lost - len(switch.removed)])}


def race_of(race: Race, part: str, switch: Switch, layers: int, units: int) -> Race:
    """The same race with two variants: this choice, and as many at random, the honest control.

    Raises:
        RecipeError: where the baseline's other switches do not go with it, or it has this one already.
    """

    refuse_pruned(race, type(switch))

    def variant(one: Switch) -> dict[str, object]:
        return Recipe.read({"switches": {**race.baseline.switches, one.kind: one}}).model_dump(mode="json")

    chance = _chance(switch, layers, units)
    return Race.read(race.model_dump(mode="json") | {"variants": [variant(switch), variant(chance)]})


def _chance(switch: Switch, layers: int, units: int) -> Switch:
    if isinstance(switch, DropLayers):
        return DropLayers(count=switch.lost_of(layers), by="random", pattern=switch.pattern)
    if isinstance(switch, PruneHeads):
        even = switch.scope == "layer" and not switch.remove
        share = switch.lost_of_all([units] * layers) / (units * layers)
        return PruneHeads(ratio=switch.ratio if even else share, by="random", scope="layer" if even else "global")
    return switch
