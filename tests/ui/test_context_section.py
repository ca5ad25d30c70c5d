"""The context on the Inspect page: asked, running, ended, and what its curves say in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import staged
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.contexts import READY, ContextSweep
from backend.recipe.race import Race
from backend.swept import SweptLane
from backend.ui.inspect import contextplot
from backend.ui.inspect.contexts import offered

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = [128, 256, 512]


def a_length(length: int, *klds: float) -> dict[str, Any]:
    caches = [
        {"kld": kld, "low": 0.0, "high": 1.5 * kld, "most": 3 * kld, "top1": 1.0, "loss": 2 + kld}
        | {"kv_bytes": 300 * length}
        for kld in klds
    ]
    return {"length": length, "loss": 2.0, "kv_bytes": 1000 * length, "caches": caches}


def a_time(length: int, step_s: float) -> dict[str, Any]:
    parts = {"attention": 0.3 * step_s, "cache": 0.1 * step_s, "feed_forward": 0.6 * step_s}
    told = {"length": length, "prompt_tokens": length, "step_s": step_s, "parts": parts}
    return told | {"linear": {"attention": 0.2 * step_s}, "kv_bytes": 1000 * length, "peak_bytes": 10**8}


QUALITY = [a_length(128, 1e-4, 0.004), a_length(256, 1e-4, 0.008), a_length(512, 2e-4, 0.05)]


def order(**fields: Any) -> ContextSweep:
    names = ["int8 cache", "int4 cache"]
    caches = [READY[name].model_dump(mode="json") for name in names] if fields.get("ask") != "speed" else []
    return ContextSweep.read({"race": staged.race().model_dump(mode="json"), "caches": caches, **fields})


def swept(journal: Journal, asked: ContextSweep, state: str) -> int:
    """A sweep that never ran."""
    job = journal.submit("context", asked.model_dump(mode="json"))
    journal.claim("a worker", "context")
    lanes = {"base": "unchanged"} | ({"A": "int8"} if asked.ask == "speed" else {})
    journal.append(job, [("opened", None, {"lanes": lanes, "model": "storyteller"})])
    phase = {"name": "sweeping the context", "done": 3.0, "total": 12.0, "eta_s": 40.0, "text": "512 tokens"}
    journal.append(job, [("phase", "base", phase), ("context_start", "base", {"lengths": LENGTHS, "scored": 64})])
    if asked.ask == "quality":
        journal.append(job, [("context_quality", "base", found) for found in QUALITY])
    else:
        times = [("base", 0.01), ("base", 0.02), ("A", 0.01), ("A", 0.03)]
        found = [(lane, a_time(128 * 2 ** (n % 2), s)) for n, (lane, s) in enumerate(times)]
        journal.append(job, [("context_speed", lane, one) for lane, one in found])
    if state != "running":
        journal.append(job, [(state, None, {"wall_s": 30.0})])
        journal.finish(job, state)
    return job


def shown(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.markdown, *app.caption, *app.error]).replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    return next(one for one in app.button if one.label == label)


def test_both_are_asked_for(open_page: Callable[[], AppTest], journal: Journal, inspection: int) -> None:
    app = open_page()
    assert not app.exception
    assert "Which cache is safe for this model" in shown(app)
    button(app, "Score these caches").click().run()
    button(app, "Sweep the context").click().run()
    assert not app.exception
    speed, quality = (ContextSweep.read(job.spec) for job in journal.jobs(kind="context"))
    assert (speed.ask, quality.ask, quality.job) == ("speed", "quality", inspection)
    assert [recipe.label for recipe in quality.caches][:2] == ["int8 cache", "int4 cache"]
    assert button(app, "Score these caches").disabled


def test_while_it_runs_the_curves_fill_and_it_can_be_cancelled(
    open_page: Callable[[], AppTest], journal: Journal, inspection: int
) -> None:
    job = swept(journal, order(job=inspection), "running")
    app = open_page()
    assert not app.exception
    told = str(app.get("progress")[0].proto).replace("\\", "")
    assert "sweeping the context, 512 tokens, 25%, 40 s left, estimated" in told
    assert "int8 cache: safe for this model up to 512 tokens" in shown(app)
    button(app, "Cancel").click().run()
    assert journal.cancelled(job)


@pytest.mark.parametrize("state", ["finished", "cancelled"])
def test_the_verdict_is_told_and_so_is_the_cost(
    open_page: Callable[[], AppTest], journal: Journal, inspection: int, state: str
) -> None:
    swept(journal, order(job=inspection), state)
    swept(journal, order(job=inspection, ask="speed"), state)
    app = open_page()
    assert not app.exception
    text = shown(app)
    assert "int8 cache: safe for this model up to 512 tokens, KLD at most 0.000200" in text
    assert "longer texts were not measured" in text
    assert "int4 cache: safe for this model up to 128 tokens" in text
    assert "at 512 tokens KLD is 0.0500" in text
    assert "At 512 tokens: the full cache 512 kB, int8 cache 154 kB (30%)" in text
    assert "Mean of the 64 tokens before 512: the full cache 2.00, int8 cache 2.00, int4 cache 2.05" in text
    assert "10.0 ms a step after 128 tokens, 20.0 ms after 256" in text
    assert "20% of a step after 128 tokens" in text


def test_a_cache_that_is_never_safe_is_told_so() -> None:
    curve = [point | {"length": 128} for point in a_length(128, 0.4)["caches"]]
    told = contextplot.verdict("int2 cache", curve, order())
    assert told == "int2 cache: not safe for this model at any length measured; at 128 tokens KLD is 0.400."
    told = contextplot.verdict("int2 cache", [curve[0] | {"kld": 0.009, "high": 0.02}], order())
    assert "the mean keeps the bound, but its interval does not" in told


def test_a_sweep_from_before_losses_were_kept_is_drawn_without_them() -> None:
    lane = SweptLane(
        "base", quality=[{name: value for name, value in a_length(128, 1e-4, 0.1).items() if name != "loss"}]
    )
    assert contextplot.loss(lane, order(), True).figure is None
    assert contextplot.quality(lane, order(), True).figure is not None


def test_windows_are_offered_without_and_with_sinks() -> None:
    assert {"window 256", "window 256, 4 sinks"} < set(READY)


def test_nothing_measured_is_said() -> None:
    assert contextplot.quality(SweptLane("base"), order(), True).figure is None
    assert contextplot.held(SweptLane("base"), order(), True).figure is None
    assert contextplot.speed([SweptLane("base")], False)[0].figure is None


def test_caches_of_the_races_own_variants_come_first() -> None:
    cache = {"switches": {"quantized_cache": {"key_bits": 8, "value_bits": 2}, "int8_weight_only": {}}}
    race = Race.read({"prompt": "Once", "variants": [cache]})
    assert next(iter(offered(race))) == "int8 keys, int2 values"
    assert set(READY) < set(offered(race))
