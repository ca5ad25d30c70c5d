"""How much can go before the quality budget is spent? A curve of quality against size, and the race of what kept it."""

from __future__ import annotations

from typing import Any

from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Switch
from backend.recipe.switches.layers import DropLayers
from backend.recipe.switches.pruning import PruneHeads, PruneNeurons
from backend.recipe.thinning import Thinning
from backend.thinned import ThinnedLane
from backend.ui.figures import ratio, share, size, three
from backend.ui.inspect.plot import Chart, colour, figure, ink

TITLE = "KLD against the size of the weights, a point a step"
Pair = tuple[Switch, Switch]


def chart(lane: ThinnedLane, asked: Thinning, dark: bool) -> Chart:
    """The curve as far as it has come, with the budget across it."""
    if not lane.start:
        return Chart(TITLE, None, "No step was taken so far.")
    steps = [lane.start | {"kld": 0.0, "left": lane.start["units"]}, *lane.steps]
    drawn = figure("weights, MB", "KLD, nats", dark, 280)
    drawn.add_scatter(
        x=[step["bytes"] / 1e6 for step in steps],
        y=[step["kld"] for step in steps],
        mode="lines+markers",
        line={"color": colour("A", dark), "width": 2},
        marker={"size": 8},
        customdata=[step["left"] for step in steps],
        hovertemplate=f"%{{customdata}} {asked.part} left, %{{x:.4g}} MB: %{{y:.3g}} nats<extra></extra>",
    )
    drawn.add_hline(y=asked.kld, line={"dash": "dash", "color": ink(dark)}, annotation_text="budget")
    drawn.update_xaxes(autorange="reversed")  # it shrinks to the right
    drawn.update_yaxes(rangemode="tozero")
    return Chart(TITLE, drawn, words(lane, asked))


def words(lane: ThinnedLane, asked: Thinning) -> str:
    """The last step within the budget, the one that spent it, and why it ended."""
    told = [f"By {asked.by}, ranked anew before every step, on {lane.start['tokens']} tokens of the model's own text."]
    kept = lane.within(asked.kld)
    if kept:
        told.append(f"Within {three(asked.kld)} nats: {_figures(kept, lane, asked.part)}.")
    elif lane.steps:
        told.append(f"Not even the first step keeps {three(asked.kld)} nats.")
    if lane.steps and not lane.steps[-1]["kld"] <= asked.kld:
        told.append(f"The step after it: {_figures(lane.steps[-1], lane, asked.part)}.")
    return " ".join([*told, *([f"It ended because {lane.stopped}."] if lane.stopped else [])])


def _figures(step: dict[str, Any], lane: ThinnedLane, part: str) -> str:
    smaller = 1 - step["bytes"] / lane.start["bytes"]
    return (
        f"{step['left']} of {lane.start['units']} {part} left, {size(step['bytes'])} ({share(smaller)} smaller), "
        f"KLD {three(step['kld'])}, the same first choice {share(step['top1'])} of the time, perplexity "
        f"{ratio(step['perplexity_ratio'])}"
    )


def pair_of(step: dict[str, Any], lane: ThinnedLane, asked: Thinning) -> Pair:
    """What the step left as a switch, and beside it what tells whether going slowly was worth it."""
    gone = lane.start["units"] - step["left"]
    fields: dict[str, Any] = {"by": asked.by}
    if asked.part == "layers":
        return DropLayers(count=gone, remove=step["removed"]), DropLayers.read(fields | {"count": gone})
    fields |= {"scope": asked.scope, "ratio": gone / lane.start["units"]}
    if asked.part == "heads":
        return PruneHeads(ratio=0.0, remove=step["removed"]), PruneHeads.read(fields)
    return PruneNeurons.read(fields), PruneNeurons.read(fields | {"by": "random"})


NOTES = {
    "heads": "Opens the Bench with the heads that went step by step, and with as many that go at once",
    "layers": "Opens the Bench with the layers that went step by step, and with as many that go at once",
    "neurons": "A recipe cannot name neurons: opens the Bench with as many at once by this ranking, and at random",
}


def race_of(race: Race, pair: Pair) -> Race:
    """The same race with both as its variants.

    Raises:
        RecipeError: where the baseline's other switches do not go with them.
    """

    def variant(one: Switch) -> dict[str, object]:
        return Recipe.read({"switches": {**race.baseline.switches, one.kind: one}}).model_dump(mode="json")

    return Race.read(race.model_dump(mode="json") | {"variants": [variant(one) for one in pair]})
