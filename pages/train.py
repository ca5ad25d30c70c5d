"""Train: how much of what a cut broke comes back?"""

from __future__ import annotations

from backend.ui.page import draw_notices
from backend.ui.train.page import draw_page

draw_notices()
draw_page()
