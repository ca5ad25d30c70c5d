"""An inspection as a file: JSON with every raw value."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from backend.inspection import InspectionView


def as_json(view: InspectionView, spec: dict[str, Any]) -> str:
    """The race, versions and hardware, and all that each lane showed."""
    whole = {
        "inspection": spec,
        "state": view.state,
        "opened": view.opened,
        "wall_s": view.wall_s,
        "lanes": {name: asdict(lane) for name, lane in view.lanes.items()},
        "card": view.card,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)
