"""`python -m backend.checks.floors`: imports go down only, and the pages never reach torch.

The floors, from the roof to the ground; a module that is not named stands on the ground floor, and above the recipe.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from backend.checks.imports import Import, imports, modules, reached

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "backend.__main__": 9,
    "backend.checks": 9,
    "backend.cli_race": 9,
    "backend.cli_table": 9,
    "backend.cli_encoding": 9,
    "backend.cli_models": 9,
    "backend.cli_forecast": 9,
    "backend.cli_save": 9,
    "backend.cli_serve": 9,
    "backend.cli_train": 9,
    "backend.cli_traingroup": 9,
    "backend.up": 9,
    "backend.child": 9,
    "app": 8,
    "pages": 8,
    "backend.ui": 7,
    "backend.worker": 6,
    "backend.phases": 6,
    "backend.scoring": 6,
    "backend.measurement": 6,
    "backend.inspecting": 6,
    "backend.thinning": 6,
    "backend.contextway": 6,
    "backend.encoding": 6,
    "backend.idle": 6,
    "backend.trainway": 6,
    "backend.raceway": 6,
    "backend.server": 6,
    "backend.hostprocess": 5,
    "backend.modelhost": 4,  # what a server stands before: a model with its engine
    "backend.serveway": 6,
    "backend.executors": 5,
    "backend.laneprocess": 4,  # the process around a lane
    "backend.lane": 4,
    "backend.encoderlane": 4,
    "backend.trainlane": 4,
    "backend.traingroup": 4,  # a training lane in each of several processes
    "backend.saving": 4,  # a lane that is loaded, changed and written down
    "backend.engine": 3,
    "backend.techniques": 2,
    "backend": 1,  # the ground floor: journal, replay, forecast, catalog, metrics, storyteller, ...
    "backend.recipe": 0,
}
PAGE_SIDE = (
    *(
        "app",
        "pages",
        "backend.ui",
        "backend.recipe",
        "backend.journal",
        "backend.journal_file",
        "backend.journal_rows",
        "backend.replay",
    ),
    *("backend.forecast", "backend.catalog", "backend.metrics", "backend.verdict"),
    *("backend.quality", "backend.alarm", "backend.budget"),
    *("backend.measured", "backend.warmup", "backend.suspicion"),
    *("backend.inspection", "backend.roofline", "backend.traces", "backend.allocation"),
    *("backend.thinned", "backend.swept", "backend.widths", "backend.room"),
    *("backend.serving.view", "backend.serving.figures"),
    *("backend.encodingview", "backend.encodingverdict", "backend.embeddings", "backend.sentences"),
    *("backend.saved", "backend.savedsizes", "backend.savejob"),
    *("backend.trained", "backend.trainforecast", "backend.trainingfolder"),
    *("backend.ceiling", "backend.foretold", "backend.known_machines", "backend.machine", "backend.prediction"),
)
FREE_OF_TORCH = (
    *PAGE_SIDE,
    "backend.up",
    "backend.cli_models",
    "backend.cli_encoding",
    "backend.cli_race",
    "backend.cli_forecast",
)
STARTS_WITHOUT_TORCH = (
    *("backend.worker", "backend.phases", "backend.scoring", "backend.raceway", "backend.executors.local"),
    *("backend.measurement", "backend.conditions", "backend.inspecting", "backend.idle", "backend.thinning"),
    *("backend.encoding", "backend.contextway", "backend.server", "backend.hostprocess", "backend.cli_serve"),
    "backend.trainway",
)
HEAVY = ("torch", "transformers", "torchao", "bitsandbytes", "accelerate", "safetensors.torch")
BEHIND_THE_JOURNAL = ("backend.worker", "backend.executors", "backend.lane", "backend.engine", "backend.techniques")
TECHNIQUE_MAY = ("backend.techniques.base", "backend.techniques.registry", "backend.recipe")


def violations(root: Path = ROOT) -> list[str]:
    """Every import that breaks a rule, as 'file:line: what and why'."""
    steps = imports(root)
    return [*_upwards(steps), *_techniques(steps), *_heavy(root, steps)]


def is_in(module: str, *packages: str) -> bool:
    """Whether a module is one of these or lies in one of them."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def floor(module: str) -> int | None:
    """The floor of a module of the product, by its longest known prefix; None for a library."""
    named = [name for name in FLOORS if is_in(module, name)]
    return FLOORS[max(named, key=len)] if named else None


def _upwards(steps: list[Import]) -> list[str]:
    found = []
    for step in steps:
        here, there = floor(step.source), floor(step.target)
        if here is not None and there is not None and there > here and step.target != "backend":
            found.append(f"{_at(step)} imports {step.target}, which stands above it (floor {there} above {here})")
        elif is_in(step.source, "app", "pages", "backend.ui") and is_in(step.target, *BEHIND_THE_JOURNAL):
            found.append(f"{_at(step)} imports {step.target}: pages speak to the journal only")
        elif is_in(step.source, "backend") and is_in(step.target, "streamlit") and not is_in(step.source, "backend.ui"):
            found.append(f"{_at(step)} imports streamlit, which is for backend/ui and the pages")
    return found


def _techniques(steps: list[Import]) -> list[str]:
    """A technique knows its base and its own folder; helpers that lie beside the folders serve them all."""
    found = []
    for step in steps:
        folder = step.source.split(".")[2:-1]
        if not is_in(step.source, "backend.techniques") or not folder or not is_in(step.target, "backend"):
            continue
        own = f"backend.techniques.{folder[0]}"
        shared = is_in(step.target, "backend.techniques") and step.target.count(".") == 2
        if not (is_in(step.target, *TECHNIQUE_MAY, own) or shared):
            found.append(f"{_at(step)} imports {step.target}: a technique knows its base and its own folder only")
    return found


def _heavy(root: Path, steps: list[Import]) -> list[str]:
    """Pages never reach torch, not even inside a function; the worker may, in a process that it starts."""
    found: dict[str, str] = {}
    edges, eager = defaultdict(list), defaultdict(list)
    for step in steps:
        edges[step.source].append(step)
        if not step.lazy:
            eager[step.source].append(step)
    for module in modules(root):
        if not is_in(module, *FREE_OF_TORCH, *STARTS_WITHOUT_TORCH):
            continue
        for target, chain in reached(module, edges if is_in(module, *FREE_OF_TORCH) else eager).items():
            if is_in(target, *HEAVY):
                way = " -> ".join([module, *(step.target for step in chain)])
                found.setdefault(_at(chain[-1]), f"{_at(chain[-1])} brings {target} where it must not be: {way}")
    return list(found.values())


def _at(step: Import) -> str:
    return f"{step.path}:{step.line}: {step.source}"


def main() -> int:
    """Check the import floors and name every import that breaks them."""
    argparse.ArgumentParser(prog="python -m backend.checks.floors", description=main.__doc__).parse_args()
    found = violations()
    for line in found:
        print(line)
    print(
        f"floors: {len(found)} violations" if found else f"floors: {len(modules(ROOT))} modules, imports go down only"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
