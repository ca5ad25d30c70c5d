"""The measurement through a real worker and real lanes: a mix, a list, and prompts that cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.test_race import Bench

pytestmark = pytest.mark.alone  # each has a budget of time

QUICK = {"budget_s": 3.0, "tokens": 8, "quality_tokens": 0, "questions": 0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("measurement-home"))
    yield bench
    bench.stop()


def test_a_mix_is_asked_in_turn_and_told_apart(bench, tiny_folder):
    view = bench.wait(bench.submit(tiny_folder, {}, measure=QUICK | {"prompt_set": "mix"}))
    assert view.state == "finished", view.card
    base, other = view.lanes["base"].requests, view.lanes["A"].requests
    assert [r["round"] for r in base] == list(range(len(base)))
    assert [r["prompt"] for r in base[:6]] == [0, 1, 2, 0, 1, 2]
    assert [r["kind"] for r in base[:3]] == ["short chat", "long prompt", "long answer"]
    assert [(r["round"], r["prompt"]) for r in base] == [(r["round"], r["prompt"]) for r in other]
    for ours, theirs in zip(base, other, strict=True):
        assert {ours["order"], theirs["order"]} == {0, 1}
        assert len(ours["emitted_s"]) == ours["output_tokens"] == theirs["output_tokens"]
        assert ours["peak_bytes"] > 0
    firsts = [r["order"] for r in base if r["prompt"] == 0]
    assert len(firsts) >= 2
    # The order turns from one asking of a prompt to the next.
    assert firsts == [place % 2 for place in range(len(firsts))]
    short, long, answer = base[:3]
    assert short["prompt_tokens"] <= 64 < long["prompt_tokens"] <= 512
    assert answer["output_tokens"] == 4 * short["output_tokens"]
    assert view.prompts[1]["prompt_tokens"] == long["prompt_tokens"]
    kinds = view.verdict["lanes"]["A"]["kinds"]
    assert set(kinds) == {"short chat", "long prompt", "long answer"}
    assert kinds["long prompt"]["paired"]["ttft_s"]["pairs"] > 0
    assert view.conditions["cores"] >= 1
    assert view.conditions["own_cores"] > 0.2
    counted = view.verdict["measurement"]["rounds"] - view.verdict["measurement"]["left_out"]
    assert view.verdict["lanes"]["A"]["speed"]["pairs"] == counted


def test_a_list_is_asked_line_by_line(bench, tiny_folder):
    lines = "Once there was a map.\nAnna was in the harbor. Where is Anna?"
    view = bench.wait(bench.submit(tiny_folder, {}, measure=QUICK | {"prompt_set": "list", "prompts": lines}))
    assert view.state == "finished", view.card
    lengths = [p["prompt_tokens"] for p in view.prompts]
    assert len(lengths) == 2
    assert lengths[0] < lengths[1]
    assert [r["prompt_tokens"] for r in view.lanes["base"].requests[:4]] == lengths * 2
    assert "kinds" not in view.verdict["lanes"]["A"]


def test_a_prompt_that_is_longer_than_the_context_names_its_line(bench, tiny_folder):
    lines = "Once\n" + "Once there was " * 500
    view = bench.wait(bench.submit(tiny_folder, {}, measure=QUICK | {"prompt_set": "list", "prompts": lines}))
    assert view.state == "failed"
    assert view.card["field"] == "measure.prompts"
    assert view.card["value"].startswith("line 2: ")
    assert "1024" in view.card["allowed"]
    assert not view.opened  # refused before anything was transformed


def test_a_budget_of_zero_leaves_it_out_and_says_so(bench, tiny_folder):
    view = bench.wait(bench.submit(tiny_folder, {}, measure=QUICK | {"budget_s": 0}))
    assert view.state == "finished"
    assert not view.lanes["A"].requests
    assert view.verdict["measured"] == "race"
    assert "nothing was measured" in view.verdict["notes"][0]
