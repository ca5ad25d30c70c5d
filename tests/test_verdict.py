"""The verdict, built from events as the page builds it."""

import pytest

from backend.journal import Event
from backend.recipe.race import Race
from backend.replay import RaceView
from backend.verdict import build_verdict

RACE = Race.read(
    {"prompt": "Once", "variants": [{"switches": {"int8_weight_only": {}}}], "price_per_hour": 3.6, "max_new_tokens": 4}
)


def events(*rows):
    view = RaceView()
    view.apply_all(Event(i, 1, 0.0, kind, lane, data) for i, (kind, lane, data) in enumerate(rows, 1))
    return view


def request(step_s, start_s=0.5, tokens=11, number=1):
    times = [start_s + step_s * i for i in range(tokens)]
    return {"emitted_s": times, "ttft_s": start_s, "output_tokens": tokens, "round": number, "order": 0}


def memory(weights, kv):
    return {"weights_bytes": weights, "kv_bytes": kv, "other_bytes": 0, "resident_bytes": 0, "peak_bytes": weights * 2}


@pytest.fixture
def finished():
    rows = [("opened", None, {"lanes": {"base": "unchanged", "A": "int8 weights"}})]
    for name, step, size in (("base", 0.02, 400), ("A", 0.01, 100)):
        rows.append(("memory", name, memory(size, 100)))
        rows += [("request", name, request(step * (1 + 0.001 * i), number=i)) for i in range(8)]
        tokens = [1, 2, 3, 4] if name == "base" else [1, 2, 9, 4]
        rows.append(
            (
                "tokens",
                name,
                {"start": 0, "ids": tokens, "texts": list("abcd"), "clock": [1, 2, 3, 4], "drafted": [0] * 4},
            )
        )
    rows.append(
        ("scores", "A", {"shape": "decode", "start": 0, "kld": [0, 0.1], "top1": [1, 0], "delta_logp": [0, -1]})
    )
    rows.append(("scores", "A", {"shape": "prefill", "start": 0, "kld": [0.6], "top1": [0], "delta_logp": [-2]}))
    marks = [1] * 8
    rows.append(("answers", "base", {"marks": marks, "right": 8, "asked": 8, "by_kind": {}}))
    rows.append(("answers", "A", {"marks": [0] * 8, "right": 0, "asked": 8, "by_kind": {}}))
    return events(*rows)


def test_figures_by_hand(finished):
    verdict = build_verdict(finished, RACE)
    lane = verdict["lanes"]["A"]
    assert verdict["measured"] == "requests"
    assert lane["speed"]["ratio"] == pytest.approx(2.0)
    assert lane["speed"]["within_noise"] is False
    assert lane["memory"] == {"ratio": pytest.approx(2.5), "bytes": 200, "baseline_bytes": 500}
    assert lane["first_divergence"] == 2
    assert lane["identical_tokens"] == 2
    assert lane["kld"]["mean"] == pytest.approx(0.05)
    assert lane["kld_prefill"]["mean"] == pytest.approx(0.6)
    assert lane["top1"] == 0.5
    assert lane["answers"]["p"] == pytest.approx(2 / 2**8)
    assert lane["answers"]["within_noise"] is False
    # 3.6 an hour is .001 a second; at about 100 tokens a second a million take 10,000 s.
    assert lane["cost_per_million"] == pytest.approx(10, rel=0.02)
    assert "speed" not in verdict["lanes"]["base"]


def test_without_a_measurement_the_race_speaks_and_says_so(finished):
    for lane in finished.lanes.values():
        lane.requests.clear()
    verdict = build_verdict(finished, RACE)
    assert verdict["measured"] == "race"
    assert verdict["notes"]
    assert verdict["lanes"]["A"]["speed"] == {"ratio": pytest.approx(1.0), "pairs": 0}


def test_a_failed_lane_keeps_its_own_figures_and_gets_no_ratio(finished):
    finished.lanes["A"].failure = {"cause": "killed"}
    lane = build_verdict(finished, RACE)["lanes"]["A"]
    assert lane["failed"] is True
    assert "speed" not in lane
    assert lane["tokens_per_s"] == pytest.approx(100, rel=0.02)


def test_drafting_that_costs_more_than_it_saves_is_said_to(finished):
    lane = finished.lanes["A"]
    lane.breakdown = {"plain_step_s": 0.01}
    lane.speculation = {
        "drafted": 40, "accepted": 8, "rounds": 10, "draft_s": 0.2, "verify_s": 0.12, "acceptance_rate": 0.2,
        "alpha": 0.4, "mean_acceptance_length": 1.8, "draft_cost_share": 0.6,
    }  # fmt: skip
    facts = build_verdict(finished, RACE)["lanes"]["A"]["speculation"]
    assert facts["pays"] is False
    assert 0.4 < facts["break_even"] <= 1


def test_perplexity_ratio_has_an_interval_over_windows(finished):
    for name, sums in (("base", [100.0, 120.0, 110.0]), ("A", [101.0, 121.1, 110.9])):
        finished.lanes[name].perplexity = {"sums": sums, "counts": [50, 50, 50], "value": sum(sums), "protocol": {}}
    entry = build_verdict(finished, RACE)["lanes"]["A"]["perplexity"]
    assert entry["low"] < 1.02 < entry["high"] * 1.02
    assert entry["within_noise"] is False


def test_quality_beside_the_baseline_by_hand(finished):
    for name, right in (("base", 6), ("A", 5)):
        marks = [1] * right + [0] * (8 - right)
        finished.lanes[name].cloze = {"marks": marks, "right": right, "asked": 8, "protocol": "last word"}
    finished.lanes["A"].decode.top5 = [1.0, 0.6]
    lane = build_verdict(finished, RACE)["lanes"]["A"]
    assert lane["cloze"]["share"] == 5 / 8
    assert lane["cloze"]["baseline_share"] == 6 / 8
    assert lane["cloze"]["p"] == 1.0  # one item changed: McNemar has nothing to say
    assert lane["cloze"]["within_noise"] is True
    assert lane["top5"] == pytest.approx(0.8)
    assert lane["top1_range"]["low"] < 0.5 < lane["top1_range"]["high"]
    assert lane["kld"]["low"] == 0.0  # two tokens: the interval is wide, and no divergence is negative
    assert "low" not in lane["kld_prefill"]  # one token has no interval
    assert "repetition" not in lane  # four tokens are one 4-gram


def test_an_alarm_stands_in_the_verdict_of_variants_alone(finished):
    verdict = build_verdict(finished, RACE)["lanes"]
    assert verdict["A"]["alarm"]["raised"] is True
    assert [fall["metric"] for fall in verdict["A"]["alarm"]["fell"]] == ["answers"]
    assert "alarm" not in verdict["base"]
    finished.lanes["A"].failure = {"cause": "killed"}
    assert "alarm" not in build_verdict(finished, RACE)["lanes"]["A"]


def test_a_budget_is_judged_where_one_was_set(finished):
    assert "budget" not in build_verdict(finished, RACE)["lanes"]["A"]
    race = Race.read(RACE.model_dump(mode="json") | {"budget": {"kld": 0.1}})
    budget = build_verdict(finished, race)["lanes"]["A"]["budget"]
    assert budget["verdict"] == "fail"
    assert [check["passes"] for check in budget["checks"]] == [True, False]  # .05 in decode, .6 in prefill


def test_repetition_and_length_are_said_of_every_lane(finished):
    base = finished.lanes["base"]
    base.ids = [1, 2, 3, 4, 1, 2, 3, 4]
    race = Race.read(RACE.model_dump(mode="json") | {"max_new_tokens": 16, "stop_at_end": True})
    entry = build_verdict(finished, race)["lanes"]["base"]
    assert entry["repetition"] == pytest.approx(1 / 5)
    assert entry["length"] == 8
    assert "length" not in build_verdict(finished, RACE)["lanes"]["base"]  # this race does not stop there
