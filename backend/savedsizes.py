"""Sizes of a saved model in words: megabytes on disk and in memory, and how much smaller than what it was."""

from __future__ import annotations

from backend.saved import Saved


def size_lines(saved: Saved, file_bytes: int) -> list[str]:
    """One line each for the disk, memory, and the ratios; MB are 10^6 bytes.

    Args:
        file_bytes: of the weight file that was written.
    """
    lines = [
        f"on disk: {_mb(file_bytes)}",
        f"in memory: {_mb(saved.weights_bytes)} of weights",
        f"{_times(saved.original_bytes, file_bytes)} than the original in fp32 ({_mb(saved.original_bytes)})",
    ]
    if saved.source_bytes:
        source = _mb(saved.source_bytes)
        lines.append(f"{_times(saved.source_bytes, file_bytes)} than the files that it was loaded from ({source})")
    return lines


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _times(before: int, after: int) -> str:
    ratio = before / max(1, after)
    return f"{ratio:.2f} times smaller" if ratio >= 1 else f"{1 / ratio:.2f} times larger"
