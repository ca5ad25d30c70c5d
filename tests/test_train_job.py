"""Trainings through a real worker: killed, paused, cancelled, in the way of a race, and at the end a model."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.recipe.training import Training
from backend.replay import RaceView
from backend.trained import TrainingView
from tests.test_full_disk import no_room
from tests.works import Works

PACE = {"tokens": 40 * 64, "batch": 2, "length": 32, "rate": 0.003, "precision": "fp32"}
LOOKS = {"every": 20, "windows": 2, "questions": 0}


class Trainings(Works[TrainingView]):
    view = TrainingView

    def submit(self, model: Path | str, name: str, **fields: Any) -> int:
        asked = {"model": str(model), "name": name, "student": {"switches": {"drop_layers": {"count": 1}}}}
        asked |= {"pace": PACE, "looks": LOOKS} | fields
        return self.journal.submit("train", asked)

    def trained(self, job: int, steps: int) -> TrainingView:
        """The view once so many steps have been taken."""
        return self.wait(job, lambda view: bool(view.lanes) and view.lane("student").step >= steps)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    works = Trainings(tmp_path_factory.mktemp("train-home"))
    yield works
    works.stop()


def test_what_comes_out_is_a_plain_model_that_stands_in_the_menu(works: Trainings, tiny_folder: Path) -> None:
    view = works.wait(works.submit(tiny_folder, "healed"))
    assert view.state == "finished", view.card
    lane = view.lane("student")
    assert [step["number"] for step in lane.steps] == list(range(40))
    assert [look["step"] for look in lane.looks] == [0, 20, 40]
    assert lane.looks[-1]["kld"] < lane.looks[0]["kld"]
    assert lane.teacher["loss"] > 0
    assert lane.recovered is not None
    assert lane.steps[-1]["rate"] < lane.steps[5]["rate"]
    folder = works.home / "models" / "healed"
    assert lane.saved["folder"] == str(folder)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_hidden_layers == lane_layers(tiny_folder) - 1
    assert not (works.home / "training" / "healed").exists()  # nothing is left to go on with
    again = works.wait(works.submit(tiny_folder, "healed"))
    assert again.card is not None
    assert again.card["field"] == "name"


def lane_layers(folder: Path) -> int:
    from backend.catalog import model_facts, resolve

    return model_facts(resolve(str(folder))).layers


def test_a_killed_one_goes_on_and_ends_where_it_would_have_ended(works: Trainings, tiny_folder: Path) -> None:
    long = PACE | {"tokens": 200 * 64}
    whole = works.wait(works.submit(tiny_folder, "whole", pace=long)).lane("student")
    job = works.submit(tiny_folder, "killed", pace=long, looks=LOOKS | {"checkpoint_s": 0.0})
    works.trained(job, 60)
    works.process.send_signal(signal.SIGKILL)
    works.process.wait()
    works.start()
    view = works.trained(job, 150)
    for lane in works.lanes():
        lane.kill()
    failed = works.wait(job)
    assert failed.state == "failed"
    assert failed.card is not None
    assert "Resume" in failed.card["remedy"]
    works.journal.resume(job)
    lane = works.wait(job).lane("student")
    assert view.lane("student").notes
    assert lane.begun["step"] > 0
    assert [step["number"] for step in lane.steps] == list(range(200))
    assert lane.steps[-1]["loss"] == pytest.approx(whole.steps[-1]["loss"], abs=1e-3)
    assert lane.looks[-1]["loss"] == pytest.approx(whole.looks[-1]["loss"], abs=1e-3)


def test_a_pause_frees_the_lane_and_a_cancel_keeps_the_checkpoint(works: Trainings, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, "paused", pace=PACE | {"tokens": 4000 * 64})
    works.trained(job, 10)
    works.journal.pause(job)
    view = works.wait(job, lambda view: view.state == "paused")
    assert not works.lanes()
    stood = view.lane("student").step
    assert view.lane("student").checkpoints[-1]["step"] == stood
    changed = works.submit(tiny_folder, "paused", pace=PACE | {"tokens": 4000 * 64, "rate": 0.001})
    refused = works.wait(changed)
    assert refused.card is not None
    assert (refused.card["field"], refused.card["value"]) == ("pace.rate", "0.001")
    assert "0.003" in refused.card["allowed"]
    works.journal.resume(job)
    view = works.trained(job, stood + 10)
    assert view.lane("student").begun["step"] == stood
    works.journal.cancel(job)
    view = works.wait(job)
    assert view.state == "cancelled"
    assert list((works.home / "training" / "paused").glob("checkpoint-*"))


def test_a_race_gets_the_machine_within_a_step(works: Trainings, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, "patient", pace=PACE | {"tokens": 4000 * 64})
    works.trained(job, 10)
    race = {"model": str(tiny_folder), "prompt": "Once", "max_new_tokens": 8, "variants": [{}]}
    racing = works.journal.submit("race", race | {"measure": {"budget_s": 0.0}})
    before = works.trained(job, 10).lane("student").step
    view = works.wait(job, lambda view: bool(view.gave_way))
    asked = works.journal.job(racing)
    assert asked is not None
    assert asked.state == "finished"
    assert RaceView().apply_all(works.journal.events(racing)).state == "finished"
    assert view.gave_way[0]["seconds"] > 0
    assert view.gave_way[0]["waited_s"] < 3.0
    assert works.trained(job, before + 10).lane("student").step >= before + 10
    works.journal.cancel(job)
    works.wait(job)


def test_a_full_disk_at_a_checkpoint_leaves_the_old_one(works: Trainings, tiny_folder: Path) -> None:
    looks = LOOKS | {"checkpoint_s": 0.2}
    job = works.submit(tiny_folder, "full", pace=PACE | {"tokens": 4000 * 64}, looks=looks)
    works.wait(job, lambda view: bool(view.lanes) and bool(view.lane("student").checkpoints))
    (lane,) = works.lanes()
    with no_room(psutil.Process(lane.pid)):
        view = works.wait(job, lambda view: bool(view.lane("student").notes))
        held = list((works.home / "training" / "full").glob("checkpoint-*"))
        assert len(held) == 1
        assert not held[0].name.endswith(".part")
    assert "no checkpoint could be written" in view.lane("student").notes[0][1]
    step = view.lane("student").step
    works.wait(job, lambda view: view.lane("student").checkpoints[-1]["step"] > step)
    works.journal.cancel(job)
    works.wait(job)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"text": "/nowhere.txt"}, "text"),
        ({"losses": {"logits": 0.0}}, "losses"),
        ({"pace": PACE | {"batch": 4, "accumulate": 3}}, "pace.accumulate"),
        ({"pace": PACE | {"batch": 4096, "length": 65_536}}, "pace.batch"),
        ({"student": {"switches": {"int8_weight_only": {}}}}, "student.switches.int8_weight_only"),
        ({"methods": {"magic": {}}}, "methods.magic"),
        ({"smaller": "storyteller-moe"}, "smaller"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_bad_orders_end_in_a_card(works: Trainings, tiny_folder: Path, fields: dict[str, Any], field: str) -> None:
    view = works.wait(works.submit(tiny_folder, fields.pop("name", "refused"), **fields))
    assert view.state == "failed"
    assert view.card is not None
    assert view.card["field"] == field, view.card
    assert not works.lanes()


def test_too_little_text_is_refused(works: Trainings, tiny_folder: Path, tmp_path: Path) -> None:
    for words, says in (("", "a file with text in it"), ("Once there was a lantern.", "more than")):
        file = tmp_path / "text.txt"
        file.write_text(words)
        view = works.wait(works.submit(tiny_folder, "short", text=str(file)))
        assert view.card is not None
        assert view.card["field"] == "text"
        assert says in view.card["allowed"]


def test_the_command_line_reads_presets_files_and_json(tmp_path: Path) -> None:
    from argparse import Namespace

    from backend.cli_train import read_training
    from backend.recipe.base import RecipeError

    none = Namespace(name=None, model=None, tokens=None)
    asked = read_training("cut-and-heal", Namespace(name="mine", model=None, tokens=2048))
    assert (asked.name, asked.steps) == ("mine", 2)
    file = tmp_path / "recipe.json"
    file.write_text(asked.model_dump_json())
    assert read_training(str(file), none) == asked == Training.read(asked.model_dump(mode="json"))
    for wrong in ("nothing", "{", "[]", '{"name": "x", "colour": 1}'):
        with pytest.raises(RecipeError):
            read_training(wrong, none)


def test_the_worker_ends_and_leaves_its_training_to_the_next(works: Trainings, tiny_folder: Path) -> None:
    job = works.submit(tiny_folder, "left", pace=PACE | {"tokens": 4000 * 64})
    works.trained(job, 10)
    works.process.terminate()
    assert works.process.wait(20) in (0, -signal.SIGTERM)
    assert works.journal.state(job) == "queued"
    assert list((works.home / "training" / "left").glob("checkpoint-*"))
    works.start()
    view = works.wait(job, lambda view: len(view.lane("student").notes) > 0)
    assert view.lane("student").begun["step"] >= 10
    works.journal.cancel(job)
    works.wait(job)
    assert os.path.isdir(works.home / "training" / "left")
