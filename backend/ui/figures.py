"""Numbers as people read them: three significant digits, units beside them, ratios as '1.72x'."""

from __future__ import annotations

import math

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")


def three(value: float | None) -> str:
    """Three significant digits, never with an exponent between a millionth and a billion; 'unknown' for no number."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-6 or size >= 1e12:
        return f"{value:.2e}"
    places = 2 - math.floor(math.log10(size))
    rounded = round(value, places)
    if places > 0 and abs(rounded) >= 10 ** (3 - places):  # 9.996 became 10.0: one place less
        places -= 1
    return f"{rounded:,.{max(0, places)}f}"


def ratio(value: float | None) -> str:
    """A ratio: '1.72x'."""
    return "unknown" if value is None or not math.isfinite(value) else f"{three(value)}x"


def interval(low: float | None, high: float | None) -> str:
    """An interval in words: '(1.69 to 1.75)'; says so where a single pair gives none."""
    if low is None or high is None or not math.isfinite(high):
        return "(no interval: one pair only)"
    return f"({three(low)} to {three(high)})"


def size(value: float | None) -> str:
    """Bytes in decimal units: '104 MB'."""
    if value is None or not math.isfinite(value):
        return "unknown"
    step = 0
    amount = abs(value)
    while step < len(_BYTES) - 1 and float(f"{amount:.3g}") >= 1000:
        amount /= 1000
        step += 1
    return f"{'-' if value < 0 else ''}{three(amount)} {_BYTES[step]}"


def seconds(value: float | None) -> str:
    """A duration: '340 ms', '12.1 s', '3 min 20 s'."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value < 1:
        return f"{three(value * 1000)} ms"
    if value < 100:
        return f"{three(value)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def share(value: float | None) -> str:
    """A share as a percentage: '78%', '0.4%'."""
    if value is None or not math.isfinite(value):
        return "unknown"
    percent = value * 100
    return f"{three(percent)}%" if 0 < abs(percent) < 1 else f"{percent:.0f}%"


def money(value: float | None) -> str:
    """An amount in the currency of the price: '$0.57'."""
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${three(value)}"


def count(value: float | None) -> str:
    """A large count: '25.7M'."""
    if value is None:
        return "unknown"
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{three(value / limit)}{unit}"
    return three(value)
