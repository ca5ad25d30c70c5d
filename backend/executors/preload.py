"""What the fork server imports once so that lanes need not: libraries only, no thread pool and no device touched."""

import backend.engine.quiet  # before torch

# isort: split
import backend.encoderlane
import backend.lane  # noqa: F401
from backend.techniques.registry import all_techniques

all_techniques()
