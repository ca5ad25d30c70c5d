"""Inspections through a real worker, real lanes and a real journal, on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.inspection import InspectionView, explain_peak
from backend.roofline import points
from tests.works import Works

STORY = "Once there was a lantern in the harbor. The lantern is red. Anna was in the harbor. Anna took the lantern"


class Inspections(Works[InspectionView]):
    view = InspectionView

    def submit(self, model: Path | str, *variants: dict[str, Any], **fields: Any) -> int:
        race = {"model": str(model), "prompt": STORY, "variants": [{"switches": one} for one in variants]}
        return self.journal.submit("inspect", {"race": race | fields, "job": None})


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> Iterator[Inspections]:
    works = Inspections(tmp_path_factory.mktemp("inspect-home"))
    yield works
    works.stop()


def test_an_inspection_shows_every_section_and_a_lane_that_fails_takes_nothing_with_it(works, tiny_folder, tmp_path):
    missing = {"draft_model": {"model": str(tiny_folder)}, "cast": {}}
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "other")
    missing = {"draft_model": {"model": str(tmp_path / "other")}}
    view = works.wait(works.submit(tiny_folder, {"int8_dynamic": {}}, missing))
    assert view.state == "finished", view.card
    base, eight, lost = view.lanes["base"], view.lanes["A"], view.lanes["B"]
    assert lost.failure["cause"] == "refused"
    assert base.done
    assert eight.done
    assert [phase["name"] for phase in base.timeline["phases"]] == ["load", "transform", "prefill", "decode"]
    assert base.timeline["kv_bytes"] > 0
    assert sum(explain_peak(base.timeline).values()) >= base.peak["peak_bytes"]
    assert sum(eight.timeline["weights"].values()) < sum(base.timeline["weights"].values())
    for lane in (base, eight):
        assert lane.times["decode"]["step_s"] > 0
        assert len(lane.times["decode"]["layers"]) == 2
        assert points(lane.name, "decode", lane.times, lane.machine)
        assert lane.operators["decode"]["rows"]
        assert (works.home / "traces" / lane.operators["prefill"]["trace"]).is_file()
        assert len(lane.outliers["layers"]) == 15
        assert sorted(lane.maps) == [0, 1]
        assert len(lane.attention["texts"]) == lane.attention["of"]
    assert len(base.importance) == 2
    assert len(base.importance[0]) == 4
    assert "packed" in eight.unavailable["importance"]
    assert {scheme: list(found) for scheme, found in base.sensitivity.items()} == {
        **{scheme: ["0", "1", "head"] for scheme in ("int4", "int8", "int8_dynamic")},
        "split": ["head"],
    }
    assert sorted(base.rankings["heads"]) == ["activation", "entropy", "output", "taylor", "weights"]
    assert sorted(base.rankings["layers"]) == ["angular", "cosine"]
    assert {len(row) for one in base.rankings["heads"].values() for row in one["scores"]} == {4}
    assert not eight.rankings
    assert not eight.sensitivity
    assert eight.ready["receipt"]["effects"][0]["took_effect"] is True
    assert any("quantized" in name or "linear_dynamic" in name for name, *_ in eight.operators["decode"]["rows"])


def test_progress_only_grows_and_cancel_keeps_what_was_found(works, tiny_folder):
    job = works.submit(tiny_folder, {"cast": {}})
    works.wait(job, lambda view: bool(view.lanes.get("base") and view.lanes["base"].times))
    works.journal.cancel(job)
    view = works.wait(job)
    assert view.state == "cancelled"
    assert view.lanes["base"].times
    assert not view.lanes["A"].timeline
    told = [event.data for event in works.journal.events(job) if event.kind == "phase"]
    done = [phase["done"] for phase in told]
    assert done == sorted(done)
    assert max(done) < told[0]["total"]


def test_a_shape_is_timed_but_has_no_numbers_to_show(works):
    import json

    shape = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 320, "max_position_embeddings": 512,
    }  # fmt: skip
    view = works.wait(works.submit("shape:" + json.dumps(shape), {"cast": {}}))
    assert view.state == "finished", view.card
    lane = view.lanes["A"]
    assert lane.times["prefill"]["parts"]
    assert set(lane.unavailable) == {"outliers", "attention", "importance"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"model": "no-such-model"}, "model"), ({"variants": [{"switches": {"nonsense": {}}}]}, "switches.nonsense")],
)
def test_bad_orders_end_in_a_card(works, tiny_folder, fields, field):
    fields = dict(fields)
    view = works.wait(works.submit(fields.pop("model", tiny_folder), {}, **fields))
    assert view.state == "failed"
    assert view.card["field"] == field
