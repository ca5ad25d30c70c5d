"""Replay: events folded into what a page, a command line or an export shows. Live and from history alike.

Events of a race (kind, lane, data), all numbers raw (seconds, bytes, nats):

    phase        lane|None  name, done, total, eta_s|None, text      loading, transforming, warming up, racing, ...
    opened       None       versions, hardware, lanes: {name: label}, prompt_tokens|None, scored
    ready        lane       label, parameters, receipt (see engine/receipt.py), memory
    receipt      lane       receipt, read again after a run was watched
    tokens       lane       start, ids, texts, clock (s on the lane clock, one a token), drafted (0/1 a token)
    routing      lane       experts, picks (token -> layer -> experts), prompt: {counts, pairs, dropped} once
    speculation  lane       all of engine/speculate.py's Speculation.as_dict()
    scores       lane       shape 'decode'|'prefill', start, kld, top1 (0/1), top5, delta_logp   one entry a token
    worst        lane       decode, prefill: the places with the highest KLD, see engine/worst.py's told()
    memory       lane       weights_bytes, kv_bytes, other_bytes, resident_bytes, peak_bytes, device_peak_bytes|None
    perplexity   lane       value, sums [nats], counts [tokens] a window, done, total, protocol
    answers      lane       right, asked, by_kind, protocol          exact match on the storyteller's questions
    cloze        lane       right, asked, marks, done, total, protocol  last words of real text, of other models
    overlap      lane       rouge_l                                   of its text against the baseline's
    forecast     lane       what was predicted before the lane was changed, see backend/prediction.py
    breakdown    lane       decode, prefill, ..., plain_step_s         measured off the clock, see engine/breakdown.py
    prompts      None       mode 'one'|'list'|'mix', prompts: [{kind, prompt_tokens, output_tokens}]   what is measured
    request      lane       round, order, prompt (index), kind, prompt_tokens, output_tokens, ttft_s,
                            emitted_s: [...] (s since the request began), peak_bytes
    conditions   None       what else the machine did during the measurement, see backend/suspicion.py
    lane_failed  lane       cause 'out of memory'|'killed'|'exception'|'refused', detail, remedy, phase
    verdict      None       see backend/verdict.py
    failed       None       card
    finished / cancelled    None   wall_s, clock_s: {lane: s}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.eventview import EventView
from backend.routing import Routing


@dataclass
class Scores:
    """Quality a token against the baseline, in one call shape."""

    kld: list[float] = field(default_factory=list)  # nats
    top1: list[int] = field(default_factory=list)
    top5: list[float] = field(default_factory=list)  # journals of the first version have none
    delta_logp: list[float] = field(default_factory=list)

    @property
    def mean_kld(self) -> float | None:
        """Mean over the tokens so far."""
        return sum(self.kld) / len(self.kld) if self.kld else None

    @property
    def agreement(self) -> float | None:
        """Share of tokens where both models rank the same token first."""
        return sum(self.top1) / len(self.top1) if self.top1 else None

    @property
    def top5_agreement(self) -> float | None:
        """Mean share of the baseline's five likeliest tokens that are among the variant's five."""
        return sum(self.top5) / len(self.top5) if self.top5 else None


@dataclass
class LaneView:
    """One lane as it stands."""

    name: str
    label: str = ""
    phase: str = "waiting"
    parameters: int | None = None
    receipt: dict[str, Any] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)  # s on the lane clock when each token was out
    drafted: list[int] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    decode: Scores = field(default_factory=Scores)
    prefill: Scores = field(default_factory=Scores)
    routing: Routing = field(default_factory=Routing)
    speculation: dict[str, Any] = field(default_factory=dict)
    perplexity: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    cloze: dict[str, Any] = field(default_factory=dict)
    worst: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by shape
    rouge_l: float | None = None
    forecast: dict[str, Any] = field(default_factory=dict)  # journals of the first version have none
    breakdown: dict[str, Any] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    failure: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """What it wrote so far."""
        return "".join(self.texts)

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token in the race, prefill included."""
        return self.clock[0] if self.clock else None

    @property
    def tokens_per_s(self) -> float | None:
        """Decode speed on the lane clock, without prefill."""
        if len(self.clock) < 2 or self.clock[-1] <= self.clock[0]:
            return None
        return (len(self.clock) - 1) / (self.clock[-1] - self.clock[0])


@dataclass
class RaceView(EventView[LaneView]):
    """A race as it stands after the events seen so far."""

    prompts: list[dict[str, Any]] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] | None = None

    @property
    def baseline(self) -> LaneView | None:
        """The lane that the others are compared with."""
        return self.lanes.get("base")

    @property
    def variants(self) -> list[LaneView]:
        """The other lanes, in order."""
        return [lane for name, lane in self.lanes.items() if name != "base"]

    def divergence(self, lane: LaneView) -> int | None:
        """Index of the first token that differs from the baseline's, or None while they agree."""
        base = self.baseline
        if base is None or lane is base:
            return None
        pairs = enumerate(zip(base.ids, lane.ids, strict=False))
        return next((index for index, (ours, theirs) in pairs if ours != theirs), None)

    def new_lane(self, name: str) -> LaneView:
        """A lane of which nothing is known but its name."""
        return LaneView(name)

    def _on_phase(self, lane: LaneView | None, data: dict[str, Any]) -> None:
        self.phase = data
        if lane is not None:
            lane.phase = data["name"]

    def _on_ready(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.phase, lane.label = "ready", data["label"]
        lane.parameters, lane.receipt, lane.memory = data["parameters"], data["receipt"], data["memory"]

    def _on_receipt(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.receipt = data["receipt"]

    def _on_tokens(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.ids += data["ids"]
        lane.texts += data["texts"]
        lane.clock += data["clock"]
        lane.drafted += data["drafted"]

    def _on_scores(self, lane: LaneView, data: dict[str, Any]) -> None:
        scores = lane.decode if data["shape"] == "decode" else lane.prefill
        scores.kld += data["kld"]
        scores.top1 += data["top1"]
        scores.top5 += data.get("top5", ())
        scores.delta_logp += data["delta_logp"]

    def _on_routing(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.routing.take(data)

    def _on_speculation(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.speculation = data

    def _on_memory(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.memory = data

    def _on_perplexity(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.perplexity = data

    def _on_answers(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.answers = data

    def _on_cloze(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.cloze = data

    def _on_worst(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.worst = data

    def _on_overlap(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.rouge_l = data["rouge_l"]

    def _on_forecast(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.forecast = data

    def _on_breakdown(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.breakdown = data

    def _on_prompts(self, _: None, data: dict[str, Any]) -> None:
        self.prompts = data["prompts"]

    def _on_conditions(self, _: None, data: dict[str, Any]) -> None:
        self.conditions = data

    def _on_request(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.requests.append(data)

    def _on_lane_failed(self, lane: LaneView, data: dict[str, Any]) -> None:
        lane.phase, lane.failure = "failed", data

    def _on_verdict(self, _: None, data: dict[str, Any]) -> None:
        self.verdict = data
