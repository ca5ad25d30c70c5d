"""Models that are compared in one process: what was changed, its bits, and how it is scored and stepped."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.catalog import resolve
from backend.engine.calibration import text_reader
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.quality import Shadow
from backend.engine.text import encode
from backend.metrics import Ratio, paired_ratio
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text
from benchmarks._llamacpp import LlamaCpp

WINDOW = 256
ROWS = 16  # scored at a time: (16, V) float32 is 17 MB of Gemma
STEPS, ROUNDS = 12, 12
DECODED = 256  # tokens scored one a call


@dataclass
class Contender:
    """One model and what was found of it."""

    name: str
    bits: float  # of a weight in the quantized layers, scales included
    prepared_s: float
    simulated: bool = False  # its quality is real and its speed means nothing
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    decode_kld: list[float] = field(default_factory=list)
    speed: Ratio | None = None

    @property
    def kld(self) -> float:
        """Mean nats in calls of WINDOW tokens."""
        return statistics.fmean(self.scores["kld"])

    @property
    def kld_in_decode(self) -> float:
        """Mean nats in calls of one token, where that differs."""
        return statistics.fmean(self.decode_kld) if self.decode_kld else self.kld

    def row(self, base_nats: float, others: Sequence[Contender]) -> str:
        """One line of the table; `others` are those whose lead is told."""
        kld = sorted(self.scores["kld"])
        nats = -statistics.fmean(self.scores["logp"])
        better = [other.name for other in others if other is not self and other.beats(self)]
        cells = (
            self.name,
            f"{self.bits:.2f}",
            self._speed_words(),
            f"{self.kld:.4f}",
            f"{kld[int(0.99 * (len(kld) - 1))]:.3f}",
            f"{self.kld_in_decode:.4f}" if self.decode_kld else "the same",
            f"{statistics.fmean(self.scores['top1']):.3f}",
            f"{math.exp(nats):.2f} ({math.exp(nats - base_nats):.3f}x)",
            f"{self.prepared_s:.0f}",
            ", ".join(better) or "-",
        )
        return f"| {' | '.join(cells)} |"

    def _speed_words(self) -> str:
        if self.simulated or self.speed is None:
            return "simulated" if self.simulated else ""
        return f"{self.speed.ratio:.2f} ({self.speed.low:.2f} to {self.speed.high:.2f})"

    def beats(self, other: Contender) -> bool:
        """Both faster and nearer to the baseline in decode."""
        if self.simulated or self.speed is None or other.speed is None:
            return False
        return self.speed.low > other.speed.high and self.kld_in_decode < other.kld_in_decode

    def logits(self, ids: list[int]) -> Tensor:
        """Logits (T, V) of a text that stands alone."""
        raise NotImplementedError

    def start(self, prompt: list[int]) -> None:
        """Read a prompt, for steps to follow."""
        raise NotImplementedError

    def step(self) -> None:
        """One token more."""
        raise NotImplementedError


class Ours(Contender):
    """A model of this project's loader under a recipe."""

    subject: Subject
    shape_dependent: bool

    @classmethod
    def prepared(cls, model: str, name: str, switches: dict[str, Any], scored: int, shelf: Path) -> Ours:
        """Load and change; prints what came of it.

        Args:
            scored: tokens of the text that are scored; calibration begins behind them.
            shelf: an empty folder, so that calibrations are timed and not found.
        """
        ref = resolve(model)
        subject = load(ref)
        text = held_out_text(ref).text
        subject.sample_ids = encode(subject, text[: 8 * scored])[-512:]
        subject.read_text = text_reader(subject, ref, 8 * scored)
        subject.shelf = shelf
        recipe = Recipe.read({"switches": switches})
        began = time.perf_counter()
        bits = 32.0
        for switch in recipe.pipeline:
            apply_switch(subject, switch)
            bits = float(read_back(subject, switch).facts.get("bits_per_weight", bits))
        found = cls(name, bits, time.perf_counter() - began, recipe.simulated)
        found.subject = subject
        found.shape_dependent = any(switch.shape_dependent for switch in recipe.pipeline)
        print(f"        {name}: {bits:.2f} bits a weight, prepared in {found.prepared_s:.1f} s", flush=True)
        return found

    def logits(self, ids: list[int]) -> Tensor:
        """In one call."""
        logits: Tensor = self.subject.model(
            input_ids=torch.tensor([ids], device=self.subject.device), use_cache=False
        ).logits[0]
        return logits

    def start(self, prompt: list[int]) -> None:
        """A request of its own."""
        self._decoder = Decoder(self.subject, Sampling(), seed=1)
        self._decoder.start(prompt, room=STEPS * (ROUNDS + 1) + 1)

    def step(self) -> None:
        """As in a race."""
        self._decoder.step()


class Theirs(Contender):
    """The same model as a GGUF file in llama.cpp."""

    llama: LlamaCpp
    _last: int

    @classmethod
    def prepared(cls, name: str, file: Path, parameters: int, seconds: float) -> Theirs:
        """Load a file; its bits are those of the whole file over all parameters."""
        found = cls(name, 8 * file.stat().st_size / parameters, seconds)
        found.llama = LlamaCpp(file, torch.get_num_threads(), context=max(WINDOW, 64 + STEPS * (ROUNDS + 1)))
        print(f"        {name}: {found.bits:.2f} bits a weight, written in {seconds:.1f} s", flush=True)
        return found

    def logits(self, ids: list[int]) -> Tensor:
        """In one call."""
        return torch.from_numpy(self.llama.all_logits(ids))

    def start(self, prompt: list[int]) -> None:
        """In an empty cache."""
        self.llama.forget()
        self._last = int(self.llama.logits(prompt).argmax())

    def step(self) -> None:
        """Greedy, as ours."""
        self._last = int(self.llama.logits([self._last]).argmax())


@dataclass
class Window:
    """A stretch of text as the baseline sees it."""

    ids: list[int]  # (T,)
    following: Tensor  # (T,) the token after each
    logps: Tensor  # (T, V) of the baseline
    of_token: Tensor  # (T,) of the token that follows
    first: Tensor  # (T,) the token that it ranks first

    @classmethod
    def of(cls, base: Contender, ids: list[int]) -> Window:
        """All but the last token, which only follows."""
        logps = torch.log_softmax(base.logits(ids[:-1]), dim=-1)
        following = torch.tensor(ids[1:])
        return cls(ids[:-1], following, logps, logps.gather(1, following[:, None])[:, 0], logps.argmax(-1))

    def score(self, other: Contender) -> None:
        """Add the rows' scores to a contender's; a few rows at a time, so that they stay in the caches."""
        logits = other.logits(self.ids)
        for start in range(0, len(self.ids), ROWS):
            part = slice(start, start + ROWS)
            ours = torch.log_softmax(logits[part], dim=-1)
            base = self.logps[part]
            kld = base.sub(ours).mul_(base.exp()).sum(-1).clamp_min_(0)
            other.scores["kld"] += kld.tolist()
            other.scores["top1"] += (ours.argmax(-1) == self.first[part]).float().tolist()
            other.scores["logp"] += ours.gather(1, self.following[part, None])[:, 0].tolist()


@torch.inference_mode()
def score(base: Contender, others: Sequence[Contender], ids: list[int]) -> float:
    """Score every contender on every window against the baseline; the baseline's nats a token."""
    nats: list[float] = []
    for start in range(0, len(ids) - 1, WINDOW):
        window = Window.of(base, ids[start : start + WINDOW + 1])
        nats += (-window.of_token).tolist()
        for other in others:
            window.score(other)
        print(f"        scored {start + len(window.ids)} of {len(ids) - 1} tokens", flush=True)
    return statistics.fmean(nats)


@torch.inference_mode()
def decode_apart(base: Ours, others: list[Ours], ids: list[int]) -> None:
    """KLD where every call holds one token, of those whose result hangs on that."""
    prompt, tokens = ids[:32], ids[32 : 32 + DECODED]
    logps = torch.log_softmax(base.logits(prompt + tokens)[31:-1], dim=-1)
    for other in others:
        if other.shape_dependent:
            other.decode_kld = Shadow(other.subject, prompt, len(tokens)).score(logps, tokens)["kld"]


def measure_speed(base: Contender, others: Sequence[Contender], prompt: list[int]) -> None:
    """Seconds of a few steps of every contender in turn, paired with the baseline's of the same round."""
    everyone = [base, *others]
    for one in everyone:
        one.start(prompt)
    spent: dict[str, list[float]] = defaultdict(list)
    for turn in range(ROUNDS + 1):
        for one in everyone if turn % 2 else everyone[::-1]:
            one.step()  # its weights have left the cache, and so pays the first step
            began = time.perf_counter()
            for _ in range(STEPS - 1):
                one.step()
            if turn:
                spent[one.name].append(time.perf_counter() - began)
    for one in others:
        one.speed = paired_ratio(spent[base.name], spent[one.name])
