"""`python -m backend serve`: a model behind an address that OpenAI's clients know."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from backend.catalog import model_facts, resolve
from backend.cli_race import BAD_RECIPE, read_race
from backend.forecast import check_memory
from backend.recipe.base import RecipeError
from backend.recipe.race import Race, all_presets
from backend.recipe.serving import Limits
from backend.server.run import run
from backend.server.settings import Settings
from backend.serving.talk import PLAIN, Order

KEY = "HEADWAY_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    default = Settings(model="-")
    parser.add_argument("what", help="a model, a preset's name, a file with a preset, race or recipe, or such JSON")
    parser.add_argument("--lane", help="of a preset or race, which lane: base, A, B or C; A without it")
    parser.add_argument("--model", help="another model than the preset's")
    parser.add_argument("--name", help="by which clients ask for it; without it that of the model or preset")
    parser.add_argument("--host", default=default.host, help=f"address to listen on (default: {default.host})")
    parser.add_argument("--port", type=int, default=default.port, help=f"0 is any (default: {default.port})")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help=f"holds the key that clients must send; or set {KEY}"
    )
    parser.add_argument("--slots", type=int, default=Limits().slots, help="texts that are written together")
    parser.add_argument("--blocks", type=int, default=0, help="KV blocks; 0 is enough for every slot's longest")
    parser.add_argument(
        "--prefix-blocks", type=int, default=0, help="beginnings of prompts kept for others, in blocks; 0 keeps none"
    )
    parser.add_argument("--chat-template", metavar="plain|FILE", help="for chats, where the model has none of its own")
    parser.add_argument("--max-requests", type=int, default=default.max_requests, help="written or waiting at once")
    parser.add_argument("--max-body", type=int, default=default.max_body_bytes, help="bytes of a request")
    parser.add_argument("--max-prompt", type=int, default=0, help="tokens of a prompt; 0 is what the context holds")
    parser.add_argument("--max-tokens", type=int, default=4096, help="of an answer for which no number is asked")
    parser.add_argument("--grace", type=float, default=default.grace_s, help="seconds for begun answers at the end")


def read_served(what: str, model: str | None, lane: str | None) -> tuple[Race, str, str]:
    """The race that holds what is to be served, its lane, and a name for clients.

    Raises:
        RecipeError: when it is neither a preset, a file, JSON nor a model, or has no such lane.
    """
    given = what.lstrip().startswith("{") and '"model_type"' not in what
    if given or what in all_presets() or Path(what).suffix == ".json":
        race, name = read_race(what), "" if given else Path(what).stem
    else:
        resolve(what)
        race = Race.read({"model": what, "prompt": "Once", "variants": [{}]})
        name = re.sub(r"\s+", "", what) if len(what) < 100 else "model"
    if model:
        race = Race.read(race.model_dump(mode="json") | {"model": model})
    lane = lane or "A"
    if lane not in dict(race.lanes):
        raise RecipeError("lane", lane, f"one of {', '.join(dict(race.lanes))}", "Name a lane of this race.")
    return race, lane, name or race.model


def read_key(file: Path | None) -> str | None:
    """The key that clients must send, from a file or the environment; None where there is none.

    Raises:
        RecipeError: for a file that cannot be read, and a key that is empty or cannot stand in a header.
    """
    if file is None and KEY not in os.environ:
        return None
    where = KEY if file is None else str(file)
    try:
        key = (os.environ[KEY] if file is None else file.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("api-key-file", file, "a text file that can be read", f"Correct it: {error}.") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise RecipeError("api-key", f"what {where} holds", "letters, digits and signs of ASCII", "Write another key.")
    return key


def read_template(given: str | None) -> str:
    """A chat template from a file, PLAIN, or '' where none is given.

    Raises:
        RecipeError: for a file that cannot be read.
    """
    if given is None or given == PLAIN:
        return given or ""
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("chat-template", given, "plain, or a Jinja file", f"Correct it: {error}.") from None


def serve(args: argparse.Namespace) -> int:
    """Check everything that can be checked without the model, and serve."""
    race, lane, name = read_served(args.what, args.model, args.lane)
    recipe = dict(race.lanes)[lane]
    facts = model_facts(resolve(race.model, race.revision), race.trust_remote_code)
    if facts.task != "decoder":
        remedy = "Choose a model that writes."
        raise RecipeError("model", f"{race.model}, of the task {facts.task}", "a model of the task decoder", remedy)
    recipe.check(facts)
    alone = Race.read(race.model_dump(mode="json") | {"variants": [recipe.model_dump(mode="json")]})
    check_memory(alone, facts)
    given = {
        "model": args.name or name, "host": args.host, "port": args.port, "api_key": read_key(args.api_key_file),
        "max_requests": args.max_requests, "max_body_bytes": args.max_body, "grace_s": args.grace,
    }  # fmt: skip
    settings = Settings.read(given)
    limits = Limits.read({"slots": args.slots, "blocks": args.blocks, "prefix_blocks": args.prefix_blocks})
    spec, template = race.model_dump(mode="json"), read_template(args.chat_template)
    order = Order(spec, lane, limits.model_dump(mode="json"), template, args.max_prompt, args.max_tokens)
    if not settings.is_local and settings.api_key is None:
        print(f"headway: {settings.host} can be reached by others, and no key is asked for.", file=sys.stderr)
    return run(settings, order, f"fp_{recipe.key}")


def main() -> int:
    """Serve one model by OpenAI's API; exit 0 when told to stop, 2 for what cannot be served, 3 when the model ends."""
    parser = argparse.ArgumentParser(prog="python -m backend serve", description=main.__doc__)
    add_arguments(parser)
    try:
        return serve(parser.parse_args())
    except RecipeError as error:
        print(f"headway: {error}", file=sys.stderr)
        return BAD_RECIPE
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
