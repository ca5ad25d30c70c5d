"""One recipe in one process, in two, and on a Ray cluster of two workers: the same steps and the same model."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from backend.cli_race import BAD_RECIPE, FINISHED, LANE_FAILED
from backend.cli_traingroup import bear, run
from backend.journal import GROUP, Job, Journal
from backend.recipe.base import RecipeError
from backend.recipe.training import Training
from backend.trained import TrainingView
from tests.together import together

STEPS = 20
PACE = {"tokens": STEPS * 64, "batch": 2, "length": 32, "rate": 0.001, "precision": "fp32"}
LOOKS = {"every": 10, "windows": 2, "questions": 0}
NO_RAY = importlib.util.find_spec("ray") is None


def recipe(model: Path, **fields: Any) -> dict[str, Any]:
    cut = {"switches": {"drop_layers": {"count": 1}}}
    return {"model": str(model), "name": "pair", "student": cut, "pace": PACE, "looks": LOOKS} | fields


def launched(order: dict[str, Any], homes: list[str], then: Callable[[int], None] | None = None, steps: int = 0) -> Any:
    """What one process of a launcher does; `then` is called with its rank after so many steps of the first one."""
    rank = int(os.environ["RANK"])
    os.environ["HEADWAY_HOME"] = homes[rank]
    if then is not None:
        threading.Thread(target=_after, args=(homes[0], steps, then, rank), daemon=True).start()
    return run(Namespace(what=json.dumps(order), name=None, model=None, tokens=None, json=True))


def _after(home: str, steps: int, then: Callable[[int], None], rank: int) -> None:
    while len(told(Path(home), latest(Path(home)).id).lane("student").steps) < steps:
        time.sleep(0.01)
    then(rank)


def terminate(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def second_dies(rank: int) -> None:
    if rank == 1:
        os._exit(7)


def latest(home: Path) -> Job:
    while True:
        with Journal(home / "journal.sqlite") as journal:
            for job in journal.jobs("train", limit=1):
                return job
        time.sleep(0.01)


def told(home: Path, job: int) -> TrainingView:
    view = TrainingView()
    with Journal(home / "journal.sqlite") as journal:
        view.apply_all(journal.events(job))
    return view


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The home in which one process has trained."""
    from backend.engine.training.replicas import ALONE
    from backend.executors.here import HereExecutor

    home = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWAY_HOME", str(home))
        assert bear(Training.read(recipe(tiny_folder)), HereExecutor(ALONE), as_json=True) == FINISHED
    return home


def assert_same(home: Path, alone: Path) -> None:
    """The same losses, gradients and looks at each step, and the same weights at the end."""
    one, two = (told(place, latest(place).id).lane("student") for place in (alone, home))
    assert (one.begun["processes"], two.begun["processes"]) == (1, 2)
    assert [step["number"] for step in two.steps] == list(range(STEPS))
    for first, second in zip(one.steps, two.steps, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert second["norm"] == pytest.approx(first["norm"], abs=1e-5)
    assert [look["step"] for look in two.looks] == [0, 10, 20]  # the first process alone looks
    for first, second in zip(one.looks, two.looks, strict=True):
        assert second["kld"] == pytest.approx(first["kld"], abs=1e-5)
    weights, theirs = (load_file(place / "models" / "pair" / "model.safetensors") for place in (alone, home))
    for name, value in weights.items():
        np.testing.assert_allclose(theirs[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_two_processes_of_a_launcher_make_the_model_that_one_makes(
    tmp_path: Path, tiny_folder: Path, alone: Path
) -> None:
    assert together(2, launched, recipe(tiny_folder), [str(tmp_path)] * 2) == [FINISHED] * 2
    job = latest(tmp_path)
    assert (job.state, job.owner) == ("finished", "command line")
    assert_same(tmp_path, alone)


@pytest.mark.alone  # Ray gives up where its own processes do not start within 30 s
@pytest.mark.skipif(NO_RAY, reason="RAY IS NOT INSTALLED: the cluster of two workers was not tried")
def test_a_ray_cluster_of_two_workers_makes_the_model_that_one_makes(
    tmp_path: Path, tiny_folder: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.executors.raycluster import RayExecutor

    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    asked = Training.read(recipe(tiny_folder))
    with pytest.raises(RecipeError, match=r"a multiple of 3 x 1"):
        RayExecutor(asked, 3)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RecipeError, match="no cluster 127"):
        RayExecutor(asked, 2)
    monkeypatch.delenv("RAY_ADDRESS")
    with RayExecutor(asked, 2) as executor:
        assert bear(asked, executor, as_json=True) == FINISHED
    assert_same(tmp_path, alone)


def test_without_ray_the_card_says_how_to_get_it() -> None:
    from backend.executors.raycluster import part_of_ray

    with pytest.raises(RecipeError) as refused:
        part_of_ray("ray.that_is_not_there")
    assert refused.value.field == "--ray"
    assert "pip install ray==" in refused.value.remedy


def test_it_ends_at_a_signal_with_a_checkpoint_and_goes_on_from_it(tmp_path: Path, tiny_folder: Path) -> None:
    long = recipe(tiny_folder, pace=PACE | {"tokens": 400 * 64}, name="long", looks=LOOKS | {"every": 200})
    homes = [str(tmp_path)] * 2
    assert together(2, launched, long, homes, terminate, 5) == [LANE_FAILED, FINISHED]
    assert latest(tmp_path).state == "cancelled"
    (held,) = (tmp_path / "training" / "long").glob("checkpoint-*")
    step = int(held.name.removeprefix("checkpoint-"))
    apart = tmp_path / "apart"  # a second machine that does not see the checkpoint
    assert together(2, launched, long, [str(tmp_path), str(apart)]) == [BAD_RECIPE] * 2
    card = told(tmp_path, latest(tmp_path).id).card
    assert card is not None
    assert card["value"] == f"checkpoints of the steps 0, {step}"
    assert together(2, launched, long, homes, second_dies, 5) == [LANE_FAILED, 7]
    view = told(tmp_path, latest(tmp_path).id)
    assert view.lane("student").begun["step"] == step
    assert view.card is not None
    assert view.card["field"] == "processes"
    assert "has ended" in view.card["value"]


def test_when_the_first_sees_no_more_gain_the_others_are_let_go(tmp_path: Path, tiny_folder: Path) -> None:
    looks = LOOKS | {"every": 2, "patience": 2}
    order = recipe(tiny_folder, looks=looks, pace=PACE | {"rate": 1e-9})
    assert together(2, launched, order, [str(tmp_path)] * 2) == [FINISHED] * 2
    view = told(tmp_path, latest(tmp_path).id)
    assert view.lane("student").ended == {"step": 4, "reason": "no gain in 2 looks"}
    assert view.lane("student").saved["name"] == "pair"


def test_what_cannot_be_is_refused_in_all(tmp_path: Path, tiny_folder: Path) -> None:
    for fields, field in (({"pace": PACE | {"batch": 3}}, "pace.batch"), ({"text": "/nowhere.txt"}, "text")):
        assert together(2, launched, recipe(tiny_folder, **fields), [str(tmp_path)] * 2) == [BAD_RECIPE] * 2
        card = told(tmp_path, latest(tmp_path).id).card
        assert card is not None
        assert card["field"] == field


def test_no_worker_takes_up_what_a_group_trains(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        name = f"{GROUP}here:1:2"
        journal.beat(name, 1)
        job = journal.submit("train", {}, worker=name)
        assert journal.state(job) == "running"
        assert journal.claim("a worker", "train") is None
        assert journal.workers() == []  # it takes no other job
        journal.fail_orphans(alive=journal.workers(groups=True))
        assert journal.state(job) == "running"
        journal.leave(name)
        journal.fail_orphans(alive=journal.workers(groups=True))  # the group was killed: a worker goes on alone
        assert journal.state(job) == "queued"
