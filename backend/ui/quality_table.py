"""The quality view: every metric, baseline and variants side by side, with protocols and intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import streamlit as st

from backend.replay import RaceView
from backend.ui.figures import ratio, share, three
from backend.ui.palette import look
from backend.ui.text import plain
from backend.ui.words import protocol, undecided

Entry = dict[str, Any]
Row = tuple[str, str, dict[str, str]]  # metric, protocol, cell by lane
NONE = "-"
SELF = "reference"


def draw_quality(view: RaceView, key: str) -> None:
    """The expander under the card; nothing where no quality was measured."""
    rows = list(quality_rows(view))
    if not rows:
        return
    with st.expander("Quality: every metric", key=f"{key}-quality"):
        names = {lane: look(lane).title.capitalize() for lane in view.lanes}
        table = [
            {"Metric": metric, **{names[lane]: cells.get(lane, NONE) for lane in names}, "Protocol": note}
            for metric, note, cells in rows
        ]
        st.dataframe(table, hide_index=True, height="content", key=f"{key}-quality-table")
        _draw_places(view, key)


def _draw_places(view: RaceView, key: str) -> None:
    """KLD over the prompt's places, beside that over the written tokens."""
    from backend.ui.charts import kld  # plotly takes a third of a second

    dark = st.context.theme.type == "dark"
    lanes = list(view.lanes.values())
    for shape, column in zip(("decode", "prefill"), st.columns(2), strict=True):
        title, figure, summary = kld(lanes, dark, shape)
        with column:
            st.markdown(f"**{plain(title)}**")
            if figure is not None:
                place = f"{key}-quality-{shape}"
                st.plotly_chart(figure, key=place, theme=None, config={"displayModeBar": False})
            st.caption(plain(summary))


def quality_rows(view: RaceView) -> Iterator[Row]:
    """Every metric that was measured in any lane."""
    lanes = (view.verdict or {}).get("lanes", {})
    variants = {name: entry for name, entry in lanes.items() if name != "base" and not entry.get("failed")}
    base = lanes.get("base", {})
    found = [
        *_agreement(variants, "", "decode"),
        *_agreement(variants, "_prefill", "prefill"),
        *_perplexity(variants),
        *_asked(variants, "answers", "Exact match on questions"),
        *_asked(variants, "cloze", "Last-word cloze"),
        *_texts(variants, base),
    ]
    yield from (row for row in found if any(cell not in (NONE, SELF) for cell in row[2].values()))


def _agreement(variants: dict[str, Entry], ending: str, shape: str) -> Iterator[Row]:
    """KLD, top-1 and top-5 in one call shape."""
    key = f"kld{ending}"
    counts = {entry[key]["tokens"] for entry in variants.values() if key in entry}
    tokens = f"{max(counts, default=0)} tokens in {shape}"
    against = f"whole vocabulary, teacher-forced, {tokens}"
    for figure in ("mean", "p50", "p99", "max"):
        cells = {name: _kld(entry.get(key), figure) for name, entry in variants.items()}
        yield f"KLD {figure}, {shape}, nats", against, {"base": SELF} | cells
    top1, span = f"top1{ending}", f"top1{ending}_range"
    cells = {name: _share(entry.get(top1), entry.get(span)) for name, entry in variants.items()}
    yield f"Top-1 agreement, {shape}", f"both rank the same token first, {tokens}", {"base": SELF} | cells
    cells = {name: _share(entry.get(f"top5{ending}")) for name, entry in variants.items()}
    note = f"share of the baseline's five likeliest that are among the variant's five, {tokens}"
    yield f"Top-5 agreement, {shape}", note, {"base": SELF} | cells


def _kld(found: Entry | None, figure: str) -> str:
    if found is None:
        return NONE
    span = f" ({three(found['low'])} to {three(found['high'])})" if figure == "mean" and "low" in found else ""
    return f"{three(found[figure])}{span}"


def _share(value: float | None, span: Entry | None = None) -> str:
    if value is None:
        return NONE
    return f"{share(value)} ({share(span['low'])} to {share(span['high'])})" if span else share(value)


def _perplexity(variants: dict[str, Entry]) -> Iterator[Row]:
    found = {name: entry["perplexity"] for name, entry in variants.items() if "perplexity" in entry}
    if not found:
        return
    first = next(iter(found.values()))
    facts = first.get("protocol") or {}
    read = protocol(facts) if facts else ""
    values = {name: three(one["value"]) for name, one in found.items()}
    yield "Perplexity", read, {"base": three(first["baseline"])} | values
    ratios = {name: _times(one) for name, one in found.items()}
    yield "Perplexity ratio", "paired by window, 95% interval", {"base": SELF} | ratios


def _times(found: Entry) -> str:
    span = f" ({three(found['low'])} to {three(found['high'])})" if "low" in found else " (one window: no interval)"
    return f"{ratio(found['ratio'])}{span}{undecided(found, 'too few windows')}"


def _noise(found: Entry) -> str:
    return ", within noise" if found.get("within_noise") else ""


def _asked(variants: dict[str, Entry], key: str, title: str) -> Iterator[Row]:
    """Questions or last words: the same items for all lanes."""
    found = {name: entry[key] for name, entry in variants.items() if key in entry}
    if not found:
        return
    first = next(iter(found.values()))
    cells = {
        name: f"{share(one['share'])}, {one['right']} of {one['asked']} (p {three(one['p'])}{_noise(one)})"
        for name, one in found.items()
    }
    note = f"{first.get('protocol', 'the same items for all lanes')}; McNemar's exact test"
    yield title, note, {"base": share(first["baseline_share"])} | cells


def _texts(variants: dict[str, Entry], base: Entry) -> Iterator[Row]:
    """What the texts show that the lanes wrote by themselves."""
    every = {"base": base, **variants}
    cells = {name: three(entry.get("rouge_l")) if "rouge_l" in entry else NONE for name, entry in variants.items()}
    yield "ROUGE-L", "F-measure of words in common sequence with the baseline's text", {"base": SELF} | cells
    cells = {name: share(entry["repetition"]) if "repetition" in entry else NONE for name, entry in every.items()}
    yield "Repetition", "share of 4-grams of tokens that stood before in the lane's own text", cells
    cells = {name: f"{entry['length']} tokens" if "length" in entry else NONE for name, entry in every.items()}
    yield "Length", "tokens until the end-of-text token", cells
    cells = {name: _divergence(entry) for name, entry in variants.items()}
    yield "First divergence", "first token that differs from the baseline's text", {"base": SELF} | cells


def _divergence(entry: Entry) -> str:
    at = entry.get("first_divergence")
    return f"none in {entry.get('identical_tokens', 0)} tokens" if at is None else f"token {at + 1}"
