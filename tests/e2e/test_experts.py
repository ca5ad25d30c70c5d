"""A mixture of experts in a browser: colours in the text, the map that fills, and the table below the card."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from backend.recipe.race import Race
from backend.ui.share import pack
from tests.e2e.journey import press_race, view_of, wait_for_end

PROMPT = "Once there was a lantern in the harbor. The lantern is red. Anna was in the harbor. Anna took the lantern"


def eight_experts() -> str:
    """The address part of a short race against one expert a token."""
    return pack(Race.read({
        "model": "storyteller-moe",
        "prompt": PROMPT,
        "max_new_tokens": 48,
        "variants": [{"switches": {"expert_top_k": {"count": 1}}}],
        "measure": {"budget_s": 0.0, "quality_tokens": 256, "questions": 4},
    }))  # fmt: skip


def test_where_each_token_went_is_seen(app: Any, new_page: Any, shoot: Callable[..., Path]) -> None:
    page: Page = new_page(viewport={"width": 1280, "height": 1500})
    page.goto(f"{app.url}/?race={eight_experts()}")
    race = press_race(page)
    wait_for_end(page)
    section = page.locator("section.race").first
    expect(section.get_by_role("img", name=re.compile("6 layers down, 8 experts across"))).to_have_count(2)
    base = section.locator("[data-lane=base]")
    expect(base.locator(".tok.expert").first).to_have_attribute("title", re.compile(r"expert \d and \d of layer 0"))
    section.get_by_label("Layer whose experts colour the text").select_option("layer 3")
    expect(base.locator(".tok.expert").first).to_have_attribute("title", re.compile(r"expert \d and \d of layer 3"))
    one = section.locator("[data-lane=A] .tok.expert").first
    expect(one).to_have_attribute("title", re.compile(r"expert \d of layer 3"))
    text = base.locator(".flow").inner_text()
    section.get_by_label("Layer whose experts colour the text").select_option("no layer")
    expect(base.locator(".tok.expert")).to_have_count(0)
    assert base.locator(".flow").inner_text() == text
    page.get_by_text("Experts: who does the work").click()
    expect(page.get_by_text("Coefficient of variation, mean over layers").first).to_be_attached()
    shoot(page, "experts", full_page=True)
    lanes = view_of(app, race).verdict["lanes"]
    assert lanes["base"]["routing"]["per_token"] == 2
    assert lanes["A"]["routing"]["per_token"] == 1
    assert lanes["base"]["routing"]["tokens"] == 47
    assert lanes["base"]["routing"]["variation"] < 1.0
