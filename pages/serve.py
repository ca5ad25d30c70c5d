"""Serve: what do many requests at once get out of one model?"""

from __future__ import annotations

from backend.ui.page import draw_notices
from backend.ui.serve.page import draw_page

draw_notices()
draw_page()
