"""The pages and the wire of their live element, in one server: what `python -m backend up` lets Streamlit run."""

from __future__ import annotations

from pathlib import Path

from streamlit.runtime.pages_manager import PagesManager
from streamlit.starlette import App

from backend.ui.live.wire import routes

# app.py names the pages. Before it has run once Streamlit would take the folder `pages` for the whole app, and show
# the first visitor who follows a link to one of them a page without its head.
PagesManager.uses_pages_directory = False

app = App(Path(__file__).resolve().parents[2] / "app.py", routes=routes())
