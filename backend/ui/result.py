"""A race that has ended, as the Bench and History show it: panes, verdict, plots, and what can be taken away."""

from __future__ import annotations

import streamlit as st

from backend.recipe.base import RecipeError
from backend.recipe.race import Race
from backend.ui import exports, shelf
from backend.ui.cards import error_card, failure_cards, verdict_card, verdict_details
from backend.ui.experts import draw_experts
from backend.ui.figures import seconds
from backend.ui.forecast_measured import draw_forecast_measured
from backend.ui.inspect.pick import draw_button
from backend.ui.keep import draw_save, draw_saving
from backend.ui.live.element import draw_panes
from backend.ui.live.feed import Feed
from backend.ui.measured import draw_measured
from backend.ui.quality_table import draw_quality
from backend.ui.receipt_table import draw_receipt
from backend.ui.share import MAX_LINK, pack
from backend.ui.text import plain
from backend.ui.waterfall import draw_why
from backend.ui.worst import draw_worst

PLOT_PX = 400
LINES_PX = 40
STATES = {
    "finished": "Finished",
    "cancelled": "Cancelled. What was measured until then stands below",
    "failed": "Failed. What was measured until then stands below",
}


def draw_result(feed: Feed, price_per_hour: float, key: str) -> None:
    """Draw it all; `key` tells two results on one page apart."""
    view, job = feed.view, feed.job
    if view.card:
        error_card(view.card, "The race did not end well")
    draw_panes(feed, key)
    wall = f" in {seconds(view.wall_s)}" if view.wall_s else ""
    verdict_card(view, f"Race {job.id}. {STATES[job.state]}{wall}.", len(feed.race.variants), key)
    failure_cards(view)
    draw_charts(feed, key)
    verdict_details(view, price_per_hour)
    draw_receipt(view)
    draw_measured(view.verdict, key)
    if view.verdict:
        draw_why(view.verdict, f"{key}-why")
    draw_forecast_measured(view)
    draw_experts(view, key)
    draw_quality(view, key)
    draw_worst(view, key)
    _take_away(feed, key)


def draw_charts(feed: Feed, key: str) -> None:
    """The four plots in a row, each with its summary in words."""
    from backend.ui.charts import race_charts  # plotly takes a third of a second, which an empty page does not need

    dark = st.context.theme.type == "dark"
    height = PLOT_PX + LINES_PX * max(0, len(feed.race.lanes) - 2)  # the words below grow with the lanes
    for place, (column, chart) in enumerate(zip(st.columns(4), race_charts(feed.view, dark), strict=True)):
        title, figure, summary = chart
        with column, st.container(border=True, height=height, key=f"{key}-plot-{place}"):
            st.markdown(f"**{plain(title)}**")
            if figure is not None:
                st.plotly_chart(figure, key=f"{key}-chart-{place}", theme=None, config={"displayModeBar": False})
            st.caption(plain(summary))


def _take_away(feed: Feed, key: str) -> None:
    """Inspect, share, JSON, CSV, save as preset, save a lane's model."""
    inspect, share, as_json, as_csv, preset, model = st.columns(6)
    with inspect:
        draw_button(feed.job, f"{key}-inspect")
    name = f"headway-race-{feed.job.id}"
    share.button("Share", key=f"{key}-share", on_click=share_race, args=(feed.race,), width="stretch")
    as_json.download_button(
        "JSON",
        lambda: exports.as_json(feed.view, feed.job.spec),
        f"{name}.json",
        "application/json",
        key=f"{key}-json",
        on_click="ignore",
        width="stretch",
    )
    as_csv.download_button(
        "CSV",
        lambda: exports.as_csv(feed.view),
        f"{name}.csv",
        "text/csv",
        key=f"{key}-csv",
        on_click="ignore",
        width="stretch",
    )
    with preset, st.popover("Save as preset", width="stretch"):
        st.text_input("Title", key=f"{key}-title", max_chars=80)
        st.button("Save", key=f"{key}-save", on_click=_save, args=(f"{key}-title", feed.race))
    with model:
        draw_save(feed, key)
    draw_saving(feed, key)
    if notice := st.session_state.pop("saved", None):
        st.success(plain(notice))
    if card := st.session_state.pop("save_card", None):
        error_card(card, "The preset was not saved")


def _save(field: str, race: Race) -> None:
    title = st.session_state[field]  # as it is now: a title may be typed and Save pressed between two drawings
    try:
        shelf.save(title, race)
    except RecipeError as error:
        st.session_state["save_card"] = error.card()
    except OSError as error:
        st.session_state["save_card"] = {
            "field": "preset",
            "value": str(error),
            "allowed": "a file that can be written",
            "remedy": f"Free some space, or make {shelf.own_folder()} writable, and save again.",
        }
    else:
        st.session_state["saved"] = f"Saved. It stands in the preset menu as: {title.strip()}"


def share_race(race: Race) -> None:
    """Put the race into the address and show the link."""
    packed = pack(race)
    if len(packed) > MAX_LINK:
        st.session_state["share_card"] = {
            "field": "prompt",
            "value": f"{len(race.prompt):,} characters",
            "allowed": "what fits into a link",
            "remedy": "Save it as a preset, or send the JSON.",
        }
        return
    st.query_params["race"] = packed
    st.session_state["shared"] = packed


def draw_shared() -> None:
    """The link that Share made, once."""
    if card := st.session_state.pop("share_card", None):
        error_card(card, "This race is too long for a link")
    if packed := st.session_state.pop("shared", None):
        base = (st.context.url or "").split("?")[0]
        st.caption("This link holds the whole race. It stands in the address bar too.")
        st.code(f"{base}?race={packed}", language=None, wrap_lines=True)
