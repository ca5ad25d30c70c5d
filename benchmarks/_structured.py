"""Heads, neurons, layers and width that go: every ranking against chance, what it does to speed, and layer by layer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch

from backend.catalog import resolve
from backend.cloze import cloze_items
from backend.engine.answers import answer_questions, finds_last_word
from backend.engine.breakdown import decode_parts
from backend.engine.load import load
from backend.engine.memory import module_parameters
from backend.engine.text import encode
from backend.metrics import paired_ratio
from backend.recipe.recipe import Recipe
from backend.recipe.switches.layers import DropLayers
from backend.techniques.base import Subject
from backend.techniques.registry import apply_switch, read_back
from backend.texts import held_out_text
from benchmarks._bench import ENGLISH, STORY, Bench
from benchmarks._contenders import Ours, Window, measure_speed

RATIO = 0.3
NOTHING_LOST = 0.01  # nats: where even the norm of weights loses no more, there is nothing to tell rankings apart by
SEEDS = (0, 1, 2)  # chance is a mean over these
WINDOW = 256
ROUNDS = 5  # of a step taken apart by part
ITEMS = 60  # last words, or questions
HEADS = ("output", "activation", "taylor", "entropy", "ablation", "weights")
NEURONS = ("output", "activation", "taylor", "weights")
LAYERS = ("cosine", "angular")
WIDTH = ("activation", "weights")
RANKED = (
    "| what goes | ranking | KLD | KLD of chance | over chance | top-1 | perplexity |",
    f"|{' --- |' * 7}",
)
DROPPED = ("| layers that went | KLD | top-1 | top-5 | perplexity | right |", f"|{' --- |' * 6}")


@dataclass
class Text:
    """A model as it is and the text on which what becomes of it is scored."""

    name: str
    base: Ours
    windows: list[Window]
    nats: float

    @classmethod
    def of(cls, model: str, tokens: int) -> Text:
        """Load, and hold the log-probabilities of `tokens` tokens."""
        ref = resolve(model)
        subject, text = load(ref), held_out_text(ref).text
        ids = encode(subject, text[: 8 * tokens])
        subject.sample_ids = ids[-512:]
        base = Ours("fp32", 32.0, 0.0)
        base.subject = subject
        with torch.inference_mode():
            starts = range(0, tokens - 1, WINDOW)
            windows = [Window.of(base, ids[:tokens][start : start + WINDOW + 1]) for start in starts]
        nats = -statistics.fmean(float(one) for window in windows for one in window.of_token)
        return cls(model, base, windows, nats)

    def cut(self, name: str, switches: dict[str, Any]) -> Ours:
        """A copy under a recipe, with what it says of itself."""
        found = Ours(name, 32.0, 0.0)
        found.subject = replace(self.base.subject, model=deepcopy(self.base.subject.model), notes={})
        for switch in Recipe.read({"switches": switches}).pipeline:
            apply_switch(found.subject, switch)
            print(f"        {name}: {read_back(found.subject, switch).summary}", flush=True)
        return found

    @torch.inference_mode()
    def score(self, one: Ours) -> None:
        """On every window."""
        for window in self.windows:
            window.score(one)

    def scored(self, name: str, switches: dict[str, Any]) -> Ours:
        """Cut and scored; its model is let go."""
        one = self.cut(name, switches)
        self.score(one)
        del one.subject
        return one


def rankings_section(bench: Bench, text: Text) -> str:
    """Every ranking at 30% beside chance; checks that the best is worth having."""
    lines = list(RANKED)
    for part, kind, fields, rankings in _parts(text.base.subject):
        chance = [text.scored(f"{part} by chance", {kind: fields | {"by": "random", "seed": n}}) for n in SEEDS]
        random = statistics.fmean(one.kld for one in chance)
        found = {by: text.scored(f"{part} by {by}", {kind: fields | {"by": by}}) for by in rankings}
        lines += [_ranked(text, part, by, one, random) for by, one in found.items()]
        if part == "heads":
            again = {kind: fields | {"by": "output", "at_a_time": 1}}
            found["output, one at a time"] = one = text.scored("heads by output, one at a time", again)
            lines.append(_ranked(text, part, "output, one at a time", one, random))
        if part in ("heads", "neurons") and found["weights"].kld > NOTHING_LOST:
            best = min((by for by in found if by != "weights"), key=lambda by: found[by].kld)
            name = f"{text.name}, {part}, {best}: KLD over that of"
            bench.check(f"{name} chance", found[best].kld / random, at_most=0.5)
            bench.check(f"{name} weights", found[best].kld / found["weights"].kld, at_most=1.0)
    about = f"{RATIO:.0%} of each part, chance a mean over {len(SEEDS)} seeds; heads by one ranking over all layers."
    return f"### {text.name}: rankings\n\n{about}\n\n" + "\n".join(lines)


def _parts(subject: Subject) -> Iterator[tuple[str, str, dict[str, Any], tuple[str, ...]]]:
    yield "heads", "prune_heads", {"ratio": RATIO, "scope": "global"}, HEADS
    yield "neurons", "prune_neurons", {"ratio": RATIO}, NEURONS
    count = max(1, round(RATIO * subject.facts.layers / 2))
    yield f"{count} layers", "drop_layers", {"count": count}, LAYERS
    if count > 1:
        yield f"a block of {count} layers", "drop_layers", {"count": count, "pattern": "block"}, LAYERS
    yield "10% of the width", "prune_width", {"ratio": 0.1}, WIDTH


def _ranked(text: Text, part: str, by: str, one: Ours, random: float) -> str:
    top1, worse = statistics.fmean(one.scores["top1"]), _perplexity(text, one)
    cells = (part, by, f"{one.kld:.4f}", f"{random:.4f}", f"{one.kld / random:.2f}", f"{top1:.3f}", f"{worse:.3f}x")
    return f"| {' | '.join(cells)} |"


def _perplexity(text: Text, one: Ours) -> float:
    return math.exp(min(50.0, -statistics.fmean(one.scores["logp"]) - text.nats))


def speed_section(bench: Bench, text: Text) -> str:
    """30% of heads and neurons: parameters really gone, decode, and the feed-forward part alone."""
    prompt = encode(text.base.subject, STORY if text.name == "storyteller" else ENGLISH)
    heads, neurons = {"ratio": RATIO, "scope": "global"}, {"ratio": RATIO}
    both = text.cut("heads and neurons", {"prune_heads": heads, "prune_neurons": neurons})
    alone = text.cut("neurons", {"prune_neurons": neurons})
    measure_speed(text.base, [both, alone], prompt)
    before, after = (_counts(one.subject) for one in (text.base, both))
    lines = ["| part | parameters before | after | gone |", f"|{' --- |' * 4}"]
    for part, count in before.items():
        gone = 1 - after[part] / count
        lines.append(f"| {part} | {count:,} | {after[part]:,} | {gone:.1%} |")
        if part != "all":
            bench.check(f"{text.name}, {part}: share off from what was asked", abs(gone - RATIO), at_most=0.01)
    feed = _feed_forward(text.base.subject, alone.subject, prompt)
    for one in (both, alone):
        if one.speed:
            bench.show(f"{text.name}, {one.name}: decode", one.speed)
    bench.show(f"{text.name}, neurons: the feed-forward part of decode", feed)
    if text.name == "storyteller" and both.speed:
        bench.check(f"{text.name}: decode with 30% fewer heads and neurons", both.speed.ratio, at_least=1.25)
    if text.name == "gemma":
        bench.check(f"{text.name}: its feed-forward part with 30% fewer neurons", feed.ratio, at_least=1.25)
    told = [
        f"{one.name} {one.speed.ratio:.2f} ({one.speed.low:.2f} to {one.speed.high:.2f})"
        for one in (both, alone)
        if one.speed
    ]
    told.append(f"the feed-forward part alone {feed.ratio:.2f} ({feed.low:.2f} to {feed.high:.2f})")
    return f"### {text.name}: {RATIO:.0%} of heads and neurons\n\nDecode: {'; '.join(told)}.\n\n" + "\n".join(lines)


def _counts(subject: Subject) -> dict[str, int]:
    """Numbers in the matrices that were cut: of a single KV head's keys and values nothing goes."""
    attention = ("q_proj", "o_proj") if subject.facts.kv_heads == 1 else ("q_proj", "k_proj", "v_proj", "o_proj")
    leaves = {"attention": attention, "feed-forward": ("gate_proj", "up_proj", "down_proj")}
    named = dict(subject.model.named_parameters())
    found = {
        part: sum(one.numel() for name, one in named.items() if name.split(".")[-2] in own)
        for part, own in leaves.items()
    }
    return found | {"all": module_parameters(subject.model)}


def _feed_forward(base: Subject, other: Subject, prompt: list[int]) -> Any:
    """The paired ratio of seconds in feed-forward blocks, a step taken apart by part in turn."""
    spent: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(ROUNDS):
        for place in (0, 1) if turn % 2 else (1, 0):
            parts = decode_parts((base, other)[place], prompt)["parts"]
            spent[place].append(float(parts["feed_forward"]))
    return paired_ratio(spent[0], spent[1])


def layers_section(bench: Bench, text: Text) -> str:
    """One layer after the other by Block Influence: a metric that hardly moves beside one that falls."""
    lines, base = list(DROPPED), text.base
    right = _right(base.subject)
    lines.append(f"| none | 0 | 1 | 1 | 1x | {right:.1%} |")
    apart: list[float] = []  # by how much more of its value one metric lost than another
    for count in range(1, 1 + text.base.subject.facts.layers // 3):
        one = text.cut(f"{count} layers", {"drop_layers": {"count": count}})
        text.score(one)
        gone = ", ".join(map(str, one.subject.notes[DropLayers.kind]["dropped"]))
        now, top1, top5 = _right(one.subject), statistics.fmean(one.scores["top1"]), _top5(text, one)
        figures = f"{one.kld:.4f} | {top1:.3f} | {top5:.3f} | {_perplexity(text, one):.3f}x"
        lines.append(f"| {gone} | {figures} | {now:.1%} |")
        shares = (top1, top5, now / right if right else 0.0)
        apart.append(max(shares) - min(shares))
    if text.name == "gemma":
        bench.check(f"{text.name}, layers: shares kept by two metrics differ by", max(apart), at_least=0.2)
    about = "'Right': last words found, or questions answered. The other figures are of held-out text in one call."
    return f"### {text.name}: whole layers\n\n{about}\n\n" + "\n".join(lines)


@torch.inference_mode()
def _top5(text: Text, one: Ours) -> float:
    """The share of the baseline's first choices that are among the five likeliest."""
    shares = []
    for window in text.windows:
        five = one.logits(window.ids).topk(5, dim=-1).indices
        shares += (five == window.first[:, None]).any(-1).float().tolist()
    return statistics.fmean(shares)


def _right(subject: Subject) -> float:
    """The share of questions or last words that are right."""
    ref = resolve(subject.facts.name)
    if ref.tells_stories:
        return float(answer_questions(subject, ITEMS)["right"]) / ITEMS
    items = cloze_items(held_out_text(ref).text, ITEMS)
    return sum(finds_last_word(subject, item) for item in items) / max(1, len(items))
