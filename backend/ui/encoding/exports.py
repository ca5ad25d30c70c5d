"""An encoder's race as files: JSON with everything, CSV with one row a measured call. Raw values, units in names."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from backend.encodingverdict import encoded
from backend.encodingview import EncodingView

COLUMNS = ("lane", "label", "round", "order", "size", "call", "call_s", "sentences", "tokens", "peak_bytes", "counted")


def as_json(view: EncodingView, spec: dict[str, Any]) -> str:
    """The recipe, versions and hardware, every lane's raw values, and the verdict."""
    whole = {
        "race": spec,
        "state": view.state,
        "opened": view.opened,
        "wall_s": view.wall_s,
        "lanes": {name: asdict(lane) for name, lane in view.lanes.items()},
        "conditions": view.conditions,
        "verdict": view.verdict,
        "card": view.card,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)


def as_csv(view: EncodingView) -> str:
    """One row a call; `sentences`, `tokens` and `peak_bytes` are those of its round. `counted` is 0 for warm-up."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    kept = encoded(view).lanes
    for lane in view.lanes.values():
        for data in lane.encoded:
            known = {key: data[key] for key in ("round", "order", "size", "sentences", "tokens", "peak_bytes")}
            counted = int((data["round"], data["size"]) in kept.get(lane.name, {}))
            head = {"lane": lane.name, "label": lane.label, "counted": counted, **known}
            writer.writerows(head | {"call": place, "call_s": spent} for place, spent in enumerate(data["call_s"]))
    return out.getvalue()
