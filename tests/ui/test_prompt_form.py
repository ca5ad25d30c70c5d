"""The prompt set in the form: the menu, the list, the file, and what becomes of a mistake in any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.race import Race

Open = Callable[..., AppTest]


def one(elements: Any, label: str) -> Any:
    return next(element for element in elements if element.label.startswith(label))


def errors(app: AppTest) -> str:
    return "\n".join(error.value for error in app.error).replace("\\", "")


def race_now(app: AppTest, journal: Journal) -> Race:
    one(app.button, "Race").click().run()
    return Race.read(journal.jobs(kind="race")[0].spec)


def test_a_mix_is_chosen_from_the_menu(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    one(app.selectbox, "prompt set").set_value("mix").run()
    assert not app.exception
    measure = race_now(app, journal).measure
    assert (measure.prompt_set, measure.prompts) == ("mix", "")


def test_a_list_is_typed_kept_while_another_set_is_chosen_and_raced(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    one(app.selectbox, "prompt set").set_value("list").run()
    assert "Write the prompts, or choose another prompt set" in errors(app)
    one(app.text_area, "Prompts").set_value("Once\nAnna").run()
    assert not app.error
    one(app.selectbox, "prompt set").set_value("one").run()
    assert not app.exception
    assert not app.error
    one(app.selectbox, "prompt set").set_value("list").run()
    assert one(app.text_area, "Prompts").value == "Once\nAnna"
    measure = race_now(app, journal).measure
    assert (measure.prompt_set, measure.prompts) == ("list", "Once\nAnna")


def test_mistakes_in_a_list_are_cards_and_start_no_race(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    one(app.selectbox, "prompt set").set_value("list").run()
    one(app.text_area, "Prompts").set_value("Once\n\nAnna").run()
    assert "line 2 is empty" in errors(app)
    one(app.text_area, "Prompts").set_value("Once\n" * 10_000).run()
    assert "10,000 lines" in errors(app)
    one(app.button, "Race").click().run()
    assert journal.jobs() == []


def test_a_text_file_fills_the_list_and_another_file_is_a_card(open_bench: Open, journal: Journal) -> None:
    app = open_bench()
    one(app.selectbox, "prompt set").set_value("list").run()
    app.file_uploader[0].set_value(("prompts.txt", b"Once\nAnna\n", "text/plain")).run()
    assert not app.exception
    assert not app.error
    assert one(app.text_area, "Prompts").value == "Once\nAnna\n"
    for data, words in ((b"\x89PNG\xff", "byte 0 is not text"), (b"a\0b", "NUL"), (b"x\n" * 10_000, "10,000 lines")):
        app.file_uploader[0].set_value(("other.bin", data, "application/octet-stream")).run()
        assert not app.exception
        assert words in errors(app)
        assert one(app.text_area, "Prompts").value == "Once\nAnna\n"  # nothing is lost
    assert race_now(app, journal).measure.prompts == "Once\nAnna\n"
