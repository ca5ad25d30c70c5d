"""An inspection that never ran: its events in the shapes of backend/inspection.py, for tests of what shows them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any

from backend.inspection import InspectionView
from backend.journal import Journal

Told = tuple[str, str | None, dict[str, Any]]
LABELS = {"base": "unchanged", "A": "int8 weights, draft", "B": "50% zeros"}
LAYERS, HEADS, TOKENS = 4, 2, 6
TEXTS = ["Once", " there", " <b>was</b>", " a", " *red*", "\n"]
KLD = {"0": 0.01, "1": 0.02, "2": 0.01, "3": 0.4}  # of the first layers; the storyteller, which is sized, has eight
EDGES = [round(-4 + 0.2 * n, 3) for n in range(41)]


def timeline(scale: float) -> dict[str, Any]:
    names, ends = ("load", "transform", "prefill", "decode"), (1.0, 1.4, 1.5, 2.0)
    starts = (0.0, *ends[:-1])
    phases = [
        {"name": name, "start_s": start, "end_s": end, "peak_bytes": int(peak * scale)}
        for name, start, end, peak in zip(names, starts, ends, (150e6, 120e6, 130e6, 125e6), strict=True)
    ]
    return {
        "phases": phases,
        "at_s": [0.02 * n for n in range(100)],
        "resident_bytes": [int(scale * min(120e6, 3e6 * n)) for n in range(100)],
        "weights_loaded": {"embed": 2_000_000, "feed_forward": 70_000_000, "attention": 30_000_000},
        "weights": {"embed": 2_000_000, "feed_forward": int(70e6 * scale), "attention": int(30e6 * scale)},
        "kv_bytes": 1_000_000,
        "logits_bytes": 3072,
    }


def times(scale: float) -> dict[str, Any]:
    parts = {"feed_forward": 0.004, "attention": 0.002, "head": 0.0001, "norm": 0.0003, "python": 0.0005}
    one = {part: spent * scale for part, spent in parts.items()}
    shape = {"parts": one, "layers": [0.0016 * scale] * (LAYERS - 1) + [0.004 * scale], "step_s": sum(one.values())}
    work = {
        "feed_forward": {"bytes": 70e6, "flops": 35e6},
        "attention": {"bytes": 30e6, "flops": 15e6},
        "norm": {"bytes": 1e4, "flops": 1e4},
        "head": {"bytes": 2e6, "flops": 1e6},
    }
    heavy = {part: {"bytes": one["bytes"], "flops": one["flops"] * 500} for part, one in work.items()}
    return {"decode": shape, "prefill": shape, "work": {"decode": work, "prefill": heavy}, "dtype": "float32"}


def machine() -> dict[str, Any]:
    return {
        "threads": 2,
        "device": "cpu",
        "read_bytes_per_s": 25e9,
        "copy_bytes_per_s": 20e9,
        "flops_per_s": {"float32": 150e9, "bfloat16": 900e9},
        "buffer_bytes": 960_000_000,
        "cache_bytes": 480_000_000,
        "spent_s": 1.9,
        "kept": False,
    }


def layer(name: str, number: int, ratio: float, zero_share: float) -> dict[str, Any]:
    histogram = [0] * 40
    histogram[18], histogram[22], histogram[30] = 700, 300, 2
    return {
        "name": name, "layer": number, "rows": 256, "max_abs": 2 * ratio, "rms": 2.0, "ratio": ratio,
        "range_share": 0.9, "zero_share": zero_share, "channel": 443, "token": 0, "histogram": histogram,
        "weight": {"ratio": 9.0, "max_abs": 1.0, "histogram": histogram},
    }  # fmt: skip


def lane_events(lane: str) -> Iterator[list[Told]]:
    scale = {"base": 1.0, "A": 0.5, "B": 1.1}[lane]
    yield [("timeline", lane, timeline(scale))]
    receipt = {"label": LABELS[lane], "parameters": 25_700_000, "receipt": {"effects": []}, "memory": {}}
    yield [("ready", lane, receipt), ("machine", lane, machine()), ("part_times", lane, times(scale))]
    for shape in ("decode", "prefill"):
        rows = [["aten::mm", 448, 0.03 * scale, 0.031], ["aten::mul", 300, 0.01, 0.01]]
        figures = {"runs": 8, "profiled_s": 0.06, "plain_s": 0.05, "trace_bytes": 5000}
        trace = f"inspect-1-{lane}-{shape}.json.gz"
        yield [("operators", lane, {"shape": shape, "rows": rows, "trace": trace, **figures})]
    worst = [layer("model.layers.3.mlp.down_proj", 3, 402.0, 0.94), layer("model.layers.0.mlp.up_proj", 0, 6.0, 0.03)]
    yield [("outliers", lane, {"tokens": 256, "edges": EDGES, "layers": worst})]
    table = [[0.1 * (number + head) for head in range(HEADS)] for number in range(LAYERS)]
    facts = {"layers": LAYERS, "texts": TEXTS, "of": 11, "entropy": table, "first": table, "previous": table}
    yield [("attention", lane, facts)]
    for number in range(LAYERS):
        packed = base64.b64encode(zlib.compress(bytes([40] * (HEADS * TOKENS * TOKENS)))).decode()
        yield [("attention_map", lane, {"layer": number, "heads": HEADS, "tokens": TOKENS, "packed": packed})]
    if lane == "A":
        yield [("unavailable", lane, {"section": "importance", "reason": "no gradient passes through packed layers"})]
    else:
        yield [("head_gradients", lane, {"gradients": table, "tokens": 64})]
    if lane == "base":
        yield [("ranking", lane, one) for one in rankings()]
        for scheme, scale in (("int4", 1.0), ("int8", 0.01), ("int8_dynamic", 1.0)):
            for unit, loss in (*KLD.items(), *((str(number), 0.005) for number in range(4, 8)), ("head", 0.03)):
                kld = loss * scale
                figures = {"kld": kld, "kld_p95": 2 * kld, "top1": 1 - kld, "tokens": 64}
                yield [("sensitivity", lane, {"scheme": scheme, "unit": unit, **figures})]
    yield [("inspected", lane, {"label": LABELS[lane]})]


def rankings() -> Iterator[dict[str, Any]]:
    """Of the storyteller, which has eight layers of eight heads: head 5 of layer 2 is worth least, layer 6 too."""
    for by in ("output", "taylor"):
        scores = [[1.0 + 0.1 * head + layer for head in range(8)] for layer in range(8)]
        scores[2][5] = 0.01
        yield {"part": "heads", "by": by, "scores": scores, "tokens": 512, "together": 1}
    for by in ("cosine", "angular"):
        distances = [[0.3 - 0.02 * layer] for layer in range(7)] + [[0.4]]
        yield {"part": "layers", "by": by, "scores": distances, "tokens": 512, "together": 1}


def play(journal: Journal, job: int, race: int | None, until: str = "finished") -> InspectionView:
    """Write the inspection into the journal; `until` is its last state, 'running' to leave it open."""
    opened = {"versions": {"torch": "2.13.0"}, "hardware": {"cores": 2}, "lanes": LABELS, "job": race, "model": "m"}
    journal.append(job, [("opened", None, opened)])
    phase = {"name": "timing parts", "done": 12.0, "total": 100.0, "eta_s": 31.0, "text": ""}
    journal.append(job, [("phase", "base", phase)])
    for lane in LABELS:
        if lane != "base" and until != "finished":
            break
        if lane == "B":
            failure = {"cause": "killed", "detail": "signal 9", "remedy": "Race again.", "phase": "loading"}
            journal.append(job, [("lane_failed", "B", failure)])
            break
        for told in lane_events(lane):
            journal.append(job, told)
    if until == "failed":
        card = {"field": "model", "value": "x", "allowed": "a model that is here", "remedy": "Choose another."}
        journal.append(job, [("failed", None, {"card": card})])
    elif until != "running":
        journal.append(job, [(until, None, {"wall_s": 61.0})])
    if until != "running":
        journal.finish(job, until)
    return InspectionView().apply_all(journal.events(job))
