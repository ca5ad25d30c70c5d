"""The measured requests: which of them count, how they are paired, and what they come to. Pure.

Every round asks one prompt of every lane, so requests are paired by (round, prompt). Rounds before the change-point
(backend/warmup.py) stay in the journal and are left out here, of all lanes alike.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.metrics import Ratio, Request, paired_ratio, percentiles
from backend.replay import LaneView, RaceView
from backend.warmup import steady_from

LEVELLED_FROM = 3  # requests of each prompt from which its own level is known

Key = tuple[int, int]  # round, prompt


@dataclass(frozen=True)
class Asked:
    """One measured request of one lane, and what was asked."""

    kind: str
    prompt_tokens: int | None
    peak_bytes: int | None
    times: Request

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Tokens of the prompt / TTFT: the first token's choice is part of it, and a draft's own prefill."""
        return self.prompt_tokens / self.times.ttft_s if self.prompt_tokens else None

    def itl_s(self, percent: float) -> float | None:
        """A percentile of the gaps between emissions."""
        gaps = self.times.itl_s
        return float(np.percentile(gaps, percent)) if gaps else None


@dataclass(frozen=True)
class Metric:
    """A figure of one request; `more` where more of it is better."""

    value: Callable[[Asked], float | None]
    more: bool = False


METRICS: dict[str, Metric] = {
    "ttft_s": Metric(lambda asked: asked.times.ttft_s),
    "prefill_tokens_per_s": Metric(lambda asked: asked.prefill_tokens_per_s, more=True),
    "tpot_s": Metric(lambda asked: asked.times.tpot_s),
    "itl_p50_s": Metric(lambda asked: asked.itl_s(50)),
    "itl_p95_s": Metric(lambda asked: asked.itl_s(95)),
    "itl_p99_s": Metric(lambda asked: asked.itl_s(99)),
    "tokens_per_s": Metric(lambda asked: asked.times.tokens_per_s, more=True),
    "e2e_s": Metric(lambda asked: asked.times.e2e_s),
    "peak_bytes": Metric(lambda asked: asked.peak_bytes),
}


@dataclass(frozen=True)
class Measured:
    """The requests that count, by lane and (round, prompt), and how many rounds do not."""

    rounds: int
    left_out: int
    lanes: dict[str, dict[Key, Asked]]

    def pairs(self, lane: str, metric: str = "tpot_s", kind: str | None = None) -> list[tuple[float, float]]:
        """(baseline, lane) figures of the requests that both answered, in the order of the rounds."""
        ours, theirs, value = self.lanes.get(lane, {}), self.lanes.get("base", {}), METRICS[metric].value
        keys = [key for key in sorted(ours) if key in theirs and kind in (None, ours[key].kind)]
        both = ((value(theirs[key]), value(ours[key])) for key in keys)
        return [(b, v) for b, v in both if b and v and math.isfinite(b) and math.isfinite(v)]

    def ratio(self, lane: str, metric: str = "tpot_s", kind: str | None = None) -> Ratio | None:
        """How much better a lane is than the baseline, above 1 for better; None without a pair."""
        pairs = self.pairs(lane, metric, kind)
        if not pairs:
            return None
        base, ours = [b for b, _ in pairs], [v for _, v in pairs]
        return paired_ratio(ours, base) if METRICS[metric].more else paired_ratio(base, ours)

    def kinds(self) -> list[str]:
        """The kinds of prompt, where there are several."""
        found = list(dict.fromkeys(asked.kind for asked in self.lanes.get("base", {}).values()))
        return found if len(found) > 1 else []

    def own(self, lane: str, kind: str | None = None) -> dict[str, Any]:
        """Medians of a lane's own figures, with the percentiles of E2E latency and of all its gaps (ITL)."""
        asked = [one for one in self.lanes.get(lane, {}).values() if kind in (None, one.kind)]
        if not asked:
            return {}
        figures: dict[str, Any] = {}
        for name in ("ttft_s", "prefill_tokens_per_s", "tpot_s", "tokens_per_s"):
            values = [value for one in asked if (value := METRICS[name].value(one))]
            if values:
                figures[name] = statistics.median(values)
        figures["e2e_s"] = percentiles([one.times.e2e_s for one in asked])
        if gaps := [gap for one in asked for gap in one.times.itl_s]:
            figures["itl_s"] = percentiles(gaps)
        if peaks := [one.peak_bytes for one in asked if one.peak_bytes]:
            figures["request_peak_bytes"] = max(peaks)
        return figures | {"requests": len(asked)}

    def against(self, lane: str, kind: str | None = None) -> dict[str, dict[str, Any]]:
        """Every paired figure of a variant, with its interval."""
        ratios = {name: self.ratio(lane, name, kind) for name in METRICS}
        return {name: _told(ratio) for name, ratio in ratios.items() if ratio}

    def log_ratios(self, lane: str) -> list[float]:
        """log(baseline TPOT / lane TPOT) of each pair in the order of the rounds, each prompt's own level taken out."""
        ours, theirs = self.lanes.get(lane, {}), self.lanes.get("base", {})
        keys = [key for key in sorted(ours) if key in theirs]
        return levelled(keys, [math.log(theirs[key].times.tpot_s / ours[key].times.tpot_s) for key in keys])

    def base_logs(self) -> list[float]:
        """log TPOT of the baseline's requests in order, each prompt's own level taken out."""
        base = self.lanes.get("base", {})
        keys = sorted(base)
        return levelled(keys, [math.log(base[key].times.tpot_s) for key in keys])


def measured(view: RaceView) -> Measured:
    """The requests of a race that count: those after the latest change-point of any lane."""
    lanes = {name: _asked(lane) for name, lane in view.lanes.items() if lane.requests}
    rounds = sorted({key[0] for asked in lanes.values() for key in asked})
    left_out = max((_warm_up(asked) for asked in lanes.values()), default=0)
    begun = set(rounds[:left_out])
    kept = {name: {key: one for key, one in asked.items() if key[0] not in begun} for name, asked in lanes.items()}
    return Measured(len(rounds), left_out, kept)


def _told(ratio: Ratio) -> dict[str, Any]:
    """A ratio as plain data; a single pair has no interval."""
    data = ratio.as_dict()
    return data if ratio.pairs > 1 else {key: data[key] for key in ("ratio", "pairs", "within_noise")}


def levelled(keys: Sequence[Key], logs: Sequence[float]) -> list[float]:
    """Logarithms less the median of their prompt, where every prompt was asked often enough to have one."""
    by_prompt: dict[int, list[float]] = defaultdict(list)
    for (_, prompt), value in zip(keys, logs, strict=True):
        by_prompt[prompt].append(value)
    if len(by_prompt) < 2 or min(len(values) for values in by_prompt.values()) < LEVELLED_FROM:
        return list(logs)
    levels = {prompt: statistics.median(values) for prompt, values in by_prompt.items()}
    return [value - levels[prompt] for (_, prompt), value in zip(keys, logs, strict=True)]


def _warm_up(asked: dict[Key, Asked]) -> int:
    keys = sorted(asked)
    return steady_from([math.exp(value) for value in levelled(keys, [math.log(asked[k].times.tpot_s) for k in keys])])


def _asked(lane: LaneView) -> dict[Key, Asked]:
    """A lane's requests by (round, prompt); those that were answered in a single emission have no TPOT."""
    found = {}
    for data in lane.requests:
        times = Request(tuple(data["emitted_s"]))
        if times.tpot_s > 0:
            known = data.get("kind", "prompt"), data.get("prompt_tokens"), data.get("peak_bytes")
            found[data["round"], data.get("prompt", 0)] = Asked(*known, times)
    return found
