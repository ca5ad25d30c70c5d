"""The memory of a lane's process beside its model: libraries, threads, tokenizer. Measured once, and kept.

The worker measures it with the machine's bandwidth (backend/idle.py): a lane with a model of a few thousand weights
runs a request, and what its process then holds is what every lane holds beside its own model. The tokenizer's share
grows with its file.
"""

from __future__ import annotations

from backend.machine import kept_process_bytes
from backend.recipe.facts import ModelFacts
from backend.recipe.recipe import Recipe

USUAL_BYTES = 35 * 10**6  # before it was measured here
TEXT_BYTES = 10**7  # of a model with a tokenizer: its library, and the text that quality is measured on
BYTES_A_TOKENIZER_BYTE = 8.3  # resident for each byte of tokenizer.json


def process_bytes(facts: ModelFacts, recipe: Recipe) -> int:
    """Predicted resident bytes of the process beside weights and cache."""
    measured = kept_process_bytes()
    base = USUAL_BYTES if measured is None else measured
    text = TEXT_BYTES + round(BYTES_A_TOKENIZER_BYTE * facts.tokenizer_bytes) if facts.tokenizer_bytes else 0
    return base + text + sum(switch.kernel_bytes for switch in recipe.on(facts).switches.values())
