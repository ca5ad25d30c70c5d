"""A race of encoders that never ran: its events as backend/encodingview.py has them, for tests of what shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backend.encodingverdict import build_verdict
from backend.encodingview import EncodingView
from backend.journal import Event, Journal
from backend.recipe.race import Race

Told = tuple[str, str | None, dict[str, Any]]
LABELS = {"base": "unchanged", "A": "int8 dynamic", "B": "50% zeros"}
SECONDS = {"base": {1: 0.2, 8: 0.12, 32: 0.1}, "A": {1: 0.16, 8: 0.07, 32: 0.05}, "B": {1: 0.2, 8: 0.12, 32: 0.1}}
WEIGHTS = {"base": 90e6, "A": 60e6, "B": 90e6}
SIZES = (1, 8, 32)


def race() -> Race:
    """Three lanes on a model that need not be there."""
    variants = [{"switches": {"int8_dynamic": {}}}, {"switches": {"magnitude": {}}}]
    return Race.read({"model": "minilm", "prompt": "Something *warm* to drink", "variants": variants})


def effect(kind: str, summary: str, simulated: bool = False) -> dict[str, Any]:
    told = {"kind": kind, "took_effect": True, "summary": summary, "facts": {}, "skipped": [], "simulated": simulated}
    return told


EFFECTS = {
    "base": [],
    "A": [effect("int8_dynamic", "36 of 36 linear layers qint8")],
    "B": [effect("magnitude", "50% zeros", simulated=True)],
}


def worth(lane: str, size: int) -> dict[str, Any]:
    near = {"right": 70 if lane == "base" else 69, "asked": 80, "low": 0.78, "high": 0.93}
    own: dict[str, Any] = {"size": size, "grades": 0.9 if lane == "base" else 0.89, "neighbours": near}
    if lane == "base":
        return own
    cosine = {"mean": 0.951 if size == 1 else 0.948, "p1": 0.92, "min": 0.9}
    return own | {
        "cosine": cosine,
        "worst": "c",
        "ranks": 0.985,
        "neighbours_p": 1.0,
        "neighbours_within_noise": True,
    }


def events(rounds: int = 8, slow_rounds: int = 0, lose: str = "", scored: bool = True) -> Iterator[Told]:
    """The whole race but for its end."""
    versions = {"versions": {"torch": "2.13.0"}, "hardware": {"cores": 2}}
    yield "opened", None, versions | {"lanes": LABELS, "scored": scored, "sizes": list(SIZES), "model": "minilm"}
    yield "phase", None, {"name": "measuring", "done": 3.0, "total": 12.0, "eta_s": 9.0, "text": "round 3"}
    for lane, label in LABELS.items():
        memory = {"weights_bytes": WEIGHTS[lane], "kv_bytes": 0, "other_bytes": 5e6, "resident_bytes": 2e8}
        receipt = {"effects": EFFECTS[lane], "weights_bytes": WEIGHTS[lane], "heads": 12, "layers": 6}
        receipt["run"] = {"encode_kernels": {"sdpa flash": 6}, "busy_threads": 2}
        ready = {"label": label, "parameters": 22_565_376, "receipt": receipt, "memory": memory | {"peak_bytes": 2e8}}
        yield "ready", lane, ready
    for size in SIZES if scored else ():
        for lane in LABELS:
            yield "worth", lane, worth(lane, size)
    if scored:
        for lane in LABELS:
            hit = {"sentence": "Two cups of <b>coffee</b> a day.", "topic": "coffee", "cosine": 0.61}
            yield "found", lane, {"sentences": [hit]}
    if lose:
        lost = {"cause": "killed", "detail": "by a signal", "remedy": "Race again.", "phase": "measuring"}
        yield "lane_failed", lose, lost
    for turn in range(rounds):
        for size in SIZES:
            for order, lane in enumerate(name for name in LABELS if name != lose):
                yield "encoded", lane, encoded(lane, size, turn, order, slow=turn < slow_rounds)


def encoded(lane: str, size: int, turn: int, order: int, slow: bool) -> dict[str, Any]:
    calls = 32 // size
    spent = SECONDS[lane][size] * (1.0 + 0.0005 * (turn % 3)) * (2.0 if slow else 1.0)
    data = {"round": turn, "order": order, "size": size, "sentences": 32, "tokens": 384}
    return data | {"call_s": [spent / calls] * calls, "peak_bytes": 200_000_000}


def play(**options: Any) -> EncodingView:
    """The view of the race as it stands before its verdict."""
    view = EncodingView()
    for kind, lane, data in events(**options):
        view.apply(Event(0, 1, 0.0, kind, lane, data))
    return view


def play_into(journal: Journal, job: int, until: str = "finished", **options: Any) -> None:
    """Write the race into a journal, to its end or to where it runs."""
    journal.claim("a worker", "encode")
    journal.append(job, list(events(**options)))
    if until == "running":
        return
    if until == "finished":
        journal.append(job, [("verdict", None, build_verdict(play(**options), race()))])
    journal.append(job, [(until, None, {"wall_s": 14.0})])
    journal.finish(job, until)
