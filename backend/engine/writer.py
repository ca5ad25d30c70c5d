"""What of a request's tokens may be shown: whole characters, and nothing of a stop string."""

from __future__ import annotations

from torch import Tensor

from backend.engine.text import Pieces
from backend.engine.tokenbytes import TokenBytes
from backend.serving.stops import Stops
from backend.serving.talk import Alternative, Ask, Said, Scored
from backend.techniques.base import Subject


class Writer:
    """One request's answer as it grows. All that it gives out joins to the text before the first stop string."""

    def __init__(self, subject: Subject, prompt: list[int], ask: Ask, names: TokenBytes) -> None:
        self.tokens = 0  # written, the end-of-text token included
        self._id = ask.id
        self._top = ask.logprobs
        self._pieces = Pieces(subject, prompt)
        self._stops = Stops(ask.stop)
        self._names = names
        self._length = 0  # characters so far, held ones included
        self._shown = 0
        self._untold = 0  # tokens since something was last said
        self._scored: list[Scored] = []  # of tokens whose text has not been shown

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._stops.found

    def add(self, token: int, logits: Tensor | None) -> Said | None:
        """Take a token and the logits (V,) it was chosen from; returns what can be shown now."""
        self.tokens += 1
        self._untold += 1
        if self._top is not None and logits is not None:
            self._scored.append(self._score(token, logits, self._top))
        return self._say(self._show(self._pieces.add(token)))

    def end(self, token: int | None = None) -> Said | None:
        """No more tokens come; `token` was one that ends a text and has none of its own. Returns what still waited."""
        if token is not None:
            self.tokens += 1
            self._untold += 1
        text = self._show(self._pieces.flush())
        if not self.stopped:
            text += self._stops.flush()
            self._length += 1  # so that tokens with no text at the very end are told as well
        return self._say(text, last=True)

    def _show(self, piece: str) -> str:
        self._length += len(piece)
        return self._stops.add(piece)

    def _say(self, text: str, last: bool = False) -> Said | None:
        self._shown += len(text)
        if not text and not (last and (self._untold or self._scored)):
            return None
        until = self._shown if self.stopped or not last else self._length
        told = tuple(entry for entry in self._scored if entry.offset < until)
        self._scored = self._scored[len(told) :]
        said = Said(self._id, text, self._untold, told)
        self._untold = 0
        return said

    def _score(self, token: int, logits: Tensor, top: int) -> Scored:
        logprobs = logits.float().log_softmax(-1)
        best = logprobs.topk(min(top, len(logprobs))) if top else None
        others = () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        chosen = self._alternative(token, float(logprobs[token]))
        return Scored(chosen, self._length, tuple(self._alternative(*other) for other in others))

    def _alternative(self, token: int, logprob: float) -> Alternative:
        data = self._names.of(token)
        return Alternative(data.decode(errors="replace"), data, logprob)
