"""llama.cpp through the least of llama-cpp-python: its high-level class cannot switch extra buffers off.

With them (repacked weights) version 0.3.36 crashed on the machine where this was written.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"q8_0": 7, "q4_0": 2, "q4_K_M": 15}  # llama_ftype


class LlamaCpp:
    """One GGUF file, its context and its cache.

    Raises:
        ImportError: where llama-cpp-python is not installed.
        RuntimeError: when llama.cpp does not load the file.
    """

    def __init__(self, file: Path, threads: int = 1, context: int = 256) -> None:
        self.lib = _library()
        self.lib.llama_backend_init()
        options = self.lib.llama_model_default_params()
        options.use_extra_bufts = False
        options.n_gpu_layers = 0
        self.model = self.lib.llama_model_load_from_file(str(file).encode(), options)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {file.name}")
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.size = int(self.lib.llama_vocab_n_tokens(self.vocab))
        room = self.lib.llama_context_default_params()
        room.n_ctx = room.n_batch = context
        room.n_threads = room.n_threads_batch = threads
        self.context = self.lib.llama_init_from_model(self.model, room)

    def tokens(self, text: str) -> list[int]:
        """The text in the file's own tokens, opening token included."""
        raw = text.encode()
        room = (self.lib.llama_token * 512)()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), room, 512, True, False)
        return list(room[:count])

    def forget(self) -> None:
        """Empty the cache."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def logits(self, ids: list[int]) -> np.ndarray[Any, Any]:
        """Logits (V,) after more tokens."""
        row = (self.lib.llama_token * len(ids))(*ids)
        self._decode(self.lib.llama_batch_get_one(row, len(ids)))
        return self._row(-1).copy()

    def all_logits(self, ids: list[int]) -> np.ndarray[Any, Any]:
        """Logits (T, V) after each token of a text that stands alone."""
        self.forget()
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
        self._decode(batch)
        rows = np.stack([self._row(place) for place in range(len(ids))])
        self.lib.llama_batch_free(batch)
        return rows

    def _decode(self, batch: Any) -> None:
        if self.lib.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama.cpp could not compute these tokens")

    def _row(self, place: int) -> np.ndarray[Any, Any]:
        """Logits (V,) in llama.cpp's own memory."""
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, place), shape=(self.size,))

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """So many tokens more."""
        written: list[int] = []
        for _ in range(count):
            ids = [int(self.logits(ids).argmax())]
            written += ids
        return written


def quantized(source: Path, kind: str, target: Path, threads: int) -> Path:
    """The file again in one of llama.cpp's types (TYPES).

    Raises:
        RuntimeError: when llama.cpp refuses.
    """
    lib = _library()
    options = lib.llama_model_quantize_default_params()
    options.ftype, options.nthread = TYPES[kind], threads
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), options) != 0:
        raise RuntimeError(f"llama.cpp does not write {kind}")
    return target


@lru_cache(maxsize=1)
def _library() -> Any:
    """llama-cpp-python, which from now on says nothing."""
    import llama_cpp

    llama_cpp.llama_log_set(_silent(), None)
    return llama_cpp


@lru_cache(maxsize=1)
def _silent() -> Any:
    """A callback that the library calls for as long as it lives."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)
