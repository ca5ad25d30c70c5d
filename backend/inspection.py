"""The inspection's view: events folded into what the Inspect page shows. Raw numbers: seconds, bytes, nats.

Events of an inspection (kind, lane, data):

    opened          None   versions, hardware, lanes: {name: label}, job (the race's)|None, model
    phase           lane   name, done, total, eta_s|None, text
    timeline        lane   phases: [{name, start_s, end_s, peak_bytes}], at_s, resident_bytes, weights_loaded and
                           weights {part: bytes}, kv_bytes, logits_bytes
    ready           lane   label, parameters, receipt, memory, prompt_tokens
    machine         lane   see engine/machine_peak.py
    part_times      lane   decode, prefill: see engine/breakdown.py; work {shape: {part: {bytes, flops}}}; dtype
    operators       lane   shape, rows [[name, calls, self_s, total_s]], runs, profiled_s, plain_s, trace, trace_bytes
    outliers        lane   tokens, edges, layers: see engine/inspect/outliers.py
    attention       lane   layers, texts [one a token], of (tokens of the prompt), entropy, first, previous  (L x H)
    attention_map   lane   layer, heads, tokens, packed
    head_gradients  lane   gradients (L x H), tokens                               one a text
    sensitivity     lane   scheme 'int4'|'int8'|'int8_dynamic'|'split', unit, kld, kld_p95, top1, tokens; one each
    ranking         lane   part 'heads'|'layers', by, scores (L x units), tokens, together (query heads of a unit)
    unavailable     lane   section, reason                                         what this lane cannot show, and why
    inspected       lane   label                                                   the lane is done
    lane_failed     lane   cause, detail, remedy, phase
    failed          None   card
    finished / cancelled    None   wall_s
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.eventview import EventView


@dataclass
class InspectedLane:
    """One lane as far as it has been looked into."""

    name: str
    label: str = ""
    timeline: dict[str, Any] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    times: dict[str, Any] = field(default_factory=dict)
    operators: dict[str, dict[str, Any]] = field(default_factory=dict)  # by call shape
    outliers: dict[str, Any] = field(default_factory=dict)
    attention: dict[str, Any] = field(default_factory=dict)
    maps: dict[int, dict[str, Any]] = field(default_factory=dict)  # by layer
    gradients: list[list[list[float]]] = field(default_factory=list)  # one L x H a text
    sensitivity: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # scheme -> unit -> figures
    rankings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # part -> by -> event
    unavailable: dict[str, str] = field(default_factory=dict)  # section -> reason
    done: bool = False
    failure: dict[str, Any] | None = None

    @property
    def importance(self) -> list[list[float]]:
        """Mean |dL / d gate| of every head over the texts (L x H); empty where none was measured."""
        return np.mean(self.gradients, axis=0).tolist() if self.gradients else []

    @property
    def peak(self) -> dict[str, Any] | None:
        """The phase with the highest resident bytes."""
        phases = self.timeline.get("phases")
        return max(phases, key=lambda phase: phase["peak_bytes"]) if phases else None


@dataclass
class InspectionView(EventView[InspectedLane]):
    """An inspection as it stands after the events seen so far."""

    def new_lane(self, name: str) -> InspectedLane:
        """A lane of which nothing is known but its name."""
        return InspectedLane(name)

    def _on_timeline(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.timeline = data

    def _on_ready(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.ready = data

    def _on_machine(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.machine = data

    def _on_part_times(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.times = data

    def _on_operators(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.operators[data["shape"]] = data

    def _on_outliers(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.outliers = data

    def _on_attention(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.attention = data

    def _on_attention_map(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.maps[data["layer"]] = data

    def _on_head_gradients(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.gradients.append(data["gradients"])

    def _on_sensitivity(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.sensitivity.setdefault(data["scheme"], {})[data["unit"]] = data

    def _on_ranking(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.rankings.setdefault(data["part"], {})[data["by"]] = data

    def _on_unavailable(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.unavailable[data["section"]] = data["reason"]

    def _on_inspected(self, lane: InspectedLane, _: dict[str, Any]) -> None:
        lane.done = True

    def _on_lane_failed(self, lane: InspectedLane, data: dict[str, Any]) -> None:
        lane.failure = data


def unpack_map(data: dict[str, Any]) -> np.ndarray:
    """The attention weights of one layer (H, T, T), 0 to 1 in steps of 1 / 255, from an `attention_map` event."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(data["packed"])), dtype=np.uint8)
    return raw.reshape(data["heads"], data["tokens"], data["tokens"]) / 255


def explain_peak(timeline: dict[str, Any]) -> dict[str, int]:
    """What the highest resident bytes were made of, the largest first; 'not explained' is what nothing accounts for.

    While loading and transforming it is the weights as they were loaded; later the weights as they are held, the KV
    cache and the logits. The rest is what the libraries hold, copies, and temporary results.
    """
    peak = max(timeline["phases"], key=lambda phase: phase["peak_bytes"])
    early = peak["name"] in ("load", "transform")
    weights = timeline["weights_loaded"] if early else timeline["weights"]
    found = {f"{part} weights": int(held) for part, held in weights.items()}
    if not early:
        found |= {"KV cache": int(timeline["kv_bytes"]), "logits": int(timeline["logits_bytes"])}
    ranked = dict(sorted(found.items(), key=lambda item: -item[1]))
    rest = int(peak["peak_bytes"]) - sum(found.values())
    return ranked | ({"not explained": rest} if rest > 0 else {})
