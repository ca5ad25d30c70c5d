"""An encoder under every kind of int8: one race each of three variants, as the Bench would run it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from backend.encoding import Encodeway
from backend.journal import Journal
from benchmarks._bench import Bench, make_race

RACES: tuple[dict[str, dict[str, Any]], ...] = (
    {
        "int8 static, minmax": {"int8_static": {"observer": "minmax"}},
        "int8 static, percentile": {"int8_static": {"observer": "percentile"}},
        "int8 static, mse": {"int8_static": {"observer": "mse"}},
    },
    {
        "int8 dynamic": {"int8_dynamic": {}},
        "int8 dynamic, per token": {"int8_dynamic": {"scale": "token"}},
        "int8 weights": {"int8_weight_only": {}},
    },
)
SIZES = ("1", "8", "32")
HEAD = (
    "| method | sentences/s one by one | in calls of 8 | in calls of 32 | cosine, mean | least | rank correlation | "
    "topic found | weights |",
    f"|{' --- |' * 9}",
)


def encoder_section(bench: Bench, model: str) -> str:
    """The table of one encoder; checks what static int8 must reach in calls of 8."""
    lines, fastest = list(HEAD), 0.0
    for methods in RACES:
        lanes = verdict(bench, model, methods)["lanes"]
        for name, lane in zip(methods, (lanes[key] for key in "ABC"), strict=True):
            lines.append(row(name, lane))
            eight = lane["sizes"]["8"]
            if "static" in name:
                cosine = eight["worth"]["cosine"]["mean"]
                print(f"        {model}, {name}: {eight['speed']['ratio']:.3f} at a cosine of {cosine:.4f}", flush=True)
                fastest = max(fastest, eight["speed"]["ratio"] if cosine > 0.99 else 0.0)
    bench.check(f"{model}, static int8 with a cosine above .99, calls of 8 over fp32", fastest, at_least=1.8)
    about = (
        "Sentences a second over fp32's with 95% intervals; the rest in calls of 8, cosine and order against fp32's."
    )
    return f"## {model}\n\n{about}\n\n" + "\n".join(lines)


def verdict(bench: Bench, model: str, methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One whole race of encoders."""
    race = make_race(model, "Something warm to drink", *methods.values(), measure={"budget_s": 40})
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        job = journal.submit("encode", race.model_dump(mode="json"))
        journal.claim("benchmark", "encode")
        with Encodeway(journal, job, race, bench.executor, beat=lambda: None).running() as way:
            way.run()
            return dict(way.encoding.verdict or {})


def row(name: str, lane: dict[str, Any]) -> str:
    """One line of the table."""
    speeds = [lane["sizes"][size]["speed"] for size in SIZES]
    worth = lane["sizes"]["8"]["worth"]
    cells = (
        name,
        *(f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in speeds),
        f"{worth['cosine']['mean']:.4f}",
        f"{worth['cosine']['min']:.3f}",
        f"{worth['ranks']:.3f}",
        f"{worth['neighbours']['right']} of {worth['neighbours']['asked']}",
        f"{lane['memory']['ratio']:.2f}x smaller",
    )
    return f"| {' | '.join(cells)} |"
