"""Stop strings in a text that comes in pieces, wherever the pieces begin and end."""

from __future__ import annotations


class Stops:
    """Lets text through up to the first stop string; what could be the beginning of one waits for what follows."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.found = False
        self._stops = stops
        self._held = ""

    def add(self, text: str) -> str:
        """The text that may be shown now; the stop string that ends first ends it, and is not shown."""
        text = self._held + text
        self._held = ""
        places = [(text.index(stop) + len(stop), text.index(stop)) for stop in self._stops if stop in text]
        if places:
            self.found = True
            return text[: min(places)[1]]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text

    def flush(self) -> str:
        """What still waits when nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)
