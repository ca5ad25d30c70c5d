"""The marker: everything about quality that a lane does off its clock."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from backend.cloze import Cloze, cloze_items
from backend.engine.answers import answer_questions, finds_last_word, perplexity, text_overlap
from backend.engine.quality import Shadow, compare, prompt_logits, protocol, window_loss, windows
from backend.engine.ring import Ring
from backend.engine.worst import Worst, told
from backend.recipe.race import Race
from backend.techniques.base import Subject
from backend.texts import HeldOut

ASKED_AT_A_TIME = 4  # last words: some seconds on a large model, so that progress moves


class Marker:
    """Scores one lane against the baseline, on held-out text and on questions. Its methods are verbs of the lane."""

    def __init__(
        self, subject: Subject, race: Race, prompt: list[int], held_out: list[int], text: HeldOut, storyteller: bool
    ) -> None:
        self._subject, self._race, self._prompt = subject, race, prompt
        self._held_out, self._text, self._storyteller = held_out, text, storyteller
        self.ring: Ring | None = None
        self._shadow: Shadow | None = None
        self._held_rows: Tensor | None = None  # (n, V) logits of the prompt while they are compared
        self._sums: list[float] = []  # nats a window of held-out text
        self._counts: list[int] = []
        self._worst: dict[str, Worst] = {}  # by shape
        self._items: list[Cloze] | None = None
        self._marks: list[int] = []  # 1 for each last word that was found

    @property
    def _rows(self) -> Ring:
        if self.ring is None:
            raise RuntimeError("this race is not scored: there is no ring")
        return self.ring

    @property
    def _held(self) -> Tensor:
        if self._held_rows is None:
            raise RuntimeError("the prompt's rows are not held")
        return self._held_rows

    @property
    def kv_bytes(self) -> int:
        """Bytes of the second KV cache, which are not the lane's own memory."""
        return self._shadow.kv_bytes if self._shadow else 0

    def score(self, tokens: list[int]) -> dict[str, Any]:
        """Score the baseline's latest tokens, whose rows stand in the ring, in the shapes of decoding."""
        if self._shadow is None:
            self._shadow = Shadow(self._subject, self._prompt, self._race.max_new_tokens)
            self._worst["decode"] = Worst(self._prompt, place=0)
        return self._shadow.score(self._rows.read(0, len(tokens)), tokens, self._worst["decode"])

    def hold_prompt(self) -> dict[str, Any]:
        """Compute the prompt's logits in one call, as prefill does, and hold them for the comparison."""
        self._held_rows = prompt_logits(self._subject, self._prompt)
        return {"rows": len(self._held_rows), "ring_rows": self._rows.rows}

    def publish_prompt(self, start: int, count: int) -> dict[str, Any]:
        """The baseline puts rows of the prompt into the ring."""
        for row, logits in enumerate(self._held[start : start + count]):
            self._rows.write(row, logits)
        return {}

    def score_prompt(self, start: int, count: int) -> dict[str, Any]:
        """A variant compares its own rows of the prompt with those in the ring."""
        rows = self._held[start : start + count]
        first = len(self._prompt) - len(self._held) + start
        if start == 0:
            self._worst["prefill"] = Worst(self._prompt[:first], place=first)
        return compare(self._rows.read(0, count), rows, self._prompt[first : first + count], self._worst["prefill"])

    def worst(self) -> dict[str, Any]:
        """The places with the highest KLD by shape, the worst first; they are given out once."""
        kept, self._worst = self._worst, {}
        return {shape: [told(self._subject, spot) for spot in worst.spots] for shape, worst in kept.items()}

    def release(self) -> dict[str, Any]:
        """Let go of what only scoring needed."""
        self._held_rows = self._shadow = None
        return {}

    def perplexity(self) -> dict[str, Any]:
        """Read one more window of held-out text; `total` 0 where there is too little text for one."""
        parts = list(windows(self._held_out, self._race.measure.quality_tokens, self._subject.opening))
        if len(self._sums) < len(parts):
            nll, tokens = window_loss(self._subject, parts[len(self._sums)])
            self._sums.append(nll)
            self._counts.append(tokens)
        return {
            "done": len(self._sums),
            "total": len(parts),
            "sums": self._sums,
            "counts": self._counts,
            "value": perplexity(self._sums, self._counts) if self._sums else None,
            "protocol": protocol(self._text.source, sum(self._counts)),
        }

    def answers(self) -> dict[str, Any]:
        """Answer questions on held-out stories; empty for models that are not storytellers."""
        if not self._storyteller or not self._race.measure.questions:
            return {}
        return answer_questions(self._subject, self._race.measure.questions)

    def cloze(self) -> dict[str, Any]:
        """Ask for a few more last words of real text; `total` is 0 for storytellers, who answer questions instead."""
        if self._items is None:
            asked = 0 if self._storyteller else self._race.measure.questions
            self._items = cloze_items(self._text.text, asked) if asked else []
        done = len(self._marks)
        part = self._items[done : done + ASKED_AT_A_TIME]
        self._marks += [int(finds_last_word(self._subject, item)) for item in part]
        return {
            "done": len(self._marks),
            "total": len(self._items),
            "right": sum(self._marks),
            "asked": len(self._marks),
            "marks": self._marks,
            "protocol": f"last word of {len(self._items)} passages of {self._text.source}, greedy, one call a passage",
        }

    def overlap(self, texts: dict[str, list[str]]) -> dict[str, Any]:
        """ROUGE-L of each (baseline, variant) pair of texts."""
        return {name: text_overlap(*pair) for name, pair in texts.items()}
