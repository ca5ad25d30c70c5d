"""Which requests count, how they are paired, and what a mix comes to: from events made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backend.journal import Event
from backend.measured import levelled, measured
from backend.recipe.race import Race
from backend.replay import RaceView
from backend.ui.figuretable import kinds_of, plain_table, ratio_words, rows, summary
from backend.verdict import build_verdict

RACE = Race.read({"prompt": "Once", "variants": [{}]})
MIX = Race.read({"prompt": "Once", "variants": [{}], "measure": {"prompt_set": "mix"}})


def asked(lane: str, number: int, step_s: float, prompt: int = 0, **changes: Any) -> tuple[str, str, dict[str, Any]]:
    times = [0.5 + step_s * i for i in range(11)]
    data = {"round": number, "order": 0, "prompt": prompt, "kind": "prompt", "prompt_tokens": 100, "peak_bytes": 10**6}
    return "request", lane, data | {"output_tokens": 11, "ttft_s": 0.5, "emitted_s": times} | changes


def view_of(*told: tuple[str, str | None, dict[str, Any]]) -> RaceView:
    opened = ("opened", None, {"lanes": {"base": "unchanged", "A": "unchanged"}})
    return RaceView().apply_all(Event(n, 1, 0.0, *one) for n, one in enumerate((opened, *told), 1))


def wobble(number: int) -> float:
    return 1 + 0.002 * ((-1) ** number) + 0.0005 * (number % 3)


def test_rounds_before_the_change_point_stay_and_do_not_count() -> None:
    told = []
    for number in range(14):
        slow = 1.5 if number < 2 else 1.0
        told += [asked("base", number, 0.02 * slow * wobble(number)), asked("A", number, 0.01)]
    view = view_of(*told)
    seen = measured(view)
    assert (seen.rounds, seen.left_out) == (14, 2)
    assert len(view.lanes["base"].requests) == 14
    assert len(seen.pairs("A")) == 12
    verdict = build_verdict(view, RACE)
    assert verdict["lanes"]["A"]["speed"]["ratio"] == pytest.approx(2, rel=0.01)
    assert verdict["notes"] == ["First 2 of 14 rounds left out as warm-up, found by change-point."]
    assert verdict["measurement"]["left_out"] == 2


def test_requests_are_paired_by_round_and_prompt_and_not_by_their_order() -> None:
    told = [asked("base", n, 0.02 * (n + 1), n % 2) for n in range(8)]
    told += [asked("A", n, 0.01 * (n + 1), n % 2) for n in (7, 6, 5, 4, 2, 1, 0)]  # round 3 was lost
    seen = measured(view_of(*told))
    assert [b / v for b, v in seen.pairs("A")] == [pytest.approx(2.0)] * (7 - seen.left_out)


def test_every_figure_is_paired_and_more_than_one_is_better() -> None:
    told = []
    for number in range(10):
        told.append(asked("base", number, 0.02 * wobble(number)))
        told.append(asked("A", number, 0.01, peak_bytes=4 * 10**6))
    lane = build_verdict(view_of(*told), RACE)["lanes"]["A"]
    paired = lane["paired"]
    assert set(paired) == {
        "ttft_s", "prefill_tokens_per_s", "tpot_s", "itl_p50_s", "itl_p95_s", "itl_p99_s", "tokens_per_s", "e2e_s",
        "peak_bytes",
    }  # fmt: skip
    assert paired["tokens_per_s"]["ratio"] == pytest.approx(paired["tpot_s"]["ratio"]) == pytest.approx(2, rel=0.01)
    assert paired["ttft_s"]["within_noise"] is True
    assert paired["peak_bytes"]["ratio"] == pytest.approx(0.25)
    assert lane["prefill_tokens_per_s"] == pytest.approx(200)
    assert lane["e2e_s"]["p50"] == pytest.approx(0.6)
    assert lane["itl_s"]["p99"] == pytest.approx(0.01)


def mixed() -> RaceView:
    told = []
    for number in range(18):
        kind, factor = (("short chat", 2.0), ("long prompt", 1.0), ("long answer", 4.0))[number % 3]
        told.append(asked("base", number, 0.01 * factor * wobble(number), number % 3, kind=kind))
        told.append(asked("A", number, 0.01, number % 3, kind=kind))
    prompts = [
        {"kind": k, "prompt_tokens": 9, "output_tokens": 8} for k in ("short chat", "long prompt", "long answer")
    ]
    return view_of(("prompts", None, {"mode": "mix", "prompts": prompts}), *told)


def test_each_kind_of_a_mix_has_its_own_ratio() -> None:
    verdict = build_verdict(mixed(), MIX)
    kinds = verdict["lanes"]["A"]["kinds"]
    assert {kind: round(found["paired"]["tpot_s"]["ratio"]) for kind, found in kinds.items()} == {
        "short chat": 2, "long prompt": 1, "long answer": 4,
    }  # fmt: skip
    assert "paired" not in verdict["lanes"]["base"]["kinds"]["short chat"]
    assert kinds_of(verdict) == ["short chat", "long prompt", "long answer"]
    assert "long answer (9 in, 8 out)" in summary(verdict)
    alone = {row.title: row for row in rows(verdict, "long answer")}
    assert alone["TPOT"].values == {"base": ("40.0", "ms"), "A": ("10.0", "ms")}
    assert alone["TPOT"].ratios["A"].startswith("4.0")


def test_the_levels_of_prompts_are_no_warm_up_and_no_drift() -> None:
    seen = measured(mixed())
    assert seen.left_out == 0
    assert max(abs(value) for value in seen.log_ratios("A")) < 0.01
    keys = [(n, n % 2) for n in range(6)]
    assert levelled(keys, [1.0, 5.0] * 3) == [0.0] * 6
    assert levelled(keys[:4], [1.0, 5.0] * 2) == [1.0, 5.0] * 2  # too few of each to know its level


def test_the_table_has_a_ratio_beside_every_variant_and_says_what_is_noise() -> None:
    told = []
    for number in range(10):
        told += [asked("base", number, 0.02 * wobble(number)), asked("A", number, 0.03)]
    table = plain_table(build_verdict(view_of(*told), RACE))
    assert table[0] == ["figure", "baseline", "A", "A against the baseline"]
    told_rows = {row[0]: row[1:] for row in table[1:]}
    assert told_rows["TTFT"][:2] == ["500 ms", "500 ms"]
    assert told_rows["TTFT"][2].endswith("within noise")
    assert told_rows["Decode speed"][2].endswith("worse")
    assert told_rows["Prefill speed"][0] == "200 tokens/s"
    assert ratio_words({"ratio": 1.5, "pairs": 1, "within_noise": True}).startswith("1.50x (no interval")


def test_doubts_about_the_machine_are_in_the_verdict() -> None:
    told = [asked(lane, n, 0.02) for n in range(6) for lane in ("base", "A")]
    loud = {"seconds": 5.0, "cores": 2, "others": [{"name": "gzip", "cores": 0.43}]}
    verdict = build_verdict(view_of(*told, ("conditions", None, loud)), RACE)
    assert verdict["suspicions"] == ["Another process, gzip, used 43% of a core during the measurement."]
    assert verdict["measurement"]["seconds"] == 5.0


def test_a_single_round_has_a_ratio_and_no_interval() -> None:
    verdict = build_verdict(view_of(asked("base", 0, 0.02), asked("A", 0, 0.01)), RACE)
    speed = verdict["lanes"]["A"]["speed"]
    assert speed["ratio"] == pytest.approx(2)
    assert "low" not in speed
    assert math.isfinite(speed["ratio"])
