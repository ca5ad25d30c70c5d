"""The encoder's lane: one process, one encoder, one recipe. It answers the worker's verbs like a decoder's lane.

What is measured is timed around the model's own calls: tokens go in, unit vectors come out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from backend.catalog import resolve
from backend.engine.calibration import give_text
from backend.engine.change import change, load_for
from backend.engine.encode import Batch, embed, embed_all, groups, make_batch, timed
from backend.engine.encodingreceipt import encoder_receipt, watch
from backend.engine.memory import MemoryMeter, device_memory, module_parameters, settle
from backend.engine.text import encode
from backend.packedvectors import packed
from backend.recipe.race import Race
from backend.sentences import own_sentences
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.texts import held_out_text

Progress = Callable[[float, str], None]
SAMPLE_TOKENS = 256  # of the text that pruning looks at; every encoder's context holds them
SAMPLE_CHARACTERS = 8 * SAMPLE_TOKENS


class EncoderLane:
    """One encoder under one recipe."""

    def __init__(self, name: str, spec: dict[str, Any], progress: Progress) -> None:
        self.meter = MemoryMeter()
        self.race = Race.read(spec)
        self.recipe = dict(self.race.lanes)[name]
        self._progress = progress
        self._batches: dict[tuple[int, int], list[Batch]] = {}

    def answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do what a verb says."""
        return dict(getattr(self, verb)(**arguments))

    def load(self) -> dict[str, Any]:
        """Load the model."""
        ref = resolve(self.race.model, self.race.revision)
        self.subject: Subject = load_for(self.race, self.recipe, ref, self._progress)
        text = held_out_text(ref).text[:SAMPLE_CHARACTERS]
        self.subject.sample_ids = encode(self.subject, text)[:SAMPLE_TOKENS]
        give_text(self.subject, ref, SAMPLE_CHARACTERS)
        return {
            "parameters": module_parameters(self.subject.model),
            "scored": not self.subject.facts.random_weights,
            "facts": asdict(self.subject.facts),
        }

    def transform(self) -> dict[str, Any]:
        """Apply the recipe."""
        change(self.subject, self.recipe, self._progress, self.meter)
        return {}

    def warm(self, size: int) -> dict[str, Any]:
        """Encode a batch so that kernels are warm; read a first receipt, of a model that is at rest."""
        embed(self.subject, make_batch(self.subject, own_sentences().sentences[:size]))
        settle()
        return {
            "label": self.recipe.label,
            "parameters": module_parameters(self.subject.model),
            "receipt": encoder_receipt(self.subject, self.recipe),
            "memory": self.memory(),
        }

    def witness(self, size: int) -> dict[str, Any]:
        """Watch a batch being encoded, and read the receipt again with what was seen."""
        self.subject.run = watch(self.subject, make_batch(self.subject, own_sentences().sentences[:size]))
        return {"receipt": encoder_receipt(self.subject, self.recipe)}

    def encode(self, size: int, count: int) -> dict[str, Any]:
        """Encode the first `count` sentences in calls of `size`, after one call off the clock.

        The other lane has had its turn meanwhile, and a small model's weights have left the processor's caches.
        """
        batches = self._made(size, count)
        embed(self.subject, batches[0])
        gc.collect()  # what other verbs left behind must not be collected on the clock
        self.meter.start_peak()
        spent = timed(self.subject, batches)
        tokens = sum(batch.tokens for batch in batches)
        return {
            "size": size,
            "sentences": count,
            "tokens": tokens,
            "call_s": spent,
            "peak_bytes": self.meter.note_peak(),
        }

    def _made(self, size: int, count: int) -> list[Batch]:
        key = (size, count)
        if key not in self._batches:
            sentences = own_sentences().sentences[:count]
            self._batches[key] = [make_batch(self.subject, group) for group in groups(sentences, size)]
        return self._batches[key]

    def vectors(self, size: int) -> dict[str, Any]:
        """Vectors of all texts that are compared, in calls of `size`: activations may be scaled by the call."""
        return packed(embed_all(self.subject, own_sentences().texts, size))

    def query(self) -> dict[str, Any]:
        """The vector of the race's own text."""
        return packed(embed_all(self.subject, [self.race.prompt], 1))

    def memory(self) -> dict[str, Any]:
        """Weights and the rest of what is resident; in bytes. An encoder has no cache."""
        weights, resident = weight_bytes(self.subject.model), self.meter.resident_bytes
        device = device_memory(self.subject.device)
        return {
            "weights_bytes": weights,
            "kv_bytes": 0,
            "other_bytes": max(0, resident - weights) if device is None else 0,
            "resident_bytes": resident,
            "peak_bytes": self.meter.note_peak(),
            "device": device,
        }
