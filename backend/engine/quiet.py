"""Keeps harmless complaints of torch and torchao out of sight. Import it before torch.

transformers imports torchao, which logs each GPU library that it cannot load, and registers enums in a way that torch
warns of. Both loggers still show errors. The profiler says on stderr when it starts and stops.
"""

from __future__ import annotations

import logging
import os

for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
