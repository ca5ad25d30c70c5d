"""Ways to guess beside each other on one live model, request by request in turn, and the library's own beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from backend.catalog import resolve
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.speculate import Speculation
from backend.engine.text import encode
from backend.metrics import Ratio, paired_ratio
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.speculation import facts_of_drafting
from backend.techniques.base import DecodePlan, Subject
from backend.techniques.registry import apply_switch
from backend.texts import held_out_text

HEAD = (
    "| who guesses | times plain | tokens a round | kept by place, % | guessing | predicted | break-even | equal |",
    f"| --- |{' ---: |' * 7}",
)
SAMPLE = 512  # tokens of text by which layers may be ranked


@dataclass
class Way:
    """One way to decode a request: what it takes, the text it gives, and what its guesses came to."""

    name: str
    request: Callable[[], tuple[list[int], Speculation | None]]
    seconds: list[float] = field(default_factory=list)
    text: list[int] = field(default_factory=list)
    counts: Speculation | None = None

    def run(self, counted: bool) -> None:
        """One request; one that is not counted warms up."""
        started = time.perf_counter()
        self.text, self.counts = self.request()
        if counted:
            self.seconds.append(time.perf_counter() - started)

    def over(self, other: Way) -> Ratio:
        """How many times as fast as the other, requests in pairs."""
        return paired_ratio(other.seconds, self.seconds)


class Field:
    """A model, a prompt, and the ways that compete on it; `plain` is the first."""

    def __init__(self, model: str, prompt: str, tokens: int, sampling: Sampling | None = None) -> None:
        ref = resolve(model)
        self.subject = load(ref)
        self.subject.sample_ids = encode(self.subject, held_out_text(ref).text[: 8 * SAMPLE])[-SAMPLE:]
        self.subject.load_other = lambda name: load(resolve(name))
        self.name = model
        self.tokens = tokens
        self._ids = encode(self.subject, prompt)
        self._sampling = sampling or Sampling()
        self.ways: list[Way] = [Way("plain", lambda: self._decode(self.subject))]

    def add(self, switches: dict[str, Any]) -> Way:
        """A way by its recipe; the model's weights are shared, the plan is its own."""
        subject = replace(self.subject, plan=DecodePlan(), notes={})
        recipe = Recipe.read({"switches": switches})
        for switch in recipe.pipeline:
            apply_switch(subject, switch)
        self.ways.append(Way(recipe.label, lambda: self._decode(subject)))
        return self.ways[-1]

    def add_generate(self, name: str, **options: Any) -> Way:
        """The library's `generate` on the same model, greedy."""
        self.ways.append(Way(name, lambda: self._generate(options)))
        return self.ways[-1]

    def race(self, rounds: int) -> None:
        """All ways in turn, in an order that turns too; the first round warms up, and a pace learns in it."""
        for turn in range(rounds + 1):
            shift = turn % len(self.ways)
            for way in self.ways[shift:] + self.ways[:shift]:
                way.run(counted=turn > 0)

    def table(self) -> str:
        """Every way as a row of Markdown."""
        plain = self.ways[0]
        step_s = sum(plain.seconds) / len(plain.seconds) / self.tokens
        return "\n".join([*HEAD, *(_row(way, plain, step_s) for way in self.ways[1:])])

    def _decode(self, subject: Subject) -> tuple[list[int], Speculation | None]:
        decoder = Decoder(subject, self._sampling, seed=1)
        decoder.start(self._ids, self.tokens)
        while len(decoder.ids) < len(self._ids) + self.tokens:
            decoder.step()
        return decoder.ids[len(self._ids) :], decoder.speculation

    @torch.inference_mode()
    def _generate(self, options: dict[str, Any]) -> tuple[list[int], None]:
        ids = torch.tensor([self._ids], device=self.subject.device)
        many = {"max_new_tokens": self.tokens, "min_new_tokens": self.tokens}
        made: Any = self.subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, **many, **options
        )
        return made[0, len(self._ids) :].tolist(), None


def _row(way: Way, plain: Way, step_s: float) -> str:
    ratio = way.over(plain)
    speed = f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    same = sum(ours == theirs for ours, theirs in zip(way.text, plain.text, strict=False))
    return "| " + " | ".join([way.name, speed, *_guesses(way.counts, step_s), f"{same} of {len(plain.text)}"]) + " |"


def _guesses(counts: Speculation | None, step_s: float) -> Sequence[str]:
    """Five cells, empty where nothing is known of the guesses."""
    if counts is None or not counts.drafted:
        return [""] * 5
    facts = facts_of_drafting(counts.as_dict(), step_s)
    return [
        f"{facts['mean_acceptance_length']:.2f}",
        " ".join(f"{100 * kept:.0f}" for kept in facts["by_place"]),
        f"{facts['draft_cost_share']:.0%}",
        f"{facts['speedup_predicted']:.2f}",
        f"{facts['break_even']:.0%} (was {facts['alpha']:.0%})",
    ]
