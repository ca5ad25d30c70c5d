"""`python -m backend save`: a lane's model as a folder that loads without the original, or as a GGUF file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from backend.cli_race import BAD_RECIPE, FINISHED, read_race
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.saved import own_folder
from backend.savejob import write_told
from backend.watch import Progress

GGUF_TYPES = ("f16", "f32", "q8_0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `save`."""
    parser.add_argument("what", help="a preset's name, a file with a preset, race or recipe, or such JSON itself")
    parser.add_argument("--lane", default="A", help="which lane's model: base, A, B or C; A without it")
    parser.add_argument("--model", help="another model than the preset's")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, metavar="FOLDER", help="write a folder that races without the original")
    place.add_argument("--name", help="the same, in the state folder: it then stands in the menu by this name")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="write a GGUF file, for llama.cpp")
    parser.add_argument("--told", type=Path, help=argparse.SUPPRESS)  # where the worker reads progress and a card
    parser.add_argument("--type", choices=GGUF_TYPES, default="f16", help="of the GGUF file's matrices")


def run(args: argparse.Namespace) -> int:
    """Save and return the exit code: 0, or 2 for what cannot be saved."""
    try:
        out = own_folder(args.name) if args.name is not None else args.out
        if out is None and args.gguf is None:
            raise RecipeError("save", "nothing", "--out, --name or --gguf", "Say where to write.")
        race = read_race(args.what)
        if args.model:
            race = Race.read(race.model_dump(mode="json") | {"model": args.model})
        from backend.saving import save_lane  # brings torch, which a mistake above need not wait for

        told = save_lane(race, args.lane, out, args.gguf, args.type, _teller(args.told))
    except RecipeError as error:
        if args.told:
            write_told(args.told, card=error.card())
        print(f"\nheadway: {error}" if sys.stderr.isatty() else f"headway: {error}", file=sys.stderr)
        return BAD_RECIPE
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print("\n".join(told))
    return FINISHED


def _teller(told: Path | None) -> Progress:
    """Progress into the file, or over the last line of a terminal; nothing elsewhere."""

    def tell(share: float, text: str) -> None:
        if told:
            write_told(told, share=share, text=text)
        elif sys.stderr.isatty():
            print(f"\r\033[K{share:4.0%}  {text}"[:120], end="", file=sys.stderr, flush=True)

    return tell


def main() -> int:
    """Save a lane's model: exit 0 when it was written, 2 when it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m backend save", description=main.__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
