"""Suspicion: what in the conditions of a measurement gives reason to doubt it, in sentences with their evidence. Pure.

Facts of a `conditions` event, as backend/conditions.py reads them:

    seconds, cores           how long was watched, and on how many cores
    others                   [{"name", "cores"}]: processes that are not ours, and how many cores they used on average
    unseen_cores             cores that were busy with what no process that can be seen accounts for
    steal_share              share of all cores that the host gave to others
    swapped_in_bytes, swapped_out_bytes
    frequency_mhz            of the fastest core, about once a second while a lane computed
    throttle_events          of all cores; None where no counter is readable
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEAST_CORES = 0.2  # of another process: less is what a quiet desktop does all the time
LEAST_SHARE = 0.02  # of all cores
LEAST_STEAL = 0.01
LEAST_SWAP_BYTES = 1_000_000
LEAST_SLOWDOWN = 0.05  # of the processor's clock
FEWEST_FOR_TREND = 8
TREND_P = 0.01
RATIO_DRIFT = 0.02  # from the first round to the last
SPEED_DRIFT = 0.05
MOST_NAMED = 3


def suspicions(
    facts: Mapping[str, Any], log_ratios: Mapping[str, Sequence[float]], base_logs: Sequence[float]
) -> list[str]:
    """Everything that gives reason to doubt a measurement; empty when nothing does.

    Args:
        facts: of the `conditions` event; empty where nothing was read.
        log_ratios: of each variant, log(baseline TPOT / its TPOT) in the order of the rounds.
        base_logs: log TPOT of the baseline in the order of the rounds.
    """
    found = [*_others(facts), *_host(facts), *_swap(facts), *_clock(facts)]
    for lane, logs in log_ratios.items():
        if (drift := trend(logs)) and abs(drift[0]) >= RATIO_DRIFT:
            found.append(
                f"{lane}'s ratio drifted by {_percent(math.expm1(drift[0]), sign=True)} from the first round to the "
                f"last (Kendall's tau {drift[1]:.2f}, p {_p(drift[2])}), so one ratio does not describe the run."
            )
    if (drift := trend(base_logs)) and abs(drift[0]) >= SPEED_DRIFT:
        word = "slower" if drift[0] > 0 else "faster"
        found.append(
            f"The baseline itself became {_percent(abs(math.expm1(drift[0])))} {word} from the first round to the "
            f"last (Kendall's tau {drift[1]:.2f}, p {_p(drift[2])})."
        )
    return found


def trend(values: Sequence[float]) -> tuple[float, float, float] | None:
    """A monotone trend: (drift from first to last by Theil and Sen's slope, Kendall's tau, p); None without one."""
    if len(values) < FEWEST_FOR_TREND or np.ptp(values) == 0:
        return None
    places = np.arange(len(values))
    tau, p = stats.kendalltau(places, values)
    if not p < TREND_P:
        return None
    slope = stats.theilslopes(values, places).slope
    return float(slope * (len(values) - 1)), float(tau), float(p)


def _others(facts: Mapping[str, Any]) -> list[str]:
    """Processes that are not ours, the greediest first."""
    cores = facts.get("cores") or 1
    least = max(LEAST_CORES, LEAST_SHARE * cores)
    loud = [other for other in facts.get("others", ()) if other["cores"] >= least]
    found = [
        f"Another process, {other['name']}, used {_cores(other['cores'])} during the measurement."
        for other in sorted(loud, key=lambda other: -other["cores"])[:MOST_NAMED]
    ]
    if (unseen := facts.get("unseen_cores") or 0.0) >= least:
        found.append(f"Processes that cannot be seen from here used {_cores(unseen)} during the measurement.")
    return found


def _host(facts: Mapping[str, Any]) -> list[str]:
    steal = facts.get("steal_share") or 0.0
    if steal < LEAST_STEAL:
        return []
    return [f"The host of this virtual machine gave {_percent(steal)} of the processor time to others (steal)."]


def _swap(facts: Mapping[str, Any]) -> list[str]:
    read, written = facts.get("swapped_in_bytes") or 0, facts.get("swapped_out_bytes") or 0
    if read + written < LEAST_SWAP_BYTES:
        return []
    figures = f"{written / 1e6:.0f} MB were swapped out and {read / 1e6:.0f} MB in"
    return [f"Memory was short: {figures} during the measurement."]


def _clock(facts: Mapping[str, Any]) -> list[str]:
    """Throttling, counted by the processor or seen in its clock."""
    found = []
    if events := facts.get("throttle_events"):
        found.append(f"The processor counted {events} thermal throttle events during the measurement.")
    seen = facts.get("frequency_mhz") or ()
    third = len(seen) // 3
    if third:
        first, last = float(np.median(seen[:third])), float(np.median(seen[-third:]))
        if last < (1 - LEAST_SLOWDOWN) * first:
            fall = f"from {first / 1000:.2f} to {last / 1000:.2f} GHz"
            found.append(f"The processor's clock fell {fall} during the measurement.")
    return found


def _cores(cores: float) -> str:
    return f"{_percent(cores)} of a core" if cores < 1 else f"{cores:.1f} cores"


def _percent(share: float, sign: bool = False) -> str:
    digits = 1 if abs(share) < 0.1 else 0
    return f"{100 * share:{'+' if sign else ''}.{digits}f}%"


def _p(value: float) -> str:
    return "below .001" if value < 0.001 else f"{value:.3f}".lstrip("0")
