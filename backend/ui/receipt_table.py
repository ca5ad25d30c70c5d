"""The receipt of every lane, side by side, under the verdict."""

from __future__ import annotations

import streamlit as st

from backend.replay import RaceView
from backend.ui.palette import look
from backend.ui.receipt_words import Receipt, differs, left_out, rows
from backend.ui.text import plain

MARK = "≠ "


def draw_receipt(view: RaceView) -> None:
    """The receipts of a race's lanes."""
    draw_receipts({name: lane.receipt for name, lane in view.lanes.items() if lane.receipt})


def draw_receipts(receipts: dict[str, Receipt]) -> None:
    """What was read back from each live model and its run; folded away until it is asked for."""
    if not receipts:
        return
    with st.expander("Receipt"):
        st.caption(
            plain(
                f"Read back from the live models and their runs, not from the recipe. {MARK}differs from the baseline."
            )
        )
        table: dict[str, list[str]] = {"": []}
        for title, cells in rows(receipts):
            table[""].append(plain(title))
            for name, cell in cells.items():
                marked = f"{MARK if differs(cells, name) else ''}{cell}"
                table.setdefault(plain(look(name).title), []).append(plain(marked))
        st.table(table, hide_index=True, hide_header=False, alt="Facts of every lane, the baseline first")
        for name, receipt in receipts.items():
            for line in left_out(receipt):
                st.caption(plain(f"{look(name).title}, left as it was: {line}."))
