"""How large the ring of log-probabilities is: what the worker makes and the lanes map. Knows no torch."""

BUDGET_BYTES = 32 * 2**20
MOST_ROWS = 64


def ring_rows(vocab: int) -> int:
    """How many rows of that width the ring holds: at most 64, within 32 MB, but at least 4."""
    return max(4, min(MOST_ROWS, BUDGET_BYTES // (4 * vocab)))


def ring_bytes(vocab: int) -> int:
    """Bytes of a ring for that vocabulary."""
    return ring_rows(vocab) * vocab * 4
