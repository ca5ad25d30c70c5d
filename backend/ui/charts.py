"""The plots of a race that has ended, in the places and colours of the live ones. Formatting happens here only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from backend.replay import LaneView, RaceView
from backend.ui.exports import is_simulated
from backend.ui.figures import seconds, size, three
from backend.ui.palette import look

HEIGHT = 208
WINDOW = 12  # tokens over which the speed is taken
MOST = 400  # points a line
PARTS = (("weights", ""), ("kv", "/"), ("other", "."))

Chart = tuple[str, go.Figure | None, str]  # title, figure (None: nothing to say), summary in words


def race_charts(view: RaceView, dark: bool, beside: RaceView | None = None) -> list[Chart]:
    """The four plots of one race, with the x ranges that it shares with the one it is compared with."""
    lanes = list(view.lanes.values())
    every = [*lanes, *(beside.lanes.values() if beside else ())]
    charts = [tokens(lanes, dark), speed(lanes, dark), memory(lanes, dark), kld(lanes, dark)]
    end_s = max((lane.clock[-1] for lane in every if lane.clock), default=0)
    held = max((sum(lane.memory.get(f"{part}_bytes") or 0 for part, _ in PARTS) for lane in every), default=0)
    count = max((len(lane.decode.kld) for lane in every), default=0)
    for (_, figure, _), end in zip(charts, (end_s, end_s, held / 1e6, count), strict=True):
        if figure is not None and end > 0:
            figure.update_xaxes(range=[0, 1.03 * end])
    return charts


def tokens(lanes: list[LaneView], dark: bool) -> Chart:
    """Tokens against lane clock."""
    going = [lane for lane in lanes if lane.clock]
    figure = _figure("lane clock, s", "tokens", dark)
    for lane in going:
        _line(figure, lane, lane.clock, list(range(1, len(lane.clock) + 1)), dark)
    words = [f"{_named(lane)} {len(lane.ids)} in {seconds(lane.clock[-1])}" for lane in going]
    return "Tokens", figure if going else None, _sentence(words, "No token was written.")


def speed(lanes: list[LaneView], dark: bool) -> Chart:
    """Tokens a second over the last tokens."""
    figure = _figure("lane clock, s", "tokens/s", dark)
    words = []
    for lane in lanes:
        at = lane.clock
        points = [(at[i], WINDOW / (at[i] - at[i - WINDOW])) for i in range(WINDOW, len(at)) if at[i] > at[i - WINDOW]]
        if points:
            _line(figure, lane, [p[0] for p in points], [p[1] for p in points], dark)
            words.append(f"{_named(lane)} {three(lane.tokens_per_s)} tokens/s")
    return "Speed", figure if words else None, _sentence(words, f"Fewer than {WINDOW} tokens were written.")


def memory(lanes: list[LaneView], dark: bool) -> Chart:
    """Bytes held, by part, beside the baseline."""
    held = [lane for lane in lanes if lane.memory]
    figure = _figure("MB", "", dark)
    for part, pattern in PARTS:
        figure.add_bar(
            orientation="h",
            name=part,
            y=[_short(lane) for lane in held],
            x=[(lane.memory.get(f"{part}_bytes") or 0) / 1e6 for lane in held],
            marker={
                "color": [look(lane.name).colour(dark) for lane in held],
                "pattern": {"shape": pattern, "fgcolor": "#fff" if not dark else "#111"},
                "line": {"width": 0.5, "color": _ink(dark)},
            },
            hovertemplate=f"%{{y}} {part} %{{x:.3g}} MB<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.4)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    words = "; ".join(_memory_words(lane) for lane in held)
    summary = f"Weights, KV (hatched), other (dotted): {words}." if held else "No model was loaded."
    return "Memory by part", figure if held else None, summary


def _memory_words(lane: LaneView) -> str:
    return f"{_named(lane)} {', '.join(size(lane.memory.get(f'{part}_bytes')) for part, _ in PARTS)}"


def kld(lanes: list[LaneView], dark: bool, shape: str = "decode") -> Chart:
    """KL divergence from the baseline a token, with its running mean; over the prompt's places in 'prefill'."""
    scored = [(lane, lane.decode if shape == "decode" else lane.prefill) for lane in lanes]
    scored = [(lane, scores) for lane, scores in scored if scores.kld]
    figure = _figure("token" if shape == "decode" else "token of the prompt", "KLD, nats", dark)
    for lane, scores in scored:
        places = list(range(1, len(scores.kld) + 1))
        means = [total / count for count, total in enumerate(accumulate(scores.kld), 1)]
        marker = {"size": 4, "opacity": 0.45, "color": look(lane.name).colour(dark)}
        figure.add_scatter(x=places, y=scores.kld, mode="markers", marker=marker, hoverinfo="y")
        _line(figure, lane, places, means, dark)
    if scored:
        every = sorted(value for _, scores in scored for value in scores.kld)
        top = 1.1 * max(every[int(0.98 * (len(every) - 1))], 1e-6)
        figure.update_yaxes(range=[0, top], exponentformat="e")  # 2e-6 as in the live plot, and not 2 micro
    words = [f"{_named(lane)} mean {three(scores.mean_kld)}" for lane, scores in scored]
    if shape == "decode":
        read = [lane for lane in lanes if lane.perplexity.get("value")]
        words += [f"perplexity {_named(lane)} {three(lane.perplexity['value'])}" for lane in read]
    title = "KLD a token" if shape == "decode" else "KLD a token, prefill"
    return title, figure if scored else None, _sentence(words, "Nothing was scored.")


def compared(first: RaceView, second: RaceView, names: tuple[str, str], dark: bool) -> Chart:
    """Tokens a second of every lane of two races, side by side, from zero."""
    figure = _figure("", "tokens/s", dark)
    words = []
    for view, name, opacity in ((first, names[0], 1.0), (second, names[1], 0.5)):
        lanes = [lane for lane in view.lanes.values() if lane.tokens_per_s]
        figure.add_bar(
            x=[_named(lane) for lane in lanes],
            y=[lane.tokens_per_s for lane in lanes],
            marker={"color": [look(lane.name).colour(dark) for lane in lanes], "opacity": opacity},
            text=[f"{name}: {three(lane.tokens_per_s)}" for lane in lanes],
        )
        words += [f"{name} {_named(lane)} {three(lane.tokens_per_s)} tokens/s" for lane in lanes]
    return "Speed in the race", figure if words else None, _sentence(words, "Neither race wrote a token.")


def _line(figure: go.Figure, lane: LaneView, x: Sequence[float], y: Sequence[float], dark: bool) -> None:
    """A lane's line with its letter at the end."""
    stride = max(1, len(x) // MOST)
    last = len(x) - 1
    kept = [*range(0, last, stride), last]
    one = look(lane.name)
    line = {"color": one.colour(dark), "dash": one.dash, "width": 2}
    figure.add_scatter(x=[x[i] for i in kept], y=[y[i] for i in kept], mode="lines", line=line, name=one.title)
    figure.add_annotation(
        x=x[-1], y=y[-1], text=_short(lane), showarrow=False, xanchor="left", xshift=4, font={"color": _ink(dark)}
    )


def _figure(x: str, y: str, dark: bool) -> go.Figure:
    """An empty figure of the common size, both axes from zero."""
    grid = "rgba(140,150,165,0.28)"
    axis: dict[str, Any] = {"rangemode": "tozero", "gridcolor": grid, "zerolinecolor": grid, "fixedrange": True}
    return go.Figure(
        layout={
            "height": HEIGHT,
            "margin": {"l": 8, "r": 36, "t": 8, "b": 8},
            "showlegend": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": _ink(dark), "size": 11},
            "xaxis": axis | {"title": {"text": x, "standoff": 4}, "automargin": True, "nticks": 6},
            "yaxis": axis | {"title": {"text": y, "standoff": 4}, "automargin": True, "nticks": 6},
        }
    )


def _ink(dark: bool) -> str:
    return "#E6E9EE" if dark else "#1B1F27"


def _short(lane: LaneView) -> str:
    return lane.name + (" sim." if is_simulated(lane) else "")


def _named(lane: LaneView) -> str:
    return look(lane.name).title + (" (simulated)" if is_simulated(lane) else "")


def _sentence(words: list[str], otherwise: str) -> str:
    return f"{'; '.join(words)}." if words else otherwise
