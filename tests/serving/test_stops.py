"""Stop strings end a text at the same place however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.serving.stops import Stops


def through(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, bool]:
    stopper, shown = Stops(stops), ""
    for piece in pieces:
        shown += stopper.add(piece)
        if stopper.found:
            return shown, True
    return shown + stopper.flush(), False


@given(st.lists(st.text("ab", max_size=4), max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    expected = (text[: min(ends)[1]], True) if ends else (text, False)
    assert through(pieces, tuple(stops)) == expected
    assert through(list(text), tuple(stops)) == expected
