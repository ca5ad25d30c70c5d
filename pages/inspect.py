"""Inspect: where do time and memory go?"""

from __future__ import annotations

from backend.ui.inspect.page import draw_page
from backend.ui.page import draw_notices

draw_notices()
draw_page()
