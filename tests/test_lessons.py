"""What holds for every training preset, today's and tomorrow's: no list of names stands here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.catalog import model_facts, resolve
from backend.recipe.base import RecipeError
from backend.recipe.lesson import Lesson, all_lessons
from backend.recipe.training import Training
from backend.saved import PLAIN_NAME, TAKEN
from backend.trainforecast import forecast_training
from backend.ui.train.racing import race_data

FETCHED = ("gemma", "minilm")


@pytest.mark.parametrize("name", sorted(all_lessons()))
def test_it_can_be_trained_and_raced_afterwards(name: str) -> None:
    lesson = all_lessons()[name]
    asked = lesson.training
    assert lesson.look_at.endswith((".", "?"))
    assert PLAIN_NAME.fullmatch(asked.name)
    assert asked.name not in TAKEN
    assert Training.read(asked.model_dump(mode="json")) == asked
    try:
        facts = model_facts(resolve(asked.model))
    except RecipeError:
        assert asked.model in FETCHED
        assert f"make {asked.model}" in lesson.look_at
        return
    asked.check(facts)
    student = model_facts(resolve(asked.smaller)) if asked.smaller else facts
    assert 0 < forecast_training(asked, facts, student).total_bytes < 16e9
    race = race_data(asked)
    assert race["variants"][-1]["switches"]["trained"] == {"name": asked.name}


def test_their_models_have_names_of_their_own() -> None:
    names = [lesson.training.name for lesson in all_lessons().values()]
    assert len(set(names)) == len(names)


def test_every_method_has_a_preset() -> None:
    from backend.recipe.method import all_methods

    used = {kind for lesson in all_lessons().values() for kind in lesson.training.methods}
    assert used == set(all_methods())


def test_a_file_that_is_no_lesson_is_a_card(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(RecipeError, match=r"broken\.json"):
        all_lessons(tmp_path)
    good = next(iter(all_lessons().values())).model_dump(mode="json")
    (tmp_path / "broken.json").write_text(json.dumps(good | {"colour": 1}))
    with pytest.raises(RecipeError, match="colour"):
        all_lessons(tmp_path)
    assert Lesson.read(good)
