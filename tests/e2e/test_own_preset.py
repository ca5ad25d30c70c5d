"""A race saved as a preset and shared, in a real browser: what was set stands in the form again."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from backend.recipe.race import Race, all_presets
from backend.ui.share import pack, unpack
from tests.e2e.journey import wait_for_end

TITLE = "<b>x</b> *y*"
PROMPT = "Once there was a <i>silver</i> map in the *tower*."


def quick() -> Race:
    """The race of a first visit, with few tokens and a short measurement, and a prompt of its own."""
    first = all_presets()["storyteller-int8-and-draft"].race
    spec = first.model_dump(mode="json") | {"prompt": PROMPT, "max_new_tokens": 32}
    spec["measure"] |= {"budget_s": 2.0, "tokens": 16, "questions": 4, "quality_tokens": 256}
    return Race.read(spec)


def save(page: Page, title: str) -> None:
    """Type a title and press Save at once, as people do."""
    field = page.get_by_role("textbox", name="Title")
    if not field.is_visible():
        page.get_by_role("button", name="Save as preset").click()
    field.fill(title)
    page.get_by_role("button", name="Save", exact=True).click()


def test_a_race_becomes_a_preset_and_the_form_holds_it_again(app: Any, new_page: Any) -> None:
    race = quick()
    page = new_page()
    page.goto(f"{app.url}/?race={pack(race)}")
    page.get_by_role("button", name="Race", exact=True).click()
    wait_for_end(page)

    save(page, TITLE)
    saved = page.get_by_text("Saved. It stands in the preset menu as")
    expect(saved).to_contain_text(TITLE)
    assert saved.locator("b, em, strong").count() == 0
    save(page, TITLE)
    expect(page.get_by_text("a title that is not taken")).to_be_visible()
    save(page, "")
    expect(page.get_by_text("a title with letters or digits")).to_be_visible()
    assert [path.name for path in (app.home / "presets").glob("b-x*.json")] == ["b-x-b-y.json"]

    again = new_page()
    again.goto(app.url)
    prompt = again.get_by_role("textbox", name="Prompt")
    expect(prompt).not_to_have_value(PROMPT)
    menu = again.get_by_role("combobox", name="Preset")
    menu.click()
    menu.fill("</b>")
    option = again.get_by_role("option", name=TITLE, exact=True)
    expect(option).to_be_visible()
    assert option.locator("b, em, strong").count() == 0
    option.click()
    expect(prompt).to_have_value(PROMPT)
    again.get_by_role("button", name="Share this setting").click()
    again.wait_for_url(re.compile("race="))
    assert unpack(re.search(r"race=([\w-]+)", again.url).group(1)) == race


def test_the_share_button_of_a_result_gives_its_race(app: Any, new_page: Any) -> None:
    page = new_page()
    race = quick()
    page.goto(f"{app.url}/?race={pack(race)}")
    page.get_by_role("button", name="Race", exact=True).click()
    page.wait_for_url(re.compile(r"job=\d+"))
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text(re.compile(r"Race \d+\. Cancelled"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Share", exact=True).click()
    link = page.get_by_test_id("stCode")
    expect(link).to_contain_text("?race=")
    url = "".join(link.inner_text().split())
    assert url.startswith(app.url)
    fresh = new_page()
    fresh.goto(url)
    expect(fresh.get_by_role("textbox", name="Prompt")).to_have_value(PROMPT)
