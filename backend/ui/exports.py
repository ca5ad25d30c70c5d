"""A race as files: JSON with everything, CSV with one row a token, score, request and measured figure.

Raw values, units in names. `counted` is 0 for requests that were left out as warm-up.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from backend.foretold import compared
from backend.measured import measured
from backend.replay import LaneView, RaceView

COLUMNS = (
    *("lane", "label", "simulated", "record", "index", "token_id", "text_json", "clock_s", "drafted"),
    *("shape", "kld_nats", "top1", "top5", "delta_logp", "round", "order", "prompt", "kind"),
    *("prompt_tokens", "output_tokens"),
    *("ttft_s", "emitted_s_json", "peak_bytes", "counted", "figure", "ratio", "low", "high", "pairs", "within_noise"),
)
REQUEST = ("round", "order", "prompt", "kind", "prompt_tokens", "output_tokens", "ttft_s", "peak_bytes")


def as_json(view: RaceView, spec: dict[str, Any]) -> str:
    """The recipe, versions and hardware, every lane's raw values, and the verdict."""
    lanes = {name: asdict(lane) for name, lane in view.lanes.items()}
    whole = {
        "race": spec,
        "state": view.state,
        "opened": view.opened,
        "wall_s": view.wall_s,
        "lanes": lanes,
        "prompts": view.prompts,
        "conditions": view.conditions,
        "forecast_beside_measured": compared(view),
        "verdict": view.verdict,
        "card": view.card,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)


def as_csv(view: RaceView) -> str:
    """One row a token, score, request and figure. Texts are JSON: one line each, no formula in a spreadsheet."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for lane in view.lanes.values():
        head = {"lane": lane.name, "label": lane.label, "simulated": int(is_simulated(lane))}
        writer.writerows(head | row for row in (*_rows(lane), *_requests(view, lane), *_figures(view, lane)))
    return out.getvalue()


def is_simulated(lane: LaneView) -> bool:
    """Whether a part of the lane's recipe changed quality only, as its receipt says."""
    return any(effect.get("simulated") for effect in lane.receipt.get("effects", ()))


def _rows(lane: LaneView) -> Iterator[dict[str, Any]]:
    for index, (token, text, clock, drafted) in enumerate(
        zip(lane.ids, lane.texts, lane.clock, lane.drafted, strict=False)
    ):
        yield {
            "record": "token",
            "index": index,
            "token_id": token,
            "text_json": json.dumps(text, ensure_ascii=False),
            "clock_s": clock,
            "drafted": drafted,
        }
    for shape, scores in (("decode", lane.decode), ("prefill", lane.prefill)):
        columns = zip_longest(scores.kld, scores.top1, scores.top5, scores.delta_logp, fillvalue="")  # old: no top5
        for index, (kld, top1, top5, delta) in enumerate(columns):
            values = {"shape": shape, "kld_nats": kld, "top1": top1, "top5": top5, "delta_logp": delta}
            yield {"record": "score", "index": index, **values}


def _requests(view: RaceView, lane: LaneView) -> Iterator[dict[str, Any]]:
    counted = measured(view).lanes.get(lane.name, {})
    for index, request in enumerate(lane.requests):
        known: dict[str, Any] = {key: request[key] for key in REQUEST if key in request}
        known["counted"] = int((request["round"], request.get("prompt", 0)) in counted)
        yield {"record": "request", "index": index, "emitted_s_json": json.dumps(request.get("emitted_s")), **known}


def _figures(view: RaceView, lane: LaneView) -> Iterator[dict[str, Any]]:
    """Paired ratios with their intervals, of all prompts and of each kind."""
    verdict = (view.verdict or {}).get("lanes", {}).get(lane.name, {})
    for kind, entry in {"": verdict, **verdict.get("kinds", {})}.items():
        for figure, ratio in entry.get("paired", {}).items():
            numbers = ratio | {"within_noise": int(ratio["within_noise"])}
            yield {"record": "figure", "figure": figure, "kind": kind, **numbers}
