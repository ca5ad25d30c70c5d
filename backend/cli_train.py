"""`python -m backend train`: a training with no page. Progress on stderr, a table or one JSON object on stdout."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from backend.cli_race import BAD_RECIPE, FINISHED, LANE_FAILED, a_worker, follow
from backend.journal import Journal
from backend.recipe.base import RecipeError
from backend.recipe.lesson import all_lessons
from backend.recipe.training import Training
from backend.trained import TrainedLane, TrainingView
from backend.trainingfolder import check_resumed

NAME = "student"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train`."""
    parser.add_argument("what", help="a preset's name, a file with a training recipe, or such JSON itself")
    parser.add_argument("--name", help="of the model that comes out")
    parser.add_argument("--model", help="another model than the recipe's: a shipped name, gemma, a Hub id, a folder")
    parser.add_argument("--tokens", type=int, help="tokens to train on")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def read_training(what: str, args: argparse.Namespace) -> Training:
    """A training from a preset's name, a file or JSON text.

    Raises:
        RecipeError: when it is none of them, or does not validate.
    """
    data = _read_data(what)
    data |= {key: value for key, value in {"name": args.name, "model": args.model}.items() if value is not None}
    if args.tokens is not None:
        data["pace"] = data.get("pace", {}) | {"tokens": args.tokens}
    return Training.read(data)


def _read_data(what: str) -> dict[str, Any]:
    lessons = all_lessons()
    if what in lessons:
        return lessons[what].training.model_dump(mode="json")
    text = what
    if not what.lstrip().startswith("{"):
        if not Path(what).is_file():
            raise RecipeError("training", what, f"a file, JSON, or one of {', '.join(lessons)}", "Correct the name.")
        text = Path(what).read_text(encoding="utf-8", errors="replace")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError("training", what[:60], "JSON", f"Correct it: {error}.") from None
    if not isinstance(data, dict):
        raise RecipeError("training", what[:60], "a JSON object", "Write an object.")
    return dict(data["training"]) if "training" in data else data


def run(args: argparse.Namespace) -> int:
    """Train and return the exit code; Ctrl-C writes a checkpoint, and the same command goes on from it."""
    try:
        asked = read_training(args.what, args)
        if step := check_resumed(asked):
            print(f"{asked.name} goes on after step {step:,} of {asked.steps:,}.", file=sys.stderr)
        if args.ray is not None:
            return _on_ray(asked, args)
    except RecipeError as error:
        print(f"headway: {error}", file=sys.stderr)
        return BAD_RECIPE
    view = TrainingView()
    with Journal() as journal, a_worker(journal):
        job = journal.submit("train", asked.model_dump(mode="json"), owner="command line")
        try:
            follow(journal, job, view)
        except KeyboardInterrupt:
            journal.cancel(job)
            follow(journal, job, view)
    return tell(view, asked, args.json)


def _on_ray(asked: Training, args: argparse.Namespace) -> int:
    """Train on a Ray cluster.

    Raises:
        RecipeError: when Ray is not here, or has not so much.
    """
    from backend.cli_traingroup import bear
    from backend.executors.raycluster import RayExecutor  # brings torch

    with RayExecutor(asked, args.ray) as executor:
        return bear(asked, executor, args.json)


def tell(view: TrainingView, asked: Training, as_json: bool) -> int:
    """Print what became of a training; the exit code."""
    lane = view.lane(NAME)
    print(json.dumps(report(view, asked), indent=2) if as_json else "\n".join(table(lane)))
    if view.card:
        print(f"headway: {RecipeError(**view.card)}", file=sys.stderr)
        return LANE_FAILED if lane.steps else BAD_RECIPE
    return FINISHED if view.state == "finished" else LANE_FAILED


def report(view: TrainingView, asked: Training) -> dict[str, Any]:
    """Everything that was measured, as plain data."""
    lane = view.lane(NAME)
    return {
        "state": view.state, "training": asked.model_dump(mode="json"), "opened": view.opened, "begun": lane.begun,
        "teacher": lane.teacher, "looks": lane.looks, "steps": lane.steps, "ended": lane.ended, "saved": lane.saved,
        "recovered": lane.recovered, "tokens_per_s": lane.tokens_per_s,
    }  # fmt: skip


def table(lane: TrainedLane) -> list[str]:
    """One line a look."""
    every = ("loss", "kld", "top1", "accepted", "accuracy", "cosine", "ranks", "grades")
    columns = [name for name in every if any(name in look for look in [lane.teacher, *lane.looks])]
    lines = [f"{'step':>10}" + "".join(f"{column:>12}" for column in columns)]
    rows = [("teacher", lane.teacher)] if lane.teacher else []
    for who, found in [*rows, *((f"{look['step']:,}", look) for look in lane.looks)]:
        figures = (f"{found[name]:12.4f}" if found.get(name) is not None else f"{'-':>12}" for name in columns)
        lines.append(f"{who:>10}" + "".join(figures))
    if lane.recovered is not None:
        lines.append(f"{lane.recovered:.0%} of what was lost is recovered.")
    if lane.saved:
        lines.append(f"Saved: it stands in the menu as {lane.saved['name']}.")
    return lines


def main() -> int:
    """Train: exit 0 when it is done, 2 for a recipe that cannot be, 3 when it ended before."""
    parser = argparse.ArgumentParser(prog="python -m backend train", description=main.__doc__)
    add_arguments(parser)
    where = "train in N processes of a Ray cluster: the one at RAY_ADDRESS, or one on this machine"
    parser.add_argument("--ray", type=int, metavar="N", help=where)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
