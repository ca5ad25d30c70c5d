"""An inspection, step by step: each lane is started, looked into, and ended before the next, so that none disturbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.executors.local import LocalExecutor
from backend.hardware import hardware
from backend.journal import Journal
from backend.raceway import Raceway
from backend.recipe.inspection import Inspection
from backend.traces import tidy_traces, trace_name, traces_folder

TOKENS = 32  # written for the memory's timeline
SHAPES = ("decode", "prefill")
SPANS = {"load": (0.0, 0.5), "transform": (0.5, 0.4)}  # where in its step a verb begins, and its share of it


class Inspectway(Raceway):
    """The way of an inspection into the journal: one progress over all lanes and steps."""

    def __init__(
        self, journal: Journal, job: int, asked: Inspection, executor: LocalExecutor, beat: Callable[[], None]
    ) -> None:
        super().__init__(journal, job, asked.race, executor, beat)
        self.asked = asked
        self._steps = [(name, step) for name, _ in asked.race.lanes for step in steps_of(name)]
        self._done = self._told = 0.0
        self._now: Step | None = None

    def run(self) -> None:
        """Every step of every lane; a lane that is lost loses its own steps only."""
        labels = {name: recipe.label for name, recipe in self.race.lanes}
        self.write(("opened", None, hardware() | {"lanes": labels, "job": self.asked.job, "model": self.race.model}))
        for name, recipe in self.race.lanes:
            self.start_lane(name)
            for step in steps_of(name):
                if name in self.lanes:
                    self._start_step(name, step)
                    step.work(self, name)
                self._done += step.cost
            if name in self.lanes:
                self.write(("inspected", name, {"label": recipe.label}))
                self.end_lane(name)
        tidy_traces()

    def _start_step(self, name: str, step: Step) -> None:
        self._now = step
        self.hear(name, step.title, 0.0, "")

    def hear(self, name: str, verb: str, share: float, text: str) -> None:
        """Progress of the step in hand: its share of the whole, by what steps usually cost."""
        if self._now is None:
            return
        start, width = SPANS.get(verb, (0.0, 1.0))
        self._told = max(self._told, self._done + (start + width * min(1.0, max(0.0, share))) * self._now.cost)
        total = sum(step.cost for _, step in self._steps)
        self.phase(self._now.title, self._told, total, name, text)

    def ask(self, name: str, section: str, verb: str, **arguments: Any) -> dict[str, Any] | None:
        """Call a verb; where the lane says that it cannot, write down why and give None."""
        reply = self.call(name, verb, **arguments)
        if reply is not None and "reason" in reply:
            self.write(("unavailable", name, {"section": section, "reason": reply["reason"]}))
            return None
        return reply


@dataclass(frozen=True)
class Step:
    """One step of a lane: what is shown while it runs, about how many seconds it takes, and the work."""

    title: str
    cost: float
    work: Callable[[Inspectway, str], None]


def _load(way: Inspectway, name: str) -> None:
    """Load, transform, prefill and decode, with the memory watched; then warm up and read the receipt."""
    way.call(name, "watch_memory", phase="load")
    loaded = way.call(name, "load")
    weighed = (way.call(name, "weigh") or {}).get("weights")
    way.call(name, "watch_memory", phase="transform")
    way.call(name, "transform")
    changed = way.call(name, "weigh") or {}
    way.call(name, "watch_memory", phase="prefill")
    prefill = way.call(name, "read_prompt", tokens=TOKENS)
    way.call(name, "watch_memory", phase="decode")
    decode = way.call(name, "write_tokens", tokens=TOKENS)
    watched = way.call(name, "end_watch")
    if loaded and prefill and decode and watched:
        memory = {"weights_loaded": weighed, "weights": changed["weights"], **prefill, **decode, **watched}
        way.write(("timeline", name, memory))
        if ready := way.call(name, "warm", ring=None, vocab=loaded["vocab"]):
            way.write(("ready", name, ready | {"prompt_tokens": loaded["prompt_tokens"]}))


def _machine(way: Inspectway, name: str) -> None:
    if reply := way.ask(name, "roofline", "machine"):
        way.write(("machine", name, reply))


def _times(way: Inspectway, name: str) -> None:
    if reply := way.ask(name, "time", "part_times"):
        way.write(("part_times", name, reply))


def _operators(way: Inspectway, name: str) -> None:
    for shape in SHAPES:
        path = traces_folder() / trace_name(way.job, name, shape)
        if reply := way.ask(name, "operators", "operators", shape=shape, trace=str(path)):
            way.write(("operators", name, {"shape": shape, **reply}))


def _outliers(way: Inspectway, name: str) -> None:
    if reply := way.ask(name, "outliers", "outliers"):
        way.write(("outliers", name, reply))


def _attention(way: Inspectway, name: str) -> None:
    reply = way.ask(name, "attention", "attention")
    if reply is None:
        return
    way.write(("attention", name, reply))
    for layer in range(reply["layers"]):
        if found := way.call(name, "attention_map", layer=layer):
            way.write(("attention_map", name, found))


def _importance(way: Inspectway, name: str) -> None:
    asked = way.ask(name, "importance", "importance_texts")
    for text in range(asked["texts"] if asked else 0):
        if found := way.call(name, "head_gradients", text=text):
            way.write(("head_gradients", name, found))
            way.hear(name, "head_gradients", (text + 1) / asked["texts"], f"text {text + 1}")  # type: ignore[index]


def _rankings(way: Inspectway, name: str) -> None:
    asked = way.ask(name, "rankings", "rankings")
    pairs = asked["rankings"] if asked else []
    for count, (part, by) in enumerate(pairs, 1):
        found = way.call(name, "ranking", part=part, by=by)
        if asked and found and "scores" in found:
            way.write(("ranking", name, found | {"tokens": asked["tokens"], "together": asked["together"]}))
        way.hear(name, "ranking", count / len(pairs), f"{part} by {by}")


def _sensitivity(way: Inspectway, name: str) -> None:
    asked = way.ask(name, "sensitivity", "sensitivity_units")
    if asked is None:
        return
    pairs = asked["pairs"]
    for count, (scheme, unit) in enumerate(pairs, 1):
        if found := way.call(name, "sensitivity", scheme=scheme, unit=unit):
            way.write(("sensitivity", name, found | {"tokens": asked["tokens"]}))
            way.hear(name, "sensitivity", count / len(pairs), f"{count} of {len(pairs)}")


LOAD = Step("loading", 6.0, _load)
STEPS = (
    LOAD,
    Step("measuring this machine", 2.0, _machine),
    Step("timing parts", 4.0, _times),
    Step("profiling operators", 3.0, _operators),
    Step("looking for outliers", 3.0, _outliers),
    Step("reading attention", 2.0, _attention),
    Step("weighing heads", 6.0, _importance),
)
RANKINGS = Step("ranking heads and layers", 8.0, _rankings)
SENSITIVITY = Step("quantizing one layer at a time", 30.0, _sensitivity)


def steps_of(lane: str) -> tuple[Step, ...]:
    """The steps of one lane. Only the baseline is ranked and quantized in parts: a variant may be changed already."""
    return (*STEPS, RANKINGS, SENSITIVITY) if lane == "base" else STEPS
