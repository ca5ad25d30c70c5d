"""The floor under the forecast: live lanes, each a process of its own, against what was predicted of them.

Weights within 1%, the peak of a request within 10%, decode never above its ceiling; on the storyteller, three shapes
of random weights, and Gemma.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.catalog import model_facts, resolve
from backend.executors.local import LocalExecutor
from backend.foretold import forecast_events
from backend.idle import IdleMeasurement
from backend.journal import Journal
from backend.machine import kept_process_bytes, this_machine
from backend.recipe.race import Race

pytestmark = pytest.mark.alone

PROMPT = "Once there was a lantern in the harbor. The lantern is red. Anna was in the harbor. Anna took the lantern"
SHAPES: dict[str, dict[str, Any]] = {
    "mha": {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4,
            "num_attention_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False},
    "gqa": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 2432, "num_hidden_layers": 3,
            "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 16000, "tie_word_embeddings": True},
    "deep": {"model_type": "mistral", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 16,
             "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4096, "tie_word_embeddings": False},
}  # fmt: skip
MODELS = {name: f"shape:{json.dumps(shape | {'max_position_embeddings': 1024})}" for name, shape in SHAPES.items()}
LIBRARIES_VARY = 16 * 10**6  # bytes
INT8: dict[str, Any] = {"int8_weight_only": {}}
INT4: dict[str, Any] = {"int4_weight_only": {"group_size": 32}}
MIXED: dict[str, Any] = {"mixed_precision": {"levels": "0-3:int4 6:keep"}}


@pytest.fixture(scope="module")
def measured_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder in which this machine has been measured as the worker does it."""
    folder = tmp_path_factory.mktemp("measured")
    before = os.environ.get("HEADWAY_HOME")
    os.environ["HEADWAY_HOME"] = str(folder)
    with Journal() as journal:
        idle = IdleMeasurement(journal, LocalExecutor(), beat=lambda: None)
        idle._quiet_since = float("-inf")
        idle.rest()
    yield folder
    del os.environ["HEADWAY_HOME"]
    if before is not None:
        os.environ["HEADWAY_HOME"] = before


def run(model: str, switches: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What was predicted of a lane, its memory once it is warm, and one request."""
    race = Race.read({"model": model, "prompt": PROMPT, "max_new_tokens": 48, "baseline": {"switches": switches},
                      "variants": [{}]})  # fmt: skip
    lane = LocalExecutor().start("base", race.model_dump(mode="json"))
    try:
        loaded = lane.call("load")
        lane.call("transform")
        memory = lane.call("warm", ring=None, vocab=loaded["vocab"])["memory"]
        request = lane.call("request", tokens=48)
    finally:
        lane.stop()
    facts = replace(model_facts(resolve(model)), devices=("cpu",))
    [_, _, predicted] = forecast_events(race, facts, loaded["prompt_tokens"])[0]
    return predicted, memory, request


def hold(model: str, switches: dict[str, Any]) -> None:
    """The three floors."""
    predicted, memory, request = run(model, switches)
    assert memory["weights_bytes"] == pytest.approx(predicted["weights_bytes"], rel=0.01)
    # In bf16 a CPU's kernels hold one copy of the largest matrix, or sometimes two: a forecast cannot know which. Nor
    # what packed ones keep beside a small model: 65 to 83 MB were seen of one shape, alike for all lanes of a worker.
    packed = bool(switches) and "cast" not in switches
    far, least = 0.18 if "cast" in switches else 0.10, LIBRARIES_VARY if packed else 0
    wanted = pytest.approx(predicted["run_bytes"], rel=far, abs=least)
    if packed and request["peak_bytes"] != wanted:
        _, _, request = run(model, switches)  # what packed ones keep differs from process to process
    assert request["peak_bytes"] == wanted
    first, *rest = request["emitted_s"]
    assert len(rest) / (rest[-1] - first) <= predicted["tokens_per_s"]
    assert request["ttft_s"] >= predicted["prefill_s"]


@pytest.mark.parametrize(
    "switches", [{}, INT8, INT4, MIXED, {"int8_dynamic": {}}], ids=["fp32", "int8", "int4", "mixed", "dynamic"]
)
def test_the_storyteller_keeps_to_its_forecast(measured_home: Path, switches: dict[str, Any]) -> None:
    hold("storyteller", switches)


@pytest.mark.parametrize("switches", [{}, INT8, {"cast": {}}], ids=["fp32", "int8", "bf16"])
@pytest.mark.parametrize("shape", sorted(MODELS))
def test_shapes_keep_to_their_forecast(measured_home: Path, shape: str, switches: dict[str, Any]) -> None:
    hold(MODELS[shape], switches)


@pytest.mark.real
@pytest.mark.parametrize("switches", [{}, INT8, {"int8_dynamic": {}}], ids=["fp32", "int8", "dynamic"])
def test_gemma_keeps_to_its_forecast(measured_home: Path, gemma_folder: Path, switches: dict[str, Any]) -> None:
    hold(str(gemma_folder), switches)


def test_the_idle_worker_has_measured_this_machine(measured_home: Path) -> None:
    machine = this_machine()
    assert machine is not None
    assert machine.memory_bytes_per_s > 1e8
    assert machine.bandwidth_bytes_per_s(1) >= machine.memory_bytes_per_s
    assert 5e6 < (kept_process_bytes() or 0) < 1e9
