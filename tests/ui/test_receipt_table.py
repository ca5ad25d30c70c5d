"""The receipt on the page: every fact in words, side by side, with what differs marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import staged
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.replay import RaceView
from backend.ui.receipt_words import by_layer, differs, left_out, rows

BASE: dict[str, Any] = {
    "families": [
        {"class": "Embedding", "format": "float32", "count": 1, "weights": 4, "bytes": 16, "sparsity": 0.0},
        {"class": "Linear", "format": "float32", "count": 9, "weights": 8, "bytes": 32, "sparsity": 0.25},
    ],
    "weights": 12, "weights_bytes": 48, "bits_per_weight": 32.0, "sparsity": 1 / 6, "sparsity_of": 12,
    "layers": 3, "heads": 4, "kv_heads": [4, 4, 2], "head_dim": 16,
    "kv_bytes_per_token": 1536, "kv_layers": [{"class": "DynamicLayer", "count": 3, "grows": "with every token"}],
    "run": {"cache": "DynamicCache", "prefill_kernels": {"sdpa flash": 3}, "decode_kernels": {}, "busy_threads": 1,
            "compiled_regions": 0},
    "compiled": None, "threads": 2, "places": {"cpu": 30}, "effects": [],
}  # fmt: skip
PACKED = BASE | {
    "families": [{"class": "Int4Linear", "format": "int4", "count": 9, "weights": 8, "bytes": 5, "sparsity": None}],
    "sparsity_of": 4,
    "compiled": {"mode": "default", "graphs": 2, "graph_breaks": 1},
    "effects": [{"skipped": [{"layer": "norm", "reason": "by design"}, {"layer": "rope", "reason": "by design"}]}],
}


def test_facts_in_words() -> None:
    cells = dict(rows({"base": BASE, "A": PACKED}))
    assert cells["Layers that hold weights"]["base"] == "1 Embedding float32; 9 Linear float32"
    assert cells["Zeros among weights"] == {"base": "17%", "A": "17% of the 4.00 that can be read"}
    assert cells["Zeros by class"] == {"base": "Linear float32 25%", "A": "Int4Linear int4 packed"}
    assert cells["KV heads"]["base"] == "4 in layers 0 to 1, 2 in layer 2"
    assert cells["Attention kernel in prefill"]["base"] == "sdpa flash, 3 times"
    assert cells["Attention kernel in decode"]["base"] == "none"
    assert cells["Compiled"] == {"base": "no", "A": "default, graphs: 2, graph breaks: 1"}
    assert cells["Threads"]["base"] == "2, 1 computed"


def test_a_receipt_of_an_older_version_tells_what_it_knows() -> None:
    assert [title for title, _ in rows({"base": {"weights_bytes": 5}})] == ["Weights held"]


def test_differences_are_those_from_the_baseline() -> None:
    cells = dict(rows({"base": BASE, "A": PACKED, "B": BASE}))
    assert differs(cells["Compiled"], "A")
    assert not differs(cells["Compiled"], "B")
    assert not differs(cells["Compiled"], "base")
    assert not differs(cells["Heads"], "A")


def test_what_was_left_out_is_grouped_by_reason() -> None:
    assert left_out(PACKED) == ["norm, rope: by design"]


def test_by_layer() -> None:
    assert by_layer(None) == "not known"
    assert by_layer([8, 8, 6, 8]) == "8 in layers 0 to 1, 6 in layer 2, 8 in layer 3"


def test_the_page_shows_it_under_the_verdict(open_bench: Callable[..., AppTest], journal: Journal) -> None:
    race = staged.race()
    job = journal.submit("race", race.model_dump(mode="json"))
    view: RaceView = staged.play(journal, job, race)
    app = open_bench(job=str(job))
    assert not app.exception
    assert "Receipt" in [one.label for one in app.expander]
    table = app.table[0].value
    assert list(table.columns) == ["", "baseline", "A", "B"]
    held = table[table[""] == "Weights held"].iloc[0]
    assert held["baseline"] == "103 MB"
    assert held["A"].replace("\\", "") == "≠ 36.0 MB"
    assert held["B"] == "103 MB"
    assert view.lanes["A"].receipt
    left = "\n".join(one.value for one in app.caption).replace("\\", "")
    assert "A, left as it was: model.layers.0.norm" in left
