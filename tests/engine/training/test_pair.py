"""Stages: who teaches whom, what each is made from, and that a kill in the middle of one changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from backend.catalog import model_facts, resolve
from backend.engine.training.layermap import ORIGIN
from backend.engine.training.pair import check_stages
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.trainforecast import forecast_training
from backend.trainlane import TrainLane

DROP = {"switches": {"drop_layers": {"count": 1}}}
FEWER = {"switches": {"prune_neurons": {"ratio": 0.5}}}
Lane = Callable[..., TrainLane]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, storyteller_tokenizer: Any) -> Path:
    """A seeded Llama of four layers."""
    from tests.conftest import _save_tiny

    return _save_tiny(tmp_path_factory.mktemp("models") / "deep", storyteller_tokenizer, seed=9, layers=4)


def order(model: Path | str, name: str = "stages", **fields: Any) -> dict[str, Any]:
    pace = {"tokens": 12 * 64, "batch": 2, "length": 32, "rate": 0.003, "precision": "fp32"}
    looks = {"every": 100, "windows": 1, "questions": 0}
    return {"model": str(model), "name": name, "student": DROP, "pace": pace, "looks": looks} | fields


def stages(*recipes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"assistants": [{"student": recipe, "share": 0.3} for recipe in recipes]} | fields


@pytest.fixture
def lane(home: Path) -> Lane:
    """A lane of this process, loaded."""

    def make(**asked: Any) -> TrainLane:
        made = TrainLane("student", asked, lambda share, text: None)
        made.load()
        return made

    return make


def train(lane: TrainLane, until: int = 10**6) -> list[tuple[str, dict[str, Any]]]:
    """What was told until a step has been taken, or to the end."""
    told: list[tuple[str, dict[str, Any]]] = []
    while True:
        reply = lane.train(seconds=0.0)
        told += reply["told"]
        if reply["ended"] or reply["step"] >= until:
            return told


def test_each_stage_has_its_steps_its_curve_and_its_teacher(lane: Lane, deep: Path) -> None:
    one = lane(**order(deep, stages=stages(DROP, DROP, made_from="before")))
    assert one.asked.stage_steps == [4, 4, 4]
    told = train(one)
    steps = [data for kind, data in told if kind == "stepped"]
    assert [step["stage"] for step in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert [step["number"] for step in steps] == list(range(12))
    assert steps[0]["rate"] == steps[4]["rate"] == steps[8]["rate"]
    looks = [(data["stage"], data["step"]) for kind, data in told if kind == "looked" and data["who"] == "student"]
    assert looks == [(0, 0), (0, 4), (1, 4), (1, 8), (2, 8), (2, 12)]
    assert all("kld" in data for kind, data in told if kind == "looked" and data["who"] == "student")
    heads = [data for kind, data in told if kind == "staged"]
    assert [head["stage"] for head in heads] == [1, 2]
    assert heads[0]["teacher_parameters"] > heads[0]["parameters"] > heads[1]["parameters"]
    assert heads[1]["teacher_parameters"] == heads[0]["parameters"]
    one.save()
    assert model_facts(resolve("stages")).layers == 1


def test_who_teaches_and_what_it_is_made_from_are_choices(lane: Lane, deep: Path) -> None:
    two = {"switches": {"drop_layers": {"count": 2}}}
    one = lane(**order(deep, student=two, stages=stages(DROP, teacher="first")))
    first = one._pair.first
    train(one, until=9)
    assert one.stage == 1
    assert one._pair.teacher is first
    assert len(one._pair.student.notes[ORIGIN]) == 2
    whole = set(dict(first.model.named_parameters()))
    assert whole > set(dict(one._pair.student.model.named_parameters()))


def test_a_student_made_out_of_the_assistant_has_its_weights(lane: Lane, deep: Path) -> None:
    one = lane(**order(deep, student=FEWER, stages=stages(DROP, made_from="before")))
    train(one, until=4)
    assistant = one._pair.student
    assert one.stage == 0
    while one.stage == 0:
        one.train(seconds=0.0)
    kept = load_file(one._folder / "stage-0.safetensors")
    student = one._pair.student
    assert student is not assistant
    assert student.notes[ORIGIN] == assistant.notes[ORIGIN]
    own = student.model.state_dict()
    assert torch.equal(own["model.layers.0.self_attn.q_proj.weight"], kept["model.layers.0.self_attn.q_proj.weight"])
    assert own["model.layers.0.mlp.up_proj.weight"].shape[0] < kept["model.layers.0.mlp.up_proj.weight"].shape[0]
    teacher = one._pair.teacher.model.state_dict()
    assert all(torch.equal(teacher[name], value) for name, value in kept.items())


@pytest.mark.parametrize(("at", "made_from"), [(2, "original"), (6, "before"), (9, "before")])
def test_killed_in_any_stage_it_goes_on_as_if_it_had_not_been(at: int, made_from: str, lane: Lane, deep: Path) -> None:
    counts = [1, 2, 3] if made_from == "original" else [1, 1, 1]
    recipes = [{"switches": {"drop_layers": {"count": count}}} for count in counts]
    fields = {
        "student": recipes[2],
        "stages": stages(*recipes[:2], made_from=made_from),
        "losses": {"logits": 1.0, "hidden": 0.5},
    }
    whole = [data for kind, data in train(lane(**order(deep, "whole", **fields))) if kind == "stepped"]
    killed = lane(**order(deep, "killed", **fields))
    train(killed, until=at)
    killed.checkpoint()
    killed.train(seconds=0.0)  # what a kill loses
    again = lane(**order(deep, "killed", **fields))
    assert (again.step, again.stage) == (at, killed.asked.stage_steps and at // 4)
    rest = [data for kind, data in train(again) if kind == "stepped"]
    assert [step["loss"] for step in rest] == pytest.approx([step["loss"] for step in whole[at:]], rel=1e-5)


def test_stages_that_do_not_shrink_are_refused_beforehand(deep: Path) -> None:
    facts = model_facts(resolve(str(deep)))
    two = {"switches": {"drop_layers": {"count": 2}}}
    with pytest.raises(RecipeError) as refused:
        check_stages(Training.read(order(deep, stages=stages(two))), facts)
    assert refused.value.field == "student"
    with pytest.raises(RecipeError) as refused:
        check_stages(Training.read(order(deep, student=two, stages=stages(DROP, two, DROP))), facts)
    assert refused.value.field == "stages.assistants.2.student"
    with pytest.raises(RecipeError) as refused:  # the third finds no layer that it could leave
        check_stages(Training.read(order(deep, student=two, stages=stages(two, made_from="before"))), facts)
    assert refused.value.field == "switches.drop_layers"
    check_stages(Training.read(order(deep, student=two, stages=stages(DROP, two))), facts)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stages": {"assistants": [{"student": DROP, "share": 0.6}] * 2}}, "stages.assistants"),
        ({"smaller": "storyteller-draft", "stages": stages(DROP, made_from="before")}, "stages.made_from"),
        ({"stages": stages(*[DROP] * 20) | {"assistants": [{"student": DROP, "share": 0.01}] * 20}}, "pace.tokens"),
        ({"stages": {"assistants": [{"share": 0.5}]}}, "stages.assistants.0.student"),
    ],
)
def test_stages_that_cannot_be(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Training.read(order("storyteller", **fields))
    assert refused.value.field == field


@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_stage_has_a_step_and_all_have_the_steps_of_all(count: int) -> None:
    shares = [{"student": DROP, "share": 0.98 / count}] * count
    asked = Training.read(order("storyteller", stages={"assistants": shares}, pace={"tokens": 12 * 1024}))
    assert len(asked.stage_steps) == count + 1
    assert min(asked.stage_steps) >= 1
    assert sum(asked.stage_steps) == asked.steps == 12
    for stage, steps in enumerate(asked.stage_steps):
        assert asked.at(stage).steps == steps
        assert Training.read(json.loads(json.dumps(asked.at(stage).model_dump(mode="json")))).steps == steps


def test_an_assistant_that_teaches_is_counted(deep: Path) -> None:
    facts = model_facts(resolve(str(deep)))
    held = {}
    for teacher in ("first", "before"):
        asked = Training.read(order(deep, stages=stages(DROP, teacher=teacher)))
        held[teacher] = forecast_training(asked, facts, facts).teacher_bytes
    assert held["before"] > held["first"] == 4 * facts.parameters


@pytest.mark.parametrize(
    ("model", "smaller", "field"),
    [("storyteller-draft", "storyteller", "smaller"), ("storyteller", "minilm", "smaller")],
)
def test_pairs_that_cannot_learn(model: str, smaller: str, field: str, lane: Lane, tiny_encoder_folder: Path) -> None:
    smaller = str(tiny_encoder_folder) if smaller == "minilm" else smaller
    with pytest.raises(RecipeError) as refused:
        lane(**order(model, smaller=smaller, student={}))
    assert refused.value.field == field


def test_another_tokenizer_ends_in_a_card(lane: Lane, deep: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    other = tmp_path / "other"
    shutil.copytree(deep, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["onlyhere"])
    tokenizer.save_pretrained(other)
    with pytest.raises(RecipeError) as refused:
        lane(**order(deep, smaller=str(other), student={}))
    assert refused.value.field == "smaller"
    assert "tokenizer" in refused.value.allowed


@pytest.mark.parametrize("text", ["", "Too little to learn from."])
def test_a_text_with_nothing_in_it_ends_in_a_card(text: str, lane: Lane, deep: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text)
    with pytest.raises(RecipeError) as refused:
        lane(**order(deep, text=str(file)))
    assert refused.value.field == "text"


@pytest.mark.parametrize(
    "student", [{"switches": {"prune_width": {"ratio": 0.5}}}, {"switches": {"prune_neurons": {"ratio": 0.5}}}]
)
def test_a_student_by_width_begins_with_its_teachers_weights(student: dict[str, Any], lane: Lane, deep: Path) -> None:
    losses, pace = {"logits": 1.0, "hidden": 0.5, "attention": 0.5}, {"tokens": 40 * 64, "rate": 0.0005}
    fields = order(deep, student=student, losses=losses)
    one = lane(**fields | {"pace": fields["pace"] | pace})
    ours, theirs = (
        subject.model.get_parameter("model.layers.0.self_attn.v_proj.weight")
        for subject in (one._pair.student, one._pair.first)
    )
    columns = {tuple(column) for column in theirs.T.tolist()}
    assert {tuple(column) for column in ours.T.tolist()} <= columns
    found = [data["loss"] for kind, data in train(one) if kind == "stepped"]
    assert sum(found[-8:]) < sum(found[:8])
    saved = one.save()
    assert not any("projection" in name for name in load_file(Path(saved["folder"]) / "model.safetensors"))
