"""Saving: a lane's model loaded, changed as its recipe says, and written down."""

from __future__ import annotations

from pathlib import Path

from backend.catalog import model_facts, resolve
from backend.engine.gguf.write import write_gguf
from backend.engine.saved.write import check_folder, write_saved_model
from backend.lane import Lane, Progress
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.recipe.recipe import Recipe
from backend.recipe.switch import read_switch
from backend.saved import WEIGHTS
from backend.savedsizes import size_lines


def save_lane(race: Race, name: str, out: Path | None, gguf: Path | None, kind: str, progress: Progress) -> list[str]:
    """Write one lane's model as a folder, as a GGUF file, or both; on the CPU, for whose kernels layers are packed.

    Args:
        kind: of the GGUF file's matrices: 'f32', 'f16' or 'q8_0'.
    Returns:
        What was written, in lines to be shown.
    Raises:
        RecipeError: for a lane that is not there, a model or recipe that cannot be saved, and a disk that is full.
    """
    lanes = dict(race.lanes)
    if name not in lanes:
        raise RecipeError("lane", name, f"one of {', '.join(lanes)}", "Name a lane of this race.")
    if out is not None:
        check_folder(out)
    if gguf is not None and gguf.exists():
        raise RecipeError("gguf", gguf, "a file that is not there yet", "Name another file.")
    asked = lanes[name]
    facts = model_facts(resolve(race.model, race.revision), race.trust_remote_code)
    if facts.random_weights:
        raise RecipeError("model", race.model, "a model with weights of its own", "A shape's can be made at any time.")
    asked.check(facts)
    lane = Lane(name, race.model_dump(mode="json"), lambda share, text: progress(0.4 * share, text))
    lane.recipe = _weights_of(asked)
    lane.load()
    lane.transform()
    told = _besides(asked)
    if out is not None:
        saved = write_saved_model(
            lane.subject, asked, out, race.revision, lambda share, text: progress(0.4 + 0.5 * share, text)
        )
        told += [f"{out}: {saved.label}", *size_lines(saved, (out / WEIGHTS).stat().st_size)]
    if gguf is not None:
        told += write_gguf(lane.subject, gguf, kind, lambda share, text: progress(0.9 + 0.1 * share, text))
    return told


def _weights_of(recipe: Recipe) -> Recipe:
    """What of a recipe stays in the weights, on the CPU."""
    kept = {kind: switch for kind, switch in recipe.switches.items() if switch.changes_weights}
    return Recipe(switches=kept | {"device": read_switch("device", {"name": "cpu"})})


def _besides(recipe: Recipe) -> list[str]:
    others = [switch.title for switch in recipe.pipeline if not switch.changes_weights]
    return [f"Written down in the recipe only, since it is no weight: {', '.join(others)}."] if others else []
