"""`python -m backend race`: the same race with no page. Progress on stderr, a table or one JSON object on stdout."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.catalog import model_facts, resolve
from backend.cli_encoding import encoding_report, encoding_table
from backend.cli_table import table
from backend.encodingview import EncodingLane, EncodingView
from backend.eventview import EventView
from backend.journal import Journal
from backend.recipe.base import RecipeError
from backend.recipe.prompts import prompt_file
from backend.recipe.race import Preset, Race, all_presets
from backend.recipe.recipe import Recipe
from backend.replay import LaneView, RaceView
from backend.ui.quality_words import budget_line

View = RaceView | EncodingView
FINISHED, BAD_RECIPE, LANE_FAILED, OVER_BUDGET = 0, 2, 3, 4
WORKER_START_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `race`."""
    parser.add_argument("what", help="a preset's name, a file with a preset, race or recipe, or such JSON itself")
    parser.add_argument("--model", help="another model: a shipped name, gemma, minilm, a Hub id, a folder, shape:")
    parser.add_argument("--prompt", help="another prompt; of an encoder: what is searched for")
    parser.add_argument("--tokens", type=int, help="tokens to write")
    parser.add_argument("--measure-s", type=float, help="seconds for the measurement after the race")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--mix", action="store_true", help="measure a short chat, a long prompt and a long answer")
    prompts.add_argument("--prompts", type=Path, metavar="FILE", help="measure the prompts of a text file, one a line")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--out", type=Path, help="write the JSON object to this file as well")


def run(args: argparse.Namespace) -> int:
    """Run one race and return the exit code."""
    try:
        race = read_what(args.what, args)
    except RecipeError as error:
        print(f"headway: {error}", file=sys.stderr)
        return BAD_RECIPE
    encoder = is_encoder(race)
    view: View = EncodingView() if encoder else RaceView()
    with Journal() as journal, a_worker(journal):
        job = journal.submit("encode" if encoder else "race", race.model_dump(mode="json"), owner="command line")
        try:
            follow(journal, job, view)
        except KeyboardInterrupt:
            journal.cancel(job)
            follow(journal, job, view)
    result = encoding_report(view, race) if isinstance(view, EncodingView) else report(view, race)
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    told = encoding_table(result) if encoder else table(result)
    print(json.dumps(result, indent=2) if args.json else told)
    return exit_code(view)


def is_encoder(race: Race) -> bool:
    """Whether its model makes vectors of sentences; a model that cannot be used is the worker's to refuse."""
    try:
        return model_facts(resolve(race.model, race.revision), race.trust_remote_code).task == "encoder"
    except RecipeError:
        return False


def exit_code(view: View) -> int:
    """0 finished, 2 refused, 3 a lane failed or the race did not end well, 4 the quality budget was not kept."""
    if view.card:
        print(f"headway: {RecipeError(**view.card)}", file=sys.stderr)
        return LANE_FAILED if view.card["field"] in ("race", "worker", "journal") else BAD_RECIPE
    failures: list[LaneView | EncodingLane] = [lane for lane in view.lanes.values() if lane.failure]
    for lane in failures:
        print(f"headway: lane {lane.name} failed: {lane.failure}", file=sys.stderr)
    if failures or view.state != "finished":
        return LANE_FAILED
    judged = {name: lane for name, lane in (view.verdict or {}).get("lanes", {}).items() if "budget" in lane}
    for name, lane in judged.items():
        print(f"headway: {name}, quality budget: {budget_line(lane)}", file=sys.stderr)
    return OVER_BUDGET if any(lane["budget"]["verdict"] == "fail" for lane in judged.values()) else FINISHED


def read_race(what: str) -> Race:
    """The race that a preset's name, a file or JSON text holds, unchanged.

    Raises:
        RecipeError: when it is none of them, or does not validate.
    """
    return Race.read(_read_data(what))


def read_what(what: str, args: argparse.Namespace) -> Race:
    """A race from a preset's name, a file or JSON text.

    Raises:
        RecipeError: when it is none of them, or does not validate.
    """
    data = _read_data(what)
    changes = {"model": args.model, "prompt": args.prompt, "max_new_tokens": args.tokens}
    data |= {key: value for key, value in changes.items() if value is not None}
    asked = {} if args.measure_s is None else {"budget_s": args.measure_s}
    if asked := asked | _prompt_set(args):
        data["measure"] = data.get("measure", {}) | asked
    return Race.read(data)


def _prompt_set(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the measurement's prompts."""
    if args.mix:
        return {"prompt_set": "mix", "prompts": ""}
    if args.prompts is None:
        return {}
    try:
        text = prompt_file(args.prompts.name, args.prompts.read_bytes())
    except OSError as error:
        raise RecipeError("measure.prompts", args.prompts, "a text file that can be read", f"{error}.") from None
    return {"prompt_set": "list", "prompts": text}


def _read_data(what: str) -> dict[str, Any]:
    text = what
    path = Path(what)
    if not what.lstrip().startswith("{"):
        if path.suffix == ".json" or path.is_file():
            if not path.is_file():
                raise RecipeError("recipe", what, "an existing file", "Correct the path.")
            text = path.read_text(encoding="utf-8", errors="replace")
        else:
            presets = all_presets()
            if what not in presets:
                raise RecipeError("preset", what, f"one of {', '.join(presets)}", "Correct the preset's name.")
            return presets[what].race.model_dump(mode="json")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError("recipe", what[:60], "JSON", f"Correct it: {error}.") from None
    if not isinstance(data, dict):
        raise RecipeError("recipe", what[:60], "a JSON object", "Write an object.")
    if "race" in data:
        return Preset.read(data).race.model_dump(mode="json")
    if "switches" in data:
        recipe = Recipe.read(data).model_dump(mode="json")
        return {"prompt": "Once there was a lantern in the harbor.", "variants": [recipe]}
    return data


@contextmanager
def a_worker(journal: Journal) -> Iterator[None]:
    """Use the worker that runs, or run one for the length of this command."""
    if journal.workers():
        yield
        return
    process = subprocess.Popen([sys.executable, "-m", "backend.worker"], stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while not journal.workers() and process.poll() is None and time.monotonic() - began < WORKER_START_S:
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def follow(journal: Journal, job: int, view: EventView[Any]) -> None:
    """Fold the job's events into the view until it ends, with its progress on stderr."""
    shown = ""
    while True:
        state = journal.job(job)
        view.apply_all(journal.events(job, view.last_id))
        shown = show(view.phase, shown)
        if state is None or state.ended:
            if shown:
                print(file=sys.stderr)
            return
        time.sleep(0.2)


def show(phase: dict[str, Any], shown: str) -> str:
    """Write the phase over the last line on a terminal; in a file, one line a phase. Returns what stands there."""
    if not phase:
        return shown
    if not sys.stderr.isatty():
        if phase["name"] != shown:
            print(phase["name"], file=sys.stderr)
        return str(phase["name"])
    left = f", {phase['eta_s']:.0f} s left" if phase.get("eta_s") else ""
    line = f"{phase['name']} {phase['done']:.3g} of {phase['total']:.3g}{left}"
    if line != shown:
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    return line


def report(view: RaceView, race: Race) -> dict[str, Any]:
    """One JSON object: per lane figures, receipt and text; the verdict with its intervals."""
    return {
        "state": view.state,
        "race": race.model_dump(mode="json"),
        "machine": {key: view.opened.get(key) for key in ("hardware", "versions")},
        "lanes": {name: _lane(lane, view) for name, lane in view.lanes.items()},
        "verdict": view.verdict,
        "card": view.card,
        "wall_s": view.wall_s,
    }


def _lane(lane: LaneView, view: RaceView) -> dict[str, Any]:
    figures = (view.verdict or {}).get("lanes", {}).get(lane.name, {})
    return {
        "label": lane.label,
        "ttft_s": figures.get("ttft_s", lane.ttft_s),
        "tpot_s": figures.get("tpot_s"),
        "tokens_per_s": figures.get("tokens_per_s", lane.tokens_per_s),
        "memory": lane.memory,
        "kld": figures.get("kld"),
        "kld_prefill": figures.get("kld_prefill"),
        "top1": figures.get("top1"),
        "perplexity": lane.perplexity or None,
        "answers": lane.answers or None,
        "speculation": figures.get("speculation"),
        "receipt": lane.receipt,
        "text": lane.text,
        "ids": lane.ids,
        "failure": lane.failure,
    }


def main() -> int:
    """Race a preset or a recipe; exit 0 when it finished, 2 for a bad recipe, 3 for a failed lane, 4 over budget."""
    parser = argparse.ArgumentParser(prog="python -m backend race", description=main.__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
