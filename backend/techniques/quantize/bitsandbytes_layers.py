"""What both bitsandbytes techniques share: a quiet import, and the head left in a float."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

HEAD_KEPT = "bitsandbytes leaves the output head in a float, as transformers' own loading with it does"

_UNSAID = (
    "MatMul8bitLt: inputs will be cast",  # once a call and layer
    "Failed to load CPU gemm_4bit_forward from kernels-community",  # the kernel inside the package is used instead
)


@cache
def bitsandbytes() -> ModuleType:
    """The library, imported when first asked for (it takes seconds), without its two repeated notices."""
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).addFilter(lambda record: not str(record.msg).startswith(_UNSAID))
    import bitsandbytes

    return bitsandbytes
