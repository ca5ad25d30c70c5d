"""The curves of a training, over the tokens that it has trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from backend.trained import TrainedLane
from backend.ui.figures import count, share, three
from backend.ui.inspect.plot import Chart, figure, ink, sentences
from backend.ui.palette import Look, look
from backend.ui.train.words import recovery

MOST = 200  # steps a line, evenly spread: it is drawn every second
HEIGHT = 200
GAP = 0.09  # of the plot's height, between the names at the ends of two lines
BESIDE = 0.2  # of its width: lines that end nearer than this end beside each other
X = "tokens trained on"
STUDENT, TEACHER = look("A"), look("base")
ORDER = (STUDENT, look("B"), look("C"), TEACHER)
DASHES = ("solid", "dash", "dot", "dashdot")
SHARES = {
    "top1": "top-1",
    "accepted": "accepted as a draft",
    "accuracy": "accuracy",
}  # of a look, all on one axis from 0 to 1
UNPLOTTED = ("step", "stage", "tokens", "sentences", "loss", "kld", *SHARES)


class Line(NamedTuple):
    """A curve: its name at its end, how it looks, and its points."""

    name: str
    look: Look
    x: Sequence[float]
    y: Sequence[float]


def in_order(number: int) -> Look:
    """The look of the n-th of many lines: another colour each, then another dash."""
    one = ORDER[number % len(ORDER)]
    turn = number // len(ORDER)
    return one if not turn else Look(one.light, one.dark, DASHES[(turn + number) % len(DASHES)], one.title)


def quality(lane: TrainedLane, dark: bool, end: float) -> list[Chart]:
    """What the looks saw on held-out text; a plot without figures says so."""
    encoder = any("sentences" in look for look in lane.looks)
    charts = [] if encoder else [_kld(lane, dark, end), _held_out(lane, dark, end), _shares(lane, dark, end)]
    others = [key for key in (lane.looks[-1] if lane.looks else {}) if key not in UNPLOTTED and _numeric(lane, key)]
    return charts + [_looked(lane, key, dark, end) for key in others]


def steps(lane: TrainedLane, dark: bool, end: float) -> list[Chart]:
    """What the steps told: loss parts, and figures that methods add."""
    told = lane.steps[-1].get("told", {}) if lane.steps else {}
    return [_loss(lane, dark, end), *(_step(lane, name, name, dark, end, of="told") for name in told)]


def pace(lane: TrainedLane, dark: bool, end: float) -> list[Chart]:
    """Learning rate, speed and gradient."""
    return [
        _step(lane, "rate", "learning rate", dark, end),
        _speed(lane, dark, end),
        _step(lane, "norm", "gradient norm", dark, end),
    ]


def compared(runs: dict[str, TrainedLane], dark: bool) -> Chart:
    """KLD of several trainings, or the loss on held-out text where one has no teacher."""
    looked = {name: lane for name, lane in runs.items() if lane.looks}
    key = "kld" if all("kld" in look for lane in looked.values() for look in lane.looks) else "loss"
    lines = [Line(name, in_order(n), *_points(lane, key)) for n, (name, lane) in enumerate(looked.items())]
    end = max((line.x[-1] for line in lines), default=0)
    title, unit = ("KLD from the teacher", "KLD, nats") if key == "kld" else ("Loss on held-out text", "loss, nats")
    words = [f"{line.name} {three(line.y[0])} to {three(line.y[-1])} after {count(line.x[-1])}" for line in lines]
    return _chart(title, unit, lines, dark, end, words, "None of them has been looked at yet.")


# One plot each


def _kld(lane: TrainedLane, dark: bool, end: float) -> Chart:
    lines = [Line("student", STUDENT, *_points(lane, "kld"))] if _numeric(lane, "kld") else []
    words = [f"{three(line.y[0])} nats at first, {three(line.y[-1])} now" for line in lines]
    words += [told for told in [recovery(lane)] if told]
    otherwise = "No teacher to differ from." if lane.looks else "The first look is not done yet."
    return _chart("KLD from the teacher", "KLD, nats", lines, dark, end, words if lines else [], otherwise)


def _held_out(lane: TrainedLane, dark: bool, end: float) -> Chart:
    lines = [Line("student", STUDENT, *_points(lane, "loss"))] if lane.looks else []
    words = [f"student {three(line.y[0])} nats at first, {three(line.y[-1])} now" for line in lines]
    if "loss" in lane.teacher:
        lines.append(_level("teacher", lane.teacher["loss"], end))
        words.append(f"teacher {three(lane.teacher['loss'])}")
    return _chart("Loss on held-out text", "loss, nats", lines, dark, end, words, "The first look is not done yet.")


def _shares(lane: TrainedLane, dark: bool, end: float) -> Chart:
    found = [(key, name) for key, name in SHARES.items() if _numeric(lane, key)]
    lines = [Line(name, ORDER[at], *_points(lane, key)) for at, (key, name) in enumerate(found)]
    words = [f"{line.name} {share(line.y[0])} at first, {share(line.y[-1])} now" for line in lines]
    if lines and "accuracy" in lane.teacher:
        lines.append(_level("teacher", lane.teacher["accuracy"], end))
        words.append(f"the teacher's accuracy {share(lane.teacher['accuracy'])}")
    otherwise = "Nothing to count." if lane.looks else "The first look is not done yet."
    return _chart("Top-1 agreement and accuracy", "share", lines, dark, end, words, otherwise)


def _looked(lane: TrainedLane, key: str, dark: bool, end: float) -> Chart:
    name = key.replace("_", " ")
    lines = [Line("student", STUDENT, *_points(lane, key))]
    words = [f"{three(lines[0].y[0])} at first, {three(lines[0].y[-1])} now"]
    return _chart(name.capitalize(), name, lines, dark, end, words, "")


def _loss(lane: TrainedLane, dark: bool, end: float) -> Chart:
    kept = _spread(lane)
    x = _trained(lane, kept)
    lines = [Line("loss", STUDENT, x, [step["loss"] for step in kept])] if kept else []
    parts = kept[-1]["parts"] if kept else {}
    if len(parts) > 1:
        lines += [
            Line(name, in_order(at + 1), x, [step["parts"].get(name, 0.0) for step in kept])
            for at, name in enumerate(parts)
        ]
    words = [f"{line.name} {three(line.y[-1])}" for line in lines]
    note = f"{'; '.join(words)}, of the last step" if words else ""
    only = f" (all of it {next(iter(parts))})" if len(parts) == 1 else ""
    return _chart("Training loss", "nats", lines, dark, end, [note + only] if note else [], "No step was taken yet.")


def _step(lane: TrainedLane, key: str, title: str, dark: bool, end: float, of: str = "") -> Chart:
    """One figure of every step."""
    name = title.replace("_", " ")
    kept = _spread(lane)
    held = [(step[of] if of else step).get(key) for step in kept]
    points = [(x, y) for x, y in zip(_trained(lane, kept), held, strict=True) if y is not None]
    lines = [Line("", STUDENT, [x for x, _ in points], [y for _, y in points])] if points else []
    words = [f"{three(line.y[-1])} now" for line in lines]
    return _chart(name[:1].upper() + name[1:], name, lines, dark, end, words, "No step was taken yet.")


def _speed(lane: TrainedLane, dark: bool, end: float) -> Chart:
    size = lane.begun.get("step_tokens", 0)
    kept = [step for step in _spread(lane) if step["seconds"]]
    y = [size / step["seconds"] for step in kept]
    lines = [Line("", STUDENT, _trained(lane, kept), y)] if y else []
    words = [f"{three(lane.tokens_per_s)} over the last steps, looks left out"] if y else []
    return _chart("Speed", "tokens/s", lines, dark, end, words, "No step was taken yet.")


def _spread(lane: TrainedLane) -> list[dict[str, Any]]:
    """Steps from the first to the last, MOST of them or so."""
    return [*lane.steps[: -1 : max(1, len(lane.steps) // MOST)], *lane.steps[-1:]]


def _trained(lane: TrainedLane, steps: list[dict[str, Any]]) -> list[float]:
    """Tokens trained on after each step."""
    return [(step["number"] + 1) * lane.begun["step_tokens"] for step in steps]


def _points(lane: TrainedLane, key: str) -> tuple[list[float], list[float]]:
    found = [look for look in lane.looks if isinstance(look.get(key), int | float)]
    return [look["step"] * lane.begun.get("step_tokens", 0) for look in found], [look[key] for look in found]


def _numeric(lane: TrainedLane, key: str) -> bool:
    return any(isinstance(look.get(key), int | float) for look in lane.looks)


def _level(name: str, value: float, end: float) -> Line:
    return Line(name, TEACHER, [0, end], [value, value])


def _chart(title: str, unit: str, lines: list[Line], dark: bool, end: float, words: list[str], otherwise: str) -> Chart:
    """Lines from 0 to `end`, each with its name at its end."""
    drawn = figure(X, unit, dark, height=HEIGHT)
    drawn.update_layout(margin_r=72)
    drawn.update_xaxes(range=[0, end or 1])
    drawn.update_yaxes(rangemode="tozero", exponentformat="none")
    places = _apart(lines, max((max(line.y) for line in lines), default=0), end)
    for line, place in zip(lines, places, strict=True):
        _add(drawn, line, place, dark)
    return Chart(title, drawn, sentences([f"{'; '.join(words)}."] if words else [], otherwise))


def _add(drawn: Any, line: Line, place: float, dark: bool) -> None:
    style = {"color": line.look.colour(dark), "dash": line.look.dash, "width": 2}
    drawn.add_scatter(x=list(line.x), y=list(line.y), mode="lines", line=style, name=line.name)
    drawn.add_annotation(
        x=line.x[-1], y=place, text=line.name, showarrow=False, xanchor="left", xshift=4, font={"color": ink(dark)}
    )


def _apart(lines: list[Line], top: float, end: float) -> list[float]:
    """Where the names at the ends of lines stand, so that none covers another."""
    placed: list[tuple[float, float]] = []
    found = [0.0] * len(lines)
    for at in sorted(range(len(lines)), key=lambda at: lines[at].y[-1]):
        x, y = lines[at].x[-1], lines[at].y[-1]
        near = [other for across, other in placed if abs(across - x) < BESIDE * end]
        found[at] = max([y, *(other + GAP * top for other in near)])
        placed.append((x, found[at]))
    return found
