"""A serving as files: JSON with everything, CSV with a row for each request."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from backend.serving.view import ServingView
from backend.ui.serve.words import as_rows

COLUMNS = (
    *("lane", "label", "request", "arrival_s", "first_s", "end_s", "prompt_tokens", "output_tokens"),
    *("ttft_s", "tpot_s"),
)


def as_json(view: ServingView, spec: dict[str, Any]) -> str:
    """The setting, versions and hardware, and all that each lane did."""
    lanes = {name: asdict(lane) for name, lane in view.lanes.items()}
    head = {"serving": spec, "state": view.state, "opened": view.opened, "wall_s": view.wall_s, "card": view.card}
    return json.dumps(head | {"lanes": lanes, "verdict": view.verdict}, indent=1, ensure_ascii=False)


def as_csv(view: ServingView) -> str:
    """Seconds on the lane clock."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_rows(view))
    return out.getvalue()
