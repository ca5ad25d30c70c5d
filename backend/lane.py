"""The lane: one process, one model, one recipe. It answers the worker's verbs until it is told to leave.

A verb is a method of `Lane`; it returns plain data. Whatever is counted on the lane clock is measured here, around
the decoder's own calls and nothing else: scoring, text, memory readings and messages stay off it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from backend.catalog import resolve
from backend.engine.calibration import give_text
from backend.engine.change import change, load_for
from backend.engine.contexts import Contexts
from backend.engine.decode import Decoder, Emission
from backend.engine.inspect.work import matrix_shape
from backend.engine.inspector import Inspector
from backend.engine.marker import Marker
from backend.engine.memory import MemoryMeter, device_memory, module_parameters, settle
from backend.engine.receipt import receipt
from backend.engine.ring import Ring
from backend.engine.routes import Routes
from backend.engine.server import Server
from backend.engine.stopwatch import Stopwatch
from backend.engine.text import Pieces, encode
from backend.engine.thinner import Thinner
from backend.engine.timeline import Timeline
from backend.engine.witness import witness
from backend.recipe.race import Race
from backend.sources import source_code
from backend.techniques.base import Subject
from backend.techniques.quantize.counting import weight_bytes
from backend.texts import held_out_text

Progress = Callable[[float, str], None]


class Lane:
    """One model under one recipe, and what it has done so far."""

    def __init__(self, name: str, spec: dict[str, Any], progress: Progress) -> None:
        self.meter = MemoryMeter()
        self.race = Race.read(spec)
        self.recipe = dict(self.race.lanes)[name]
        self.name = name
        self._progress = progress
        self._decoder: Decoder | None = None
        self._timeline = Timeline(self.meter)
        self._doers: list[object] = [self._timeline]

    def answer(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do what a verb says: one of the lane's own, or of one who works in it."""
        doer = next(doer for doer in (self, *self._doers) if hasattr(type(doer), verb))
        return dict(getattr(doer, verb)(**arguments))

    # Getting ready

    def load(self) -> dict[str, Any]:
        """Load the model, encode the prompt."""
        ref = resolve(self.race.model, self.race.revision)
        self.subject: Subject = load_for(self.race, self.recipe, ref, self._progress)
        self.prompt = encode(self.subject, self.race.prompt)
        self.subject.longest = len(self.prompt) + self.race.max_new_tokens
        text = held_out_text(ref)
        scored = 8 * max(4096, self.race.measure.quality_tokens)  # characters
        held_out = encode(self.subject, text.text[:scored])
        self.subject.sample_ids = held_out[-512:]
        give_text(self.subject, ref, scored)
        self.marker = Marker(self.subject, self.race, self.prompt, held_out, text, storyteller=ref.tells_stories)
        self.stopwatch = Stopwatch(self.subject, self.race, self.prompt, held_out, self.meter)
        if self.race.measure.budget_s:
            self.subject.longest = max(self.subject.longest, self.stopwatch.longest)
        inspector = Inspector(self.subject, self.race, self.prompt, held_out)
        others = [Thinner(self.subject, held_out), Contexts(self.subject, held_out, self.meter)]
        server = Server(self.subject, self.name, held_out, self.stopwatch.wake)
        self._doers = [self.marker, self.stopwatch, self._timeline, inspector, *others, server]
        return {
            "parameters": module_parameters(self.subject.model),
            "prompt_tokens": len(self.prompt),
            "vocab": matrix_shape(self.subject.model.get_output_embeddings())[1],
            "context": self.subject.facts.context,
            "scored": not self.subject.facts.random_weights,
            "facts": asdict(self.subject.facts),
        }

    def transform(self) -> dict[str, Any]:
        """Apply the recipe."""
        change(self.subject, self.recipe, self._progress, self.meter)
        return {}

    def warm(self, ring: str | None, vocab: int) -> dict[str, Any]:
        """Run a few tokens so that kernels and caches are warm; read a first receipt, of a model that is at rest."""
        if ring:
            self.marker.ring = Ring(ring, vocab)
        decoder = self._warm_decoder()
        settle()
        return {
            "label": self.recipe.label,
            "parameters": module_parameters(self.subject.model),
            "receipt": receipt(self.subject, self.recipe),
            "memory": self.memory(decoder),
        }

    def witness(self) -> dict[str, Any]:
        """Watch some tokens run, and read the receipt again with what was seen."""
        self.subject.run = witness(self.subject, self._warm_decoder(), self.prompt)
        return {"receipt": receipt(self.subject, self.recipe)}

    def _warm_decoder(self) -> Decoder:
        decoder = self._new_decoder()
        decoder.start(self.prompt, room=8)
        for _ in range(4):
            decoder.step()
        return decoder

    def _new_decoder(self) -> Decoder:
        return Decoder(self.subject, self.race.sampling, self.race.seed)

    # The race

    def slice(self, budget_s: float) -> dict[str, Any]:
        """Compute for about `budget_s` on the lane clock, a step at least; the first slice begins with the prefill."""
        most = self.marker.ring.rows if self.marker.ring else 64
        self.meter.start_peak()
        emitted: list[Emission] = []
        clocks: list[float] = []
        self.stopwatch.wake()
        if self._decoder is None:
            self._begin()
            emitted, self.clock = self._timed(lambda: [self.decoder.start(self.prompt, self.race.max_new_tokens)])
            clocks = [self.clock]
            self._routes.read_prompt()
        deadline = self.clock + budget_s
        while self.clock < deadline and self._left(emitted) > 0:
            if len(emitted) + self._round > most:
                break
            step, spent = self._timed(self.decoder.step)
            self.clock += spent
            self._routes.read_step(len(step))
            step = self._until_end(step)[: self._left(emitted)]
            emitted += step
            clocks += [self.clock] * len(step)
        return self._report(emitted, clocks)

    @property
    def decoder(self) -> Decoder:
        """The race's decoder, once the first slice has begun."""
        if self._decoder is None:
            raise RuntimeError("the race has not begun in this lane")
        return self._decoder

    def _begin(self) -> None:
        self._decoder = self._new_decoder()
        self._pieces = Pieces(self.subject, self.prompt)
        self._routes = Routes(self.subject.model)
        self._emitted = 0
        self.clock = 0.0
        proposer = self.subject.plan.proposer
        self._round = 1 + proposer.width if proposer else 1
        self._source = proposer.source if proposer else ""

    def _timed(self, work: Callable[[], list[Emission]]) -> tuple[list[Emission], float]:
        started = time.perf_counter()
        emitted = work()  # token ids are read on the host, so an asynchronous device has been waited for
        return emitted, time.perf_counter() - started

    def _until_end(self, step: list[Emission]) -> list[Emission]:
        """A round's tokens up to the end-of-text token, where the race stops at it."""
        if not self.race.stop_at_end:
            return step
        ends = (place for place, emission in enumerate(step, 1) if emission.token in self._ends)
        return step[: next(ends, len(step))]

    def _left(self, emitted: list[Emission]) -> int:
        if self.race.stop_at_end and emitted and emitted[-1].token in self._ends:
            return 0
        return self.race.max_new_tokens - self._emitted - len(emitted)

    @property
    def _ends(self) -> set[int]:
        end = self.subject.model.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else {end}

    def _report(self, emitted: list[Emission], clocks: list[float]) -> dict[str, Any]:
        """What the slice gave, as plain data; the baseline's rows go into the ring. Off the clock."""
        left = self._left(emitted)
        start = self._emitted
        if self.name == "base" and self.marker.ring:
            for row, emission in enumerate(emitted):
                self.marker.ring.write(row, emission.logits)
        self._emitted += len(emitted)
        texts = [self._pieces.add(e.token) for e in emitted]
        if left <= 0 and texts:
            texts[-1] += self._pieces.flush()
        reply: dict[str, Any] = {
            "clock": self.clock,
            "finished": left <= 0,
            "tokens": {
                "start": start,
                "ids": [e.token for e in emitted],
                "texts": texts,
                "clock": clocks,
                "drafted": [source_code(self._source) if e.drafted else 0 for e in emitted],
            },
            "memory": self.memory(self.decoder),
        }
        if self._routes:
            reply["routing"] = self._routes.told()
        if self.decoder.speculation:
            reply["speculation"] = self.decoder.speculation.as_dict()
        return reply

    def memory(self, decoder: Decoder) -> dict[str, Any]:
        """Weights, KV cache and the rest of what is resident, and the peak on the clock; in bytes."""
        shadow = self.marker.kv_bytes
        weights, kv = weight_bytes(self.subject.model), decoder.kv_bytes
        if self.subject.plan.proposer:
            weights += getattr(self.subject.plan.proposer, "weights_bytes", 0)
            kv += getattr(self.subject.plan.proposer, "kv_bytes", 0)
        resident = self.meter.resident_bytes - shadow
        device = device_memory(self.subject.device)
        return {
            "weights_bytes": weights,
            "kv_bytes": kv,
            "other_bytes": max(0, resident - weights - kv) if device is None else 0,
            "resident_bytes": resident,
            "peak_bytes": self.meter.note_peak(uncounted=shadow),
            "device": device,
        }

    def again(self) -> dict[str, Any]:
        """Forget the race so far, to run the same one again."""
        self._decoder = None
        return self.marker.release()
