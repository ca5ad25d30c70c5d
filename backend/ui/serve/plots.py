"""The plots of a serving: slots as a Gantt, and queue, batch, memory and tokens against the lane clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backend.serving.view import ServedView
from backend.ui.figures import seconds, share, three
from backend.ui.inspect.plot import Chart, colour, figure, sentences
from backend.ui.palette import look

MOST = 600  # points a line
HEIGHT = 200
FEW = 16  # slots of which each is named on the axis
QUEUE, RUNNING, BATCH, BLOCKS, FED = range(1, 6)  # columns of a sample
Words = Callable[[ServedView], str]


def slots(lane: ServedView, dark: bool, end_s: float, count: int) -> Chart:
    """Who has which of `count` slots, and when: hatched while a prompt is read or read again, plain while it is
    written."""
    stays = stays_of(lane)
    drawn = figure("lane clock, s", "slot", dark, height=HEIGHT)
    edge = "#111" if dark else "#fff"
    hatch = {"fillmode": "overlay", "fgcolor": edge, "fgopacity": 1.0, "solidity": 0.4}
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
                "pattern": hatch | {"shape": shape},
                "line": {"width": 1, "color": edge},
            },
        )
    drawn.update_layout(barmode="overlay", bargap=0.15)
    drawn.update_xaxes(range=[0, 1.02 * end_s or 1])
    drawn.update_yaxes(range=[count + 0.5, 0.5], showgrid=False, dtick=1 if count <= FEW else None)
    told = [f"{len(lane.ended)} of {lane.requests} answers in {seconds(lane.clock)}"] if stays else []
    if told and lane.clock:
        told.append(f"slots held {share(busy(lane, count))} of the time, hatched while a prompt is read")
    who = "the baseline" if lane.name == "base" else look(lane.name).title
    title = f"Slots of {who}: {lane.label}"
    return Chart(title, drawn, sentences([f"{'; '.join(told)}."] if told else [], "No request has a slot yet."))


def stays_of(lane: ServedView) -> list[list[float]]:
    """Every stay in a slot, those that go on as far as the clock: [id, slot, since_s, writes_s, until_s]."""
    return [*lane.spans, *([*stay, lane.clock] for stay in lane.open)]


def busy(lane: ServedView, count: int) -> float:
    """The share of the time in which a slot is held by an answer in the making."""
    held = sum(until - since for _, _, since, _, until in stays_of(lane))
    return held / (lane.clock * count) if lane.clock else 0.0


def _part(title: str, since: float, first: float, until: float) -> tuple[float, float]:
    return (since, first) if title == "reads" else (first, until)


def lines(lanes: list[ServedView], dark: bool, end_s: float) -> list[Chart]:
    """One plot for each column that is worth one, all from 0 to `end_s`."""
    charts = [
        _line("Queue", "requests that wait", QUEUE, lanes, dark, lambda lane: ""),
        _line("Batch", "requests in a step", BATCH, lanes, dark, lambda lane: ""),
        _line("KV memory", "blocks taken", BLOCKS, lanes, dark, lambda lane: f" of {lane.blocks:,}"),
        _tokens(lanes, dark),
    ]
    for chart in charts:
        if chart.figure is not None:
            chart.figure.update_layout(margin_r=56)  # room for the lanes' names
            chart.figure.update_xaxes(range=[0, end_s or 1])
            chart.figure.update_yaxes(rangemode="tozero")
    return charts


def _line(title: str, unit: str, column: int, lanes: list[ServedView], dark: bool, most: Words) -> Chart:
    going = [lane for lane in lanes if lane.samples]
    drawn = figure("lane clock, s", unit, dark, height=HEIGHT)
    words = []
    for lane in going:
        values = [sample[column] for sample in lane.samples]
        _add(drawn, lane, [sample[0] for sample in lane.samples], values, dark)
        mean = sum(values) / len(values) if column == BATCH else _mean(lane, column)
        told = f"{three(mean)} a step" if column == BATCH else three(mean)
        words.append(f"{look(lane.name).title} at most {max(values):,g}{most(lane)}, mean {told}")
    return Chart(title, drawn, sentences([f"{'; '.join(words)}."] if words else [], "Nothing was served yet."))


def _mean(lane: ServedView, column: int) -> float:
    """Over the lane clock: what a sample tells holds until the next."""
    following = [*(sample[0] for sample in lane.samples[1:]), lane.clock]
    whole = lane.clock - lane.samples[0][0]
    spread = zip(lane.samples, following, strict=True)
    return sum(one[column] * (until - one[0]) for one, until in spread) / whole if whole > 0 else 0.0


def _tokens(lanes: list[ServedView], dark: bool) -> Chart:
    """Tokens of the answers that have ended: the slope is the throughput."""
    going = [lane for lane in lanes if lane.ended]
    drawn = figure("lane clock, s", "tokens of ended answers", dark, height=HEIGHT)
    words = []
    for lane in going:
        ends = sorted((one.end_s, one.tokens) for one in lane.ended)
        total, y = 0, []
        for _, tokens in ends:
            total += tokens
            y.append(total)
        _add(drawn, lane, [at for at, _ in ends], y, dark)
        words.append(f"{look(lane.name).title} {three(total / lane.clock)} tokens/s")
    said = sentences([f"{'; '.join(words)}."] if words else [], "No answer has ended yet.")
    return Chart("Throughput", drawn, said)


def _add(drawn: Any, lane: ServedView, x: Sequence[float], y: Sequence[float], dark: bool) -> None:
    stride = max(1, len(x) // MOST)
    line = {"color": colour(lane.name, dark), "dash": look(lane.name).dash, "width": 2, "shape": "hv"}
    drawn.add_scatter(x=x[::stride], y=y[::stride], mode="lines", line=line, name=look(lane.name).title)
    drawn.add_annotation(
        x=x[-1], y=y[-1], text=look(lane.name).title, showarrow=False, xanchor="left", xshift=4,
        font={"color": colour(lane.name, dark)},
    )  # fmt: skip
