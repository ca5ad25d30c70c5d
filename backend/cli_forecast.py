"""`python -m backend forecast`: memory and ceilings of a model from its config alone. Nothing is loaded or run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from backend.catalog import model_facts, resolve
from backend.cli_race import BAD_RECIPE, FINISHED, read_race
from backend.cli_table import aligned
from backend.forecast import PRECISIONS
from backend.machine import this_machine
from backend.prediction import predict_race
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.race import LANES
from backend.recipe.recipe import Recipe
from backend.ui.forecast_rows import elsewhere_rows, lane_rows, machine_line, precision_line

CONTEXT = 512  # tokens, where nothing is said
PROMPT = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `forecast`."""
    models = "a shipped name, gemma, a Hub id, a folder, a GGUF file, shape:NAME, or a config as JSON"
    parser.add_argument("model", help=models)
    recipes = "a preset's name, or a file or JSON text with a preset, race or recipe"
    parser.add_argument("--recipe", metavar="WHAT", help=f"{recipes}; without it the usual precisions")
    parser.add_argument("--context", type=int, help=f"tokens in the cache, {CONTEXT} without it")
    parser.add_argument("--prompt-tokens", type=int, help=f"tokens of the prompt, {PROMPT} without it")
    parser.add_argument("--revision", help="a Hub revision")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Forecast and return the exit code: 0, or 2 for what cannot be forecast."""
    try:
        predicted = _predict(args)
    except RecipeError as error:
        print(f"headway: {error}", file=sys.stderr)
        return BAD_RECIPE
    print(json.dumps(predicted, indent=2) if args.json else told(predicted))
    return FINISHED


def _predict(args: argparse.Namespace) -> dict[str, Any]:
    facts = model_facts(resolve(args.model, args.revision))
    context = _tokens("--context", args.context, CONTEXT, facts.context)
    prompt = _tokens("--prompt-tokens", args.prompt_tokens, PROMPT, context)
    device = facts.devices[0].split(":")[0]
    return predict_race(facts, _lanes(args.recipe, facts), prompt, context, this_machine(device))


def _tokens(option: str, given: int | None, usual: int, most: int) -> int:
    """A number of tokens that fits: as given, or the usual one.

    Raises:
        RecipeError: for one that does not fit.
    """
    if given is not None and not 1 <= given <= most:
        raise RecipeError(option, given, f"1 to {most} tokens, since that is all there is room for", "Give fewer.")
    return min(usual, most) if given is None else given


def _lanes(what: str | None, facts: ModelFacts) -> list[tuple[str, Recipe]]:
    """The lanes of a preset, race or recipe; without one the unchanged model beside each precision that it can have."""
    if what is not None:
        return read_race(what).lanes
    fitting = [recipe for recipe in PRECISIONS.values() if not any(s.refusal(facts) for s in recipe.pipeline)]
    return list(zip(LANES, fitting, strict=False))


def told(predicted: dict[str, Any]) -> str:
    """The prediction as plain text."""
    shape = f"{predicted['model']}: {predicted['architecture']}, {predicted['parameters']:,} parameters"
    return "\n\n".join(
        [
            f"{shape}. Everything below is predicted.\n{precision_line(predicted)}",
            aligned(lane_rows(predicted)),
            machine_line(predicted),
            "Ceilings elsewhere, from datasheets:\n" + aligned(elsewhere_rows(predicted)),
        ]
    )


def main() -> int:
    """Forecast memory and ceilings of a model from its config alone; exit 0, or 2 for what cannot be forecast."""
    parser = argparse.ArgumentParser(prog="python -m backend forecast", description=main.__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
