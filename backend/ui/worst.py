"""The worst tokens: where quality fell most, in context, the baseline's choices beside the variant's.

Tokens are other people's text: every one is escaped, and `st.html` reads neither Markdown nor LaTeX.
"""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st

from backend.replay import LaneView, RaceView
from backend.ui.figures import share, three
from backend.ui.palette import look
from backend.ui.text import plain

Spot = dict[str, Any]
SHOWN = 4  # places a shape; all that were kept stand in the JSON
WHERE = {"decode": "Written token", "prefill": "Token of the prompt"}
_TEXT = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate"
_FRAMED = "background:none;color:inherit;border:1px solid;border-radius:3px;padding:0 2px"
_TABLE = "width:100%;border-collapse:collapse;table-layout:fixed;font-variant-numeric:tabular-nums"
_LEFT = "text-align:left;padding:1px 8px 1px 0;vertical-align:bottom"


def draw_worst(view: RaceView, key: str) -> None:
    """The expander on the result; nothing where nothing was kept."""
    lanes = [lane for lane in view.lanes.values() if any(lane.worst.values())]
    if not lanes:
        return
    dark = st.context.theme.type == "dark"
    with st.expander("Worst tokens: where the variants leave the baseline furthest", key=f"{key}-worst"):
        for lane in lanes:
            for shape, spots in lane.worst.items():
                if spots:
                    st.markdown(f"**{plain(look(lane.name).title)}, {shape}**: highest KLD first")
                    _draw_spots([spot_html(spot, shape, lane, dark) for spot in spots[:SHOWN]])


def _draw_spots(blocks: list[str]) -> None:
    """Two beside each other."""
    for start in range(0, len(blocks), 2):
        for column, block in zip(st.columns(2), blocks[start : start + 2], strict=False):
            column.html(block)


def spot_html(spot: Spot, shape: str, lane: LaneView, dark: bool) -> str:
    """One place as HTML: a sentence, the text with its token framed, and both models' five likeliest tokens."""
    name = look(lane.name).title
    sides = ((spot["base"], look("base").colour(dark)), (spot["variant"], look(lane.name).colour(dark)))
    count = max(len(choices) for choices, _ in sides)
    rows = ("".join(_cell(choices, place, colour) for choices, colour in sides) for place in range(count))
    heads = "".join(f"<th scope='col' style='{_LEFT}'>{escape(title)}</th>" for title in ("baseline", name))
    return (
        f"<figure style='margin:0 0 16px'><figcaption>{escape(spoken(spot, shape, name))}</figcaption>"
        f"<p style='{_TEXT};margin:4px 0'>{escape(visible(spot['before']))}"
        f"<mark style='{_FRAMED}'>{escape(visible(spot['text']))}</mark></p>"
        f"<table style='{_TABLE}'><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></figure>"
    )


def _cell(choices: list[Spot], place: int, colour: str) -> str:
    """A token, its probability as a figure, and as a bar that only eyes need."""
    if place >= len(choices):
        return "<td></td>"
    one = choices[place]
    width = 100 * min(1.0, max(0.0, one["p"]))
    bar = f"display:block;height:4px;border-radius:2px;width:{width:.1f}%;background:{colour}"
    text = f"<code style='{_TEXT}'>{escape(visible(one['text']))}</code>"
    return f"<td style='{_LEFT}'>{text} {share(one['p'])}<span aria-hidden='true' style='{bar}'></span></td>"


def spoken(spot: Spot, shape: str, name: str) -> str:
    """The place in one sentence, which is also what a screen reader says."""
    where = f"{WHERE[shape]} {spot['place'] + 1}, KLD {three(spot['kld'])} nats"
    first, ours = spot["base"][0], spot["variant"][0]
    text = f"the text has “{visible(spot['text'])}” ({share(spot['base_p'])} in the baseline, "
    text += f"{share(spot['variant_p'])} in {name})"
    theirs = f"the baseline's choice is “{visible(first['text'])}” ({share(first['p'])})"
    if first["token"] == ours["token"]:
        return f"{where}: {text}; {theirs}, {name}'s too ({share(ours['p'])})."
    return f"{where}: {text}; {theirs}, {name}'s is “{visible(ours['text'])}” ({share(ours['p'])})."


def visible(text: str) -> str:
    """The text with line ends and tabs as signs, and blanks as signs where there is nothing else."""
    if text and not text.strip(" "):
        return "␣" * len(text)
    return text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")
