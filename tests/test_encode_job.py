"""Encoders' races through a real worker, real lanes and a real journal, on a tiny BERT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.encodingview import EncodingView
from backend.sentences import own_sentences
from tests.works import Works

SHAPE = {
    "model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 512,
}  # fmt: skip


class Encodings(Works[EncodingView]):
    view = EncodingView

    def submit(self, model: Path | str, *variants: dict[str, Any], kind: str = "encode", **fields: Any) -> int:
        race = {
            "model": str(model),
            "prompt": "A lantern in the harbor",
            "variants": [{"switches": one} for one in variants],
            "measure": {"budget_s": 1.0},
        }
        return self.journal.submit(kind, race | fields)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encodings]:
    works = Encodings(tmp_path_factory.mktemp("encode-home"))
    yield works
    works.stop()


def test_a_race_of_encoders_shows_speed_vectors_and_receipts(works: Encodings, tiny_encoder_folder: Path) -> None:
    view = works.wait(works.submit(tiny_encoder_folder, {"int8_weight_only": {}}, {"prune_heads": {"ratio": 0.5}}))
    assert view.state == "finished", view.card
    assert view.sizes == [1, 8, 32]
    lanes = view.verdict["lanes"]
    assert view.verdict["measurement"]["rounds"] >= 4
    for name, lane in lanes.items():
        assert not lane["failed"]
        assert not lane["no_effect"], lane["effects"]
        for size in ("1", "8", "32"):
            at = lane["sizes"][size]
            assert at["sentences_per_s"] > 0
            assert at["call_s"]["p50"] <= at["call_s"]["p95"]
            assert at["worth"]["neighbours"]["asked"] == len(own_sentences().sentences)
            assert ("speed" in at) == (name != "base")
    eight, pruned = lanes["A"]["sizes"]["32"], lanes["B"]["sizes"]["32"]
    assert eight["speed"]["low"] <= eight["speed"]["ratio"] <= eight["speed"]["high"]
    assert 0.9 < eight["worth"]["cosine"]["mean"] <= 1.0
    assert eight["worth"]["ranks"] > pruned["worth"]["ranks"]
    assert lanes["A"]["memory"]["ratio"] > 1.0
    assert view.lanes["B"].receipt["heads"] == 2
    assert view.lanes["base"].receipt["run"]["encode_kernels"]
    assert len(view.lanes["A"].found) == 5


def test_calls_of_one_round_are_paired_and_turned_round(works: Encodings, tiny_encoder_folder: Path) -> None:
    view = works.wait(works.submit(tiny_encoder_folder, {"cast": {}}))
    assert view.state == "finished", view.card
    base, other = (view.lanes[name].encoded for name in ("base", "A"))
    assert [(d["round"], d["size"]) for d in base] == [(d["round"], d["size"]) for d in other]
    for ours, theirs in zip(base, other, strict=True):
        assert ours["order"] == ours["round"] % 2
        assert ours["order"] + theirs["order"] == 1
        assert ours["tokens"] == theirs["tokens"]
        assert len(ours["call_s"]) * ours["size"] == ours["sentences"]


def test_a_shape_is_timed_and_never_scored(works: Encodings) -> None:
    view = works.wait(works.submit(f"shape:{json.dumps(SHAPE)}", {"int8_dynamic": {}}))
    assert view.state == "finished", view.card
    assert view.opened["scored"] is False
    assert not view.lanes["A"].worth
    assert not view.lanes["A"].found
    assert view.verdict["lanes"]["A"]["sizes"]["8"]["speed"]["ratio"] > 0


def test_cancel_keeps_what_was_measured(works: Encodings, tiny_encoder_folder: Path) -> None:
    slow = {"budget_s": 60.0, "width": 0.0001}
    job = works.submit(tiny_encoder_folder, {"cast": {}}, measure=slow)
    works.wait(job, lambda view: bool(view.lanes.get("A") and view.lanes["A"].encoded))
    works.journal.cancel(job)
    view = works.wait(job)
    assert view.state == "cancelled"
    assert view.lanes["A"].encoded
    assert view.lanes["base"].worth
    assert view.verdict is None


def test_a_lane_that_is_killed_is_an_event_and_takes_nothing_with_it(
    works: Encodings, tiny_encoder_folder: Path
) -> None:
    slow = {"budget_s": 4.0, "width": 0.0001}
    job = works.submit(tiny_encoder_folder, {"cast": {}}, {"int8_weight_only": {}}, measure=slow)
    works.wait(job, lambda view: bool(view.lanes.get("B") and view.lanes["B"].encoded))
    last_lane(works.process.pid).kill()  # lanes are started in their order: the youngest is B's
    view = works.wait(job)
    assert view.state == "finished", view.card
    assert view.lanes["B"].failure["cause"] in ("killed", "out of memory")
    assert view.verdict["lanes"]["B"]["failed"]
    assert "speed" in view.verdict["lanes"]["A"]["sizes"]["1"]


def last_lane(worker: int) -> psutil.Process:
    """The youngest child of the worker's fork server."""
    below = psutil.Process(worker).children(recursive=True)
    lanes = [process for process in below if process.parent() and process.parent().pid != worker]
    return max(lanes, key=lambda process: (process.create_time(), process.pid))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": "storyteller"}, "model"),
        ({"model": "no-such-model"}, "model"),
        ({"variants": [{"switches": {"draft_model": {}}}]}, "switches.draft_model"),
        ({"variants": [{"switches": {"static_cache": {}}}]}, "switches.static_cache"),
        ({"variants": [{"switches": {"drop_layers": {"count": 2}}}]}, "switches.drop_layers"),
        ({"variants": [{"switches": {"compile": {}}}]}, "switches.compile"),
        ({"budget": {"kld": 0.1}}, "budget.kld"),
        ({"measure": {"prompt_set": "mix"}}, "measure.prompt_set"),
    ],
)
def test_what_an_encoder_cannot_be_asked_ends_in_a_card(
    works: Encodings, tiny_encoder_folder: Path, fields: dict[str, Any], field: str
) -> None:
    asked = {"model": str(tiny_encoder_folder)} | fields
    view = works.wait(works.submit(asked.pop("model"), {}, **asked))
    assert view.state == "failed"
    assert view.card["field"] == field
    assert not view.lanes


def test_a_decoders_race_refuses_an_encoder(works: Encodings, tiny_encoder_folder: Path) -> None:
    view = works.wait(works.submit(tiny_encoder_folder, {}, kind="race"))
    assert view.state == "failed"
    assert view.card["field"] == "model"
