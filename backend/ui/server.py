"""The pages and the wire of their live element, in one server: what `python -m backend up` lets Streamlit run."""

from __future__ import annotations

from pathlib import Path

from streamlit.starlette import App

from backend.ui.live.wire import routes

app = App(Path(__file__).resolve().parents[2] / "app.py", routes=routes())
