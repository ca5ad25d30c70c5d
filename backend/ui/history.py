"""History, piece by piece: the table of races, one as it ended, two side by side."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from backend.journal import ENDED, Job
from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.replay import RaceView
from backend.ui import desk
from backend.ui.encoding.page import draw_encoding
from backend.ui.figures import ratio, three
from backend.ui.live.feed import Feed
from backend.ui.palette import look
from backend.ui.result import draw_result
from backend.ui.text import plain, short

SHOWN = 100  # races in the table


def finished_races() -> list[Job]:
    """Races that have ended, the newest first."""
    found = [job for kind in desk.RACES for job in desk.journal().jobs(kind=kind, states=ENDED, limit=SHOWN)]
    return sorted(found, key=lambda job: -job.id)[:SHOWN]


def row(job: Job) -> dict[str, Any]:
    """One line of the table; the ratios come from the verdict, where there is one."""
    line = {"race": job.id, "ended": _when(job.finished), "state": job.state, "model": job.spec.get("model", "")}
    try:
        race = Race.read(job.spec)
    except RecipeError:
        return line | {"lanes": "a recipe of another version", "speed": ""}
    lanes = "; ".join(f"{name} {recipe.label}" for name, recipe in race.lanes if name != "base")
    return line | {"lanes": lanes, "speed": _ratios(job)}


def _ratios(job: Job) -> str:
    """'A 1.72x, B 0.8x (simulated)'."""
    verdict = desk.verdict_of(job.id)
    if verdict is None:
        return ""
    found = []
    for name, lane in verdict["lanes"].items():
        if speed := lane.get("speed") or _largest(lane).get("speed"):
            found.append(f"{name} {ratio(speed['ratio'])}{' (simulated)' if lane.get('simulated') else ''}")
    return ", ".join(found)


def _largest(lane: dict[str, Any]) -> dict[str, Any]:
    """An encoder's figures in its largest calls."""
    sizes: dict[str, dict[str, Any]] = lane.get("sizes", {})
    return sizes[max(sizes, key=int)] if sizes else {}


def _when(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else ""


def draw_table(jobs: list[Job]) -> list[Job]:
    """The table; returns the races that are picked in it, two at most."""
    names = {"race": "Race", "ended": "Ended", "state": "State", "model": "Model", "lanes": "Lanes", "speed": "Speed"}
    rows = [{names[key]: short(str(value), 90) for key, value in row(job).items()} for job in jobs]
    picked = st.dataframe(
        rows, on_select="rerun", selection_mode="multi-row", hide_index=True, key="races", height="content"
    )
    chosen = [jobs[index] for index in picked["selection"]["rows"] if index < len(jobs)]
    if len(chosen) > 2:
        st.info("Two races can be compared. The first two that are picked are shown.")
    return chosen[:2]


def draw_one(job: Job) -> None:
    """One race as it ended."""
    if job.kind == "encode":
        draw_encoding(job, "history")
        return
    feed = _feed(job, "history:one")
    if feed:
        draw_result(feed, feed.race.price_per_hour, "history")


def draw_two(first: Job, second: Job) -> None:
    """Two races: their speeds from zero in one plot, the ratio of every lane, and their plots side by side."""
    if "encode" in (first.kind, second.kind):
        for place, job in enumerate((first, second)):
            if job.kind == "encode":
                draw_encoding(job, f"history-{place}")
            else:
                draw_one(job)
        return
    feeds = [feed for job, shelf in ((first, "one"), (second, "two")) if (feed := _feed(job, f"history:{shelf}"))]
    if len(feeds) < 2:
        return
    from backend.ui.charts import compared, race_charts

    dark = st.context.theme.type == "dark"
    names = f"race {first.id}", f"race {second.id}"
    title, figure, summary = compared(feeds[0].view, feeds[1].view, names, dark)
    st.markdown(f"**{title}**")
    if figure is not None:
        st.plotly_chart(figure, key="compared", theme=None, config={"displayModeBar": False})
    st.caption(plain(summary))
    st.markdown("  \n".join(plain(line) for line in comparison(feeds[0].view, feeds[1].view, names)))
    for place, (column, feed) in enumerate(zip(st.columns(2), feeds, strict=True)):
        with column:
            st.markdown(f"**{plain(names[place].capitalize())}**: {plain(short(feed.race.prompt))}")
            for number, (title, figure, summary) in enumerate(race_charts(feed.view, dark, feeds[1 - place].view)):
                st.markdown(f"**{plain(title)}**")
                if figure is not None:
                    key = f"compare-{place}-{number}"
                    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False})
                st.caption(plain(summary))


def comparison(first: RaceView, second: RaceView, names: tuple[str, str]) -> list[str]:
    """One sentence a lane that both have. Different runs are not paired, so no interval is given."""
    lines = []
    for name, lane in first.lanes.items():
        other = second.lanes.get(name)
        if other is None or not lane.tokens_per_s or not other.tokens_per_s:
            continue
        times = ratio(other.tokens_per_s / lane.tokens_per_s)
        speeds = f"{three(lane.tokens_per_s)} to {three(other.tokens_per_s)} tokens/s"
        lines.append(f"{look(name).title.capitalize()}: {speeds}, {names[1]} is {times} of {names[0]}.")
    if lines:
        lines.append("The two ran at different times, so the machine may have differed: no interval is given.")
    return lines


def _feed(job: Job, shelf: str) -> Feed | None:
    try:
        feed = desk.feed_of(job, shelf)
    except RecipeError as error:
        st.warning(plain(f"Race {job.id} cannot be shown: {error}"))
        return None
    feed.follow(desk.journal())
    return feed
