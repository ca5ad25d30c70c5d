"""A race as files: JSON with everything, CSV with one row a token, score and request. Raw values, units in names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from backend.replay import LaneView, RaceView

COLUMNS = (
    *("lane", "label", "simulated", "record", "index", "token_id", "text_json", "clock_s", "drafted"),
    *("shape", "kld_nats", "top1", "delta_logp", "round", "order", "ttft_s", "output_tokens", "emitted_s_json"),
)


def as_json(view: RaceView, spec: dict[str, Any]) -> str:
    """The recipe, versions and hardware, every lane's raw values, and the verdict."""
    lanes = {name: asdict(lane) for name, lane in view.lanes.items()}
    whole = {
        "race": spec,
        "state": view.state,
        "opened": view.opened,
        "wall_s": view.wall_s,
        "lanes": lanes,
        "verdict": view.verdict,
        "card": view.card,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)


def as_csv(view: RaceView) -> str:
    """One row a token, score and request. Texts are JSON strings: one line each, no formula in a spreadsheet."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for lane in view.lanes.values():
        head = {"lane": lane.name, "label": lane.label, "simulated": int(is_simulated(lane))}
        writer.writerows(head | row for row in _rows(lane))
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
        for index, (kld, top1, delta) in enumerate(zip(scores.kld, scores.top1, scores.delta_logp, strict=False)):
            values = {"shape": shape, "kld_nats": kld, "top1": top1, "delta_logp": delta}
            yield {"record": "score", "index": index, **values}
    for index, request in enumerate(lane.requests):
        known: dict[str, Any] = {
            key: request[key] for key in ("round", "order", "ttft_s", "output_tokens") if key in request
        }
        yield {"record": "request", "index": index, "emitted_s_json": json.dumps(request.get("emitted_s")), **known}
