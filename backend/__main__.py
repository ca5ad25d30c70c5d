"""`python -m backend COMMAND`: one door to everything that is not a page."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = {
    "up": ("backend.up", "start the worker and the pages, and keep both alive"),
    "worker": ("backend.worker", "run one worker, which takes jobs until it is told to stop"),
    "race": ("backend.cli_race", "race a preset or a recipe without a page, and print the figures"),
    "serve": ("backend.cli_serve", "serve a model, a preset's lane or a recipe to clients of OpenAI's API"),
    "train": ("backend.cli_train", "train a model that compression broke, or a smaller one, and keep what comes out"),
    "save": ("backend.cli_save", "save a lane's model as a folder that loads without the original, or as a GGUF file"),
    "forecast": ("backend.cli_forecast", "forecast memory and speed of a model from its config alone"),
    "models": ("backend.cli_models", "list the models that can be raced, with size and whether they are here"),
    "minilm": ("backend.minilm", "fetch MiniLM, a sentence encoder"),
    "gemma": ("backend.gemma", "fetch Gemma 3 270M, a real model, after its terms are accepted"),
}


def main() -> int:
    """Hand over to the module of the command; each has its own --help."""
    lines = [f"  {name:9}{text}" for name, (_, text) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="Headway: race a changed transformer against the original.",
        epilog="\n".join(["commands:", *lines, "", "python -m backend COMMAND --help says what each takes."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the command takes")
    arguments = parser.parse_args()
    sys.argv[1:] = arguments.arguments
    # Imported only now: most commands need no torch, and none needs what the others import.
    return importlib.import_module(COMMANDS[arguments.command][0]).main() or 0


if __name__ == "__main__":
    sys.exit(main())
