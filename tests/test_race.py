"""Races through a real worker, real lanes and a real journal, on a tiny model: and what killing them leaves."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.replay import RaceView
from tests.works import Works

STORY = "Once there was a lantern in the harbor. The lantern is red. Anna was in the harbor. Anna took the lantern"
QUICK = {"budget_s": 2.0, "tokens": 8, "quality_tokens": 512, "questions": 4}


class Bench(Works[RaceView]):
    view = RaceView

    def submit(self, model: Path | str, *variants: dict[str, Any], **fields: Any) -> int:
        spec = {"model": str(model), "prompt": STORY, "max_new_tokens": 24, "measure": QUICK}
        spec |= {"variants": [{"switches": switches} for switches in variants]} | fields
        return self.journal.submit("race", spec)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("race-home"))
    yield bench
    bench.stop()


def racing(view: RaceView) -> bool:
    return view.phase.get("name") == "racing" and bool(view.baseline and view.baseline.ids)


def test_a_race_shows_everything_and_keeps_it(bench, tiny_folder, tiny_draft_folder):
    draft = {"draft_model": {"model": str(tiny_draft_folder), "tokens": 3}}
    job = bench.submit(tiny_folder, {"int8_weight_only": {}}, draft)
    view = bench.wait(job)
    assert view.state == "finished", view.card
    base, eight, drafted = view.lanes["base"], view.lanes["A"], view.lanes["B"]
    assert [len(lane.ids) for lane in (base, eight, drafted)] == [24, 24, 24]
    assert drafted.ids == base.ids  # lossless: greedy text is the baseline's, token for token
    assert drafted.decode.mean_kld < 1e-6
    assert 0 < eight.decode.mean_kld < 0.1
    assert len(eight.decode.kld) == 24
    assert len(eight.prefill.kld) == view.opened["prompt_tokens"] - 1
    assert eight.memory["weights_bytes"] < base.memory["weights_bytes"]
    assert base.memory["kv_bytes"] > 0
    assert drafted.speculation["drafted"] > 0
    assert base.perplexity["value"] > 1
    assert base.perplexity["protocol"]["context"] == 256
    assert eight.receipt["effects"][0]["took_effect"] is True
    assert len(eight.decode.top5) == 24
    assert eight.worst["decode"][0]["kld"] == max(eight.decode.kld)
    assert eight.worst["prefill"][0]["kld"] == max(eight.prefill.kld)
    assert not base.worst
    assert eight.cloze["total"] == len(base.cloze["marks"]) == QUICK["questions"]
    verdict = view.verdict["lanes"]
    assert verdict["A"]["speed"]["low"] <= verdict["A"]["speed"]["ratio"] <= verdict["A"]["speed"]["high"]
    assert verdict["B"]["identical_tokens"] == 24
    assert verdict["B"]["alarm"]["raised"] is False  # lossless
    assert "cloze" in verdict["A"]
    assert verdict["B"]["rouge_l"] == pytest.approx(1.0)
    assert view.opened["versions"]["torch"]
    replayed = RaceView().apply_all(bench.journal.events(job))
    assert replayed.verdict == view.verdict


def test_clocks_only_count_the_lanes_own_steps(bench, tiny_folder):
    view = bench.wait(bench.submit(tiny_folder, {}))
    for lane in view.lanes.values():
        assert lane.clock == sorted(lane.clock)
    assert sum(lane.clock[-1] for lane in view.lanes.values()) < view.wall_s


def test_a_shape_runs_without_quality(bench):
    shape = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 320, "max_position_embeddings": 512,
    }  # fmt: skip
    view = bench.wait(bench.submit("shape:" + json.dumps(shape), {"cast": {}}))
    assert view.state == "finished", view.card
    assert view.opened["scored"] is False
    assert not view.lanes["A"].decode.kld
    assert len(view.lanes["A"].ids) == 24


def test_cancel_takes_effect_within_a_slice(bench, tiny_folder):
    job = bench.submit(tiny_folder, {"int8_weight_only": {}}, max_new_tokens=900, prompt="Once there was a map")
    bench.wait(job, racing)
    began = time.monotonic()
    bench.journal.cancel(job)
    view = bench.wait(job)
    assert view.state == "cancelled"
    assert time.monotonic() - began < 5
    assert 0 < len(view.baseline.ids) < 900  # what was measured stays
    assert not bench.lanes()


def test_a_calibration_is_cancelled_and_leaves_nothing_half_done(bench):
    job = bench.submit("storyteller", {"int8_static": {"tokens": 8192}})
    bench.wait(job, lambda view: "Calibrating" in (view.phase.get("text") or ""))
    began = time.monotonic()
    bench.journal.cancel(job)
    assert bench.wait(job).state == "cancelled"
    assert time.monotonic() - began < 5
    assert not bench.lanes()
    assert not list(bench.home.glob("calibrated/*"))


def test_a_killed_lane_is_an_event_and_the_others_finish(bench, tiny_folder):
    job = bench.submit(tiny_folder, {"int8_weight_only": {}}, {"cast": {}}, max_new_tokens=600, prompt="Once")
    bench.wait(job, racing)
    names = {name: pid for pid, name in ((p.pid, p.name()) for p in bench.lanes())}
    assert len(bench.lanes()) == 3, names
    max(bench.lanes(), key=lambda p: p.pid).kill()  # the last that was started: lane B
    view = bench.wait(job)
    assert view.state == "finished", view.card
    assert view.lanes["B"].failure["cause"] == "killed"
    assert len(view.lanes["A"].ids) == len(view.lanes["base"].ids) == 600
    assert view.verdict["lanes"]["B"]["failed"] is True
    assert "speed" in view.verdict["lanes"]["A"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"model": "no-such-model"}, "model", ""),
        ({"prompt": "Once " * 3000}, "prompt", "context"),
        ({"variants": [{"switches": {"prune_heads": {"ratio": 0.99}}}]}, "switches.prune_heads", "at least one of 4"),
        ({"variants": [{"switches": {"kv_heads": {"count": 3}}}]}, "switches.kv_heads", "divides 4"),
        ({"variants": [{"switches": {"kv_heads": {"count": 9}}}]}, "switches.kv_heads", "4 key-value heads"),
        ({"variants": [{"switches": {"nonsense": {}}}]}, "switches.nonsense", "int8_weight_only"),
        ({"surprise": 1}, "surprise", "prompt"),
    ],
)
def test_bad_input_ends_in_a_card_within_ten_seconds(bench, tiny_folder, fields, field, words):
    fields = dict(fields)
    began = time.monotonic()
    model = fields.pop("model", tiny_folder)
    view = bench.wait(bench.submit(model, {}, **fields), limit_s=20)
    assert view.state == "failed"
    assert view.card["field"] == field
    assert words in view.card["allowed"]
    assert view.card["remedy"]
    assert time.monotonic() - began < 10


def test_a_draft_with_another_vocabulary_is_refused_and_the_race_goes_on(bench, tiny_folder, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "other")
    job = bench.submit(tiny_folder, {"draft_model": {"model": str(tmp_path / "other")}}, {})
    view = bench.wait(job)
    assert view.state == "finished"
    assert view.lanes["A"].failure["cause"] == "refused"
    assert "draft" in view.lanes["A"].failure["detail"] or "vocab" in view.lanes["A"].failure["detail"]
    assert len(view.lanes["B"].ids) == 24


def test_two_people_queue_in_order(bench, tiny_folder):
    first, second = bench.submit(tiny_folder, {}), bench.submit(tiny_folder, {})
    assert bench.journal.place(second) >= 1
    assert bench.wait(second).state == "finished"
    assert bench.journal.job(first).state == "finished"
    assert bench.journal.job(first).finished <= bench.journal.job(second).finished


def test_a_killed_worker_loses_nothing_written_and_the_next_one_says_so(tmp_path, tiny_folder):
    bench = Bench(tmp_path)
    try:
        job = bench.submit(tiny_folder, {}, max_new_tokens=900, prompt="Once")
        seen = bench.wait(job, racing)
        lanes = bench.lanes()
        bench.process.send_signal(signal.SIGKILL)
        bench.process.wait()
        _gone, alive = psutil.wait_procs(lanes, timeout=10)
        assert not alive, "a lane outlived its worker"
        bench.start()
        view = bench.wait(job, limit_s=30)
        assert view.state == "failed"
        assert view.card["field"] == "worker"
        assert view.baseline.ids[: len(seen.baseline.ids)] == seen.baseline.ids
        assert bench.wait(bench.submit(tiny_folder, {})).state == "finished"
    finally:
        bench.stop()
