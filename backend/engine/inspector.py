"""The inspector: what a lane does to be looked into, off every clock. Its methods are verbs of the lane.

A verb that this lane cannot answer says why in `reason` and gives nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from backend.engine.breakdown import decode_parts, prefill_parts
from backend.engine.decode import Decoder
from backend.engine.inspect import importance, ranks, sensitivity
from backend.engine.inspect.attention import attention_weights, head_facts, map_tokens, packed_map, token_texts
from backend.engine.inspect.operators import profiled
from backend.engine.inspect.outliers import find_outliers
from backend.engine.inspect.partmap import weights_by_part
from backend.engine.inspect.sensitivity import Sensitivity
from backend.engine.inspect.work import measure_work
from backend.engine.machine_peak import machine_peak
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.techniques.base import Subject

RANDOM = "its weights are random, so this would mean nothing"


class Inspector:
    """Looks into one lane."""

    def __init__(self, subject: Subject, race: Race, prompt: list[int], held_out: list[int]) -> None:
        self._subject, self._race, self._prompt, self._held_out = subject, race, prompt, held_out
        self._decoder: Decoder | None = None
        self._maps: list[Tensor] = []
        self._sensitivity: Sensitivity | None = None

    # Memory

    def weigh(self) -> dict[str, Any]:
        """Bytes that the weights of each part hold now."""
        return {"weights": weights_by_part(self._subject)}

    def read_prompt(self, tokens: int) -> dict[str, Any]:
        """Prefill, with room for so many tokens; and how large its pieces are."""
        self._decoder = Decoder(self._subject, self._race.sampling, self._race.seed)
        first = self._decoder.start(self._prompt, room=tokens)
        return {"kv_bytes": self._decoder.kv_bytes, "logits_bytes": first.logits.nbytes}

    def write_tokens(self, tokens: int) -> dict[str, Any]:
        """Decode as many tokens; the cache is let go afterwards."""
        if self._decoder is None:
            raise RuntimeError("the prompt has not been read")
        written = 1
        while written < tokens:
            written += len(self._decoder.step())
        held, self._decoder = self._decoder.kv_bytes, None
        return {"kv_bytes": held}

    # Time

    def machine(self) -> dict[str, Any]:
        """What this machine reaches with the lane's threads."""
        return machine_peak(self._subject.device)

    def part_times(self) -> dict[str, Any]:
        """Seconds by part and by layer, for decode and prefill apart, beside the work that each part must do."""
        if self._subject.device.type != "cpu":
            return {"reason": "parts are timed on a CPU only: on another device each would have to be waited for"}
        work = measure_work(self._subject, self._prompt)
        decode, prefill = decode_parts(self._subject, self._prompt), prefill_parts(self._subject, self._prompt)
        dtype = str(self._subject.model.dtype).removeprefix("torch.")
        return {"decode": decode, "prefill": prefill, "work": work, "dtype": dtype}

    def operators(self, shape: str, trace: str) -> dict[str, Any]:
        """One run under the profiler; its Chrome trace goes into the file `trace`."""
        race = self._race
        return profiled(self._subject, race.sampling, race.seed, self._prompt, shape, Path(trace))

    # Numbers

    def outliers(self) -> dict[str, Any]:
        """The inputs of every linear layer on real text, the worst first."""
        if reason := self._no_text():
            return {"reason": reason}
        return find_outliers(self._subject)

    def attention(self) -> dict[str, Any]:
        """What each head looks at on the prompt; the maps are held until `attention_map` has given the last of them."""
        if self._subject.facts.random_weights:
            return {"reason": RANDOM}
        ids = self._prompt[: map_tokens(self._subject, self._prompt)]
        self._maps = attention_weights(self._subject, ids)
        if not self._maps:
            return {"reason": f"{type(self._subject.model).__name__} does not give its attention weights away"}
        facts = [head_facts(weights) for weights in self._maps]
        by_name = {name: [one[name] for one in facts] for name in facts[0]}  # L x H each
        return {"layers": len(facts), "texts": token_texts(self._subject, ids), "of": len(self._prompt), **by_name}

    def attention_map(self, layer: int) -> dict[str, Any]:
        """One layer's maps, packed."""
        weights = self._maps[layer]
        if layer == len(self._maps) - 1:
            self._maps = []
        return {"layer": layer, "heads": weights.shape[0], "tokens": weights.shape[1], "packed": packed_map(weights)}

    def importance_texts(self) -> dict[str, Any]:
        """On how many texts head importance is measured."""
        if reason := self._no_text() or importance.why_not(self._subject):
            return {"reason": reason}
        return {"texts": len(importance.texts(self._subject.sample_ids))}

    def head_gradients(self, text: int) -> dict[str, Any]:
        """|dL / d gate| of every head on one of the texts."""
        ids = importance.texts(self._subject.sample_ids)[text]
        return {"gradients": importance.head_gradients(self._subject, ids), "tokens": len(ids)}

    def rankings(self) -> dict[str, Any]:
        """By what heads and layers can be ranked here."""
        if reason := self._no_text() or importance.why_not(self._subject):
            return {"reason": reason}
        return ranks.asked(self._subject)

    def ranking(self, part: str, by: str) -> dict[str, Any]:
        """One ranking of heads or layers; why not, where this model does not give it."""
        try:
            return {"part": part, "by": by, "scores": ranks.scores(self._subject, part, by)}
        except RecipeError as error:
            return {"part": part, "by": by, "reason": f"{error.value}: {error.allowed} is needed"}

    def sensitivity_units(self) -> dict[str, Any]:
        """What can be quantized alone: pairs of a scheme and a layer."""
        if reason := self._no_text() or sensitivity.why_not(self._subject):
            return {"reason": reason}
        self._sensitivity = Sensitivity(replace(self._subject), self._held_out)
        return {"pairs": self._sensitivity.pairs, "tokens": self._sensitivity.tokens}

    def sensitivity(self, scheme: str, unit: str) -> dict[str, Any]:
        """KLD with one layer quantized alone, simulated."""
        if self._sensitivity is None:
            raise RuntimeError("the layers have not been asked for")
        return {"scheme": scheme, "unit": unit, **self._sensitivity.measure(scheme, unit)}

    def _no_text(self) -> str:
        if self._subject.facts.random_weights:
            return RANDOM
        return "" if self._subject.sample_ids else "there is no text to run it on"
