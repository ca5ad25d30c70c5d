"""Bench: what does this choice do?"""

from __future__ import annotations

from backend.ui import bench, desk
from backend.ui.page import draw_notices

job = desk.current()
bench.fill_form(job)
draw_notices()
facts = bench.draw_order(job)
bench.draw_switches(facts)
bench.draw_cards()
bench.draw_forecast(facts)
bench.draw_race(job, facts)
bench.draw_share(job)
