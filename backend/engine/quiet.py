"""Keeps two harmless complaints out of sight that importing torchao makes on a CPU build. Import it before torch.

transformers imports torchao, which logs each GPU library that it cannot load, and registers enums in a way that torch
warns of. Both loggers still show errors.
"""

from __future__ import annotations

import logging

for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
