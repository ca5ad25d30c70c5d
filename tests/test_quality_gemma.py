"""The alarm on a real model: the int8 that breaks Gemma's outliers raises it, the int8 that keeps them does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.journal import Journal
from backend.replay import RaceView

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
SPEC = {
    "model": "gemma",
    "prompt": "The history of the city began when a small group of people came down the river and built the first "
    "houses on its northern bank, where the ground was dry and the forest gave them wood and game.",
    "max_new_tokens": 64,
    "variants": [{"switches": {"int8_dynamic": {}}}, {"switches": {"int8_weight_only": {}}}],
    "measure": {"budget_s": 0.0, "quality_tokens": 512, "questions": 4},
    "budget": {"kld": 0.05, "top1": 0.85, "perplexity_ratio": 1.05},
}


@pytest.fixture(scope="module")
def view(gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaceView]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / gemma_folder.name).symlink_to(gemma_folder, target_is_directory=True)
    worker = subprocess.Popen([sys.executable, "-m", "backend.worker"], env=os.environ | {"HEADWAY_HOME": str(home)})
    try:
        with Journal(home / "journal.sqlite") as journal:
            job = journal.submit("race", SPEC)
            while not journal.job(job).ended:
                assert worker.poll() is None, "the worker is gone"
                time.sleep(0.5)
            yield RaceView().apply_all(journal.events(job))
    finally:
        worker.terminate()
        worker.wait(20)


def test_dynamic_int8_raises_the_alarm_and_weight_only_does_not(view: RaceView) -> None:
    assert view.state == "finished", view.card
    dynamic, weight_only = (view.verdict["lanes"][name] for name in ("A", "B"))
    assert dynamic["alarm"]["raised"] is True
    fell = {(fall["metric"], fall["shape"]) for fall in dynamic["alarm"]["fell"]}
    assert {("kld", "prefill"), ("perplexity", None)} <= fell
    assert dynamic["top1"] < 0.9  # over few tokens its interval may reach the limit
    assert weight_only["alarm"]["raised"] is False
    assert weight_only["kld_prefill"]["mean"] < 0.02
    assert dynamic["kld"]["mean"] > 5 * weight_only["kld"]["mean"]
    assert weight_only["kld"]["mean"] < 0.02 < dynamic["kld"]["mean"] < dynamic["kld_prefill"]["mean"]
    assert weight_only["top5"] > dynamic["top5"] > dynamic["top5_prefill"]


def test_the_budget_says_pass_and_fail(view: RaceView) -> None:
    assert view.verdict["lanes"]["A"]["budget"]["verdict"] == "fail"
    assert view.verdict["lanes"]["B"]["budget"]["verdict"] == "pass"


def test_the_worst_tokens_are_text_with_probabilities(view: RaceView) -> None:
    for shape in ("decode", "prefill"):
        spots = view.lanes["A"].worst[shape]
        assert [spot["kld"] for spot in spots] == sorted((spot["kld"] for spot in spots), reverse=True)
        assert spots[0]["kld"] > 0.3
        assert all(spot["text"] and len(spot["base"]) == len(spot["variant"]) == 5 for spot in spots)
        assert all(0 < sum(one["p"] for one in spot["base"]) <= 1.0001 for spot in spots)


def test_last_words_of_real_text_are_found_by_some(view: RaceView) -> None:
    cloze = view.verdict["lanes"]["B"]["cloze"]
    assert cloze["asked"] == 12
    assert cloze["baseline_share"] > 0.2
