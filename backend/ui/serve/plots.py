"""The plots of a serving: slots as a Gantt, and queue, batch, memory and tokens against the lane clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.serving.view import ServedView
from backend.ui.figures import seconds, three
from backend.ui.inspect.plot import Chart, colour, figure, sentences
from backend.ui.palette import look

MOST = 600  # points a line
QUEUE, RUNNING, BATCH, BLOCKS, FED = range(1, 6)  # columns of a sample


def slots(lane: ServedView, dark: bool, end_s: float) -> Chart:
    """Who has which slot, and when: hatched while its prompt is read or read again, plain while it is written."""
    stays = [*lane.spans, *([id, slot, since, lane.clock, lane.clock] for id, slot, since in lane.open)]
    drawn = figure("lane clock, s", "slot", dark, height=200)
    for title, shape in (("reads", "/"), ("writes", "")):
        bars = [(slot, *_part(title, since, first, until), id) for id, slot, since, first, until in stays]
        bars = [bar for bar in bars if bar[2] > bar[1]]
        drawn.add_bar(
            orientation="h",
            name=title,
            y=[bar[0] + 1 for bar in bars],
            base=[bar[1] for bar in bars],
            x=[bar[2] - bar[1] for bar in bars],
            customdata=[bar[3] for bar in bars],
            hovertemplate=f"request %{{customdata}} {title} %{{x:.3g}} s<extra></extra>",
            marker={
                "color": colour(lane.name, dark),
                "pattern": {"shape": shape, "fgcolor": "#111" if dark else "#fff", "solidity": 0.4},
                "line": {"width": 1, "color": "#111" if dark else "#fff"},
            },
        )
    drawn.update_layout(barmode="overlay", bargap=0.15)
    drawn.update_xaxes(range=[0, 1.02 * end_s or 1])
    drawn.update_yaxes(autorange="reversed", showgrid=False, dtick=1 if len({s[1] for s in stays}) <= 16 else None)
    used = sum(until - since for _, _, since, _, until in stays)
    count = 1 + max((int(stay[1]) for stay in stays), default=0)
    words = f"{len(lane.ended)} of {lane.requests} answers in {seconds(lane.clock)}" if stays else ""
    busy = f"slots held by answers in the making {used / (lane.clock * count):.0%} of the time" if lane.clock else ""
    title = f"Slots of {look(lane.name).title}: {lane.label}"
    return Chart(title, drawn if stays else None, sentences([f"{words}; {busy}."] if words else [], "Nobody came yet."))


def _part(title: str, since: float, first: float, until: float) -> tuple[float, float]:
    return (since, first) if title == "reads" else (first, until)


def lines(lanes: list[ServedView], dark: bool) -> list[Chart]:
    """One plot for each column that is worth one."""
    return [
        _line("Queue", "requests that wait", QUEUE, lanes, dark),
        _line("Batch", "requests in a step", BATCH, lanes, dark),
        _line("KV memory", "blocks taken", BLOCKS, lanes, dark),
        _tokens(lanes, dark),
    ]


def _line(title: str, unit: str, column: int, lanes: list[ServedView], dark: bool) -> Chart:
    going = [lane for lane in lanes if lane.samples]
    drawn = figure("lane clock, s", unit, dark, height=200)
    words = []
    for lane in going:
        values = [sample[column] for sample in lane.samples]
        _add(drawn, lane, [sample[0] for sample in lane.samples], values, dark)
        words.append(
            f"{look(lane.name).title} at most {max(values):g}, mean {three(sum(values) / len(values))} a sample"
        )
    return Chart(title, drawn if going else None, f"{'; '.join(words)}." if words else "Nothing was served yet.")


def _tokens(lanes: list[ServedView], dark: bool) -> Chart:
    """Tokens of the answers that have ended: the slope is the throughput."""
    going = [lane for lane in lanes if lane.ended]
    drawn = figure("lane clock, s", "tokens of ended answers", dark, height=200)
    words = []
    for lane in going:
        ends = sorted((one.end_s, one.tokens) for one in lane.ended)
        total, y = 0, []
        for _, tokens in ends:
            total += tokens
            y.append(total)
        _add(drawn, lane, [at for at, _ in ends], y, dark)
        words.append(f"{look(lane.name).title} {three(total / lane.clock)} tokens/s")
    return Chart(
        "Throughput", drawn if going else None, f"{'; '.join(words)}." if words else "No answer has ended yet."
    )


def _add(drawn: Any, lane: ServedView, x: Sequence[float], y: Sequence[float], dark: bool) -> None:
    stride = max(1, len(x) // MOST)
    line = {"color": colour(lane.name, dark), "dash": look(lane.name).dash, "width": 2, "shape": "hv"}
    drawn.add_scatter(x=x[::stride], y=y[::stride], mode="lines", line=line, name=look(lane.name).title)
    drawn.add_annotation(x=x[-1], y=y[-1], text=lane.name, showarrow=False, xanchor="left", xshift=4)
