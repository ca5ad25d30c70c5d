"""What every page wears: its width, the notices that concern all, and figures that do not dance."""

from __future__ import annotations

import streamlit as st

from backend.journal import JournalFull, JournalInUse
from backend.ui import words
from backend.ui.cards import error_card
from backend.ui.desk import journal, set_aside
from backend.ui.machine import machine_line
from backend.ui.text import plain

_STYLE = """
<style>
  .stMainBlockContainer { max-width: 1440px; padding: 3.75rem 1.5rem 2rem; }
  .stSidebar .stVerticalBlock { gap: 0.5rem; }
  .stSidebar hr { margin: 8px 0; }
  [class*="-verdict-of-1"] { min-height: 96px; }
  [class*="-verdict-of-2"] { min-height: 136px; }
  [class*="-verdict-of-3"] { min-height: 176px; }
  .stMarkdown, .stMetric, .stDataFrame, .stCaptionContainer { font-variant-numeric: tabular-nums; }
  [class*="-plot-"] .stCaptionContainer p { font-size: 12px; line-height: 1.4; }
  [class*="-plot-train-"] [data-testid="stCaptionContainer"] { min-height: 42px; }
  .st-key-machine { position: fixed; top: 1.1rem; right: 1.5rem; width: auto; z-index: 999991; }
  .st-key-machine strong { margin-right: 16px; }
  @media (max-width: 640px) { .st-key-machine { position: static; } .stMainBlockContainer { padding: 3.75rem 1rem; } }
  @media (prefers-reduced-motion: reduce) {
    *, *::before, *::after { animation-duration: 0.01ms !important; transition-duration: 0.01ms !important; }
  }
</style>
"""


def draw_head() -> None:
    """The style, and the machine in one line."""
    st.html(_STYLE)
    with st.container(key="machine"):
        st.caption(f"**Headway** {plain(machine_line())}")


def require_journal() -> None:
    """Stop with a card where the journal cannot be opened."""
    try:
        journal()
    except (JournalInUse, JournalFull) as error:
        remedy = (
            "Free some space." if isinstance(error, JournalFull) else "End the other Headway, then load this again."
        )
        card = {"field": "journal", "value": str(error), "allowed": "a journal that can be opened", "remedy": remedy}
        error_card(card, "The journal cannot be opened")
        st.stop()


def draw_notices() -> None:
    """What went on behind the page: no worker, a journal that was set aside."""
    if not journal().workers():
        st.warning(words.NO_WORKER)
    for path in set_aside()[:1]:
        st.warning(
            plain(
                f"The journal could not be read (damaged, or of another version) and was set aside as {path.name} "
                f"in {path.parent}. A new one was begun; nothing was overwritten."
            )
        )
