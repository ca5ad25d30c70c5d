"""One colour a lane, everywhere, from Okabe and Ito's colour-blind-safe set; and never the colour alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How a lane is drawn: a colour for each theme, a dash of plotly's, and its name in words."""

    light: str
    dark: str
    dash: str
    title: str

    def colour(self, dark: bool) -> str:
        """The colour in the theme that is shown."""
        return self.dark if dark else self.light


LOOKS = {
    "base": Look("#6B7280", "#9AA3AF", "dot", "baseline"),
    "A": Look("#0072B2", "#56B4E9", "solid", "A"),
    "B": Look("#E69F00", "#E69F00", "dash", "B"),
    "C": Look("#009E73", "#22B890", "dashdot", "C"),
}


def look(lane: str) -> Look:
    """The look of a lane by its name."""
    return LOOKS.get(lane, LOOKS["base"])
