"""Arrivals, traces and figures, by hand-computed cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.serving import Load, Serving, Targets, serve_presets
from backend.serving.arrivals import Arriving, all_arrivals, check_load
from backend.serving.figures import Served, summary
from backend.serving.pace import Pace
from backend.serving.tracefile import Arrival, read_trace


def test_equal_seeds_give_equal_loads_and_others_others() -> None:
    load = Load(arrivals="poisson", rate_per_s=4.0, requests=2000)
    first = all_arrivals(load, 1)
    assert first == all_arrivals(load, 1) != all_arrivals(load, 2)
    assert first[-1].at_s == pytest.approx(500, rel=0.1)
    assert {16, 256} <= {one.output_tokens for one in first}
    assert all(16 <= one.output_tokens <= 256 for one in first)


def test_bursts_come_at_once_and_then_again() -> None:
    load = Load(arrivals="burst", requests=5, burst=2, every_s=3.0)
    assert [one.at_s for one in all_arrivals(load, 1)] == [0, 0, 3, 3, 6]


def test_a_client_of_a_closed_loop_asks_again_when_it_is_answered() -> None:
    load = Load(arrivals="closed", clients=2, requests=3)
    line = Arriving(load, all_arrivals(load, 1))
    assert len(line.due(0.0)) == 2
    assert line.next_s is None
    line.answered(1.5)
    assert [one.at_s for one in line.due(2.0)] == [1.5]
    assert line.next_s is None


def test_figures_of_two_requests() -> None:
    served = [Served(0, 0.0, 1.0, 3.0, 5), Served(1, 1.0, 4.0, 4.0, 1)]
    found = summary(served, 4.0, Targets(ttft_s=2.0, tpot_s=0.5))
    assert found["tokens_per_s"] == 1.5
    assert found["goodput_per_s"] == 0.25, "the second waited for three seconds"
    assert (found["ttft_p50_s"], found["ttft_p99_s"], found["tpot_p99_s"]) == (1.0, 3.0, 0.5)
    assert summary([], 4.0, Targets()) == {}


def test_a_pace_reads_the_line_backwards() -> None:
    pace = Pace(target_s=0.05)
    for tokens in (1, 4, 8, 2, 16):
        pace.hear(tokens, 0.01 + 0.004 * tokens)
    assert pace.tokens(most=100) == pytest.approx(10, abs=1)
    assert Pace(0.0).tokens(most=100) == 100


def test_traces_of_both_forms(tmp_path: Path) -> None:
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text("arrival_s,prompt_tokens,output_tokens\n3,7,8\n2,5,6\n")
    lines.write_text('{"timestamp": 2000, "input_length": 5, "output_length": 6}\n')
    assert read_trace(table) == [Arrival(0.0, 5, 6), Arrival(1.0, 7, 8)]
    assert read_trace(lines) == [Arrival(0.0, 5, 6)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "{", "line 1"),
        ("a.jsonl", "[1]", "numbers in"),
        ("a.csv", "x,y\n1,2\n", "numbers in"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\nnan,1,1\n", "0 or later"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n0,-5,1\n", "above 0"),
        ("a.csv", "", "0 requests"),
    ],
)
def test_a_bad_trace_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=words):
        read_trace(tmp_path / name)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"load": {"prompt_min": 9, "prompt_max": 8}}, "load.prompt_min"),
        ({"load": {"arrivals": "trace"}}, "load.trace"),
        ({"load": {"rate_per_s": -1}}, "rate_per_s"),
        ({"variants": []}, "variants"),
        ({"baseline": {"limits": {"slots": 0}}}, "slots"),
        ({"what": 1}, "what"),
    ],
)
def test_a_bad_serving_names_its_field(spec: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Serving.read(spec)


def test_every_preset_reads() -> None:
    assert "static-against-continuous" in serve_presets()


def test_a_shared_beginning_comes_on_top_of_what_is_drawn() -> None:
    alike = all_arrivals(Load(shared_prefix=100), 1)
    assert [one.prompt_tokens - 100 for one in alike] == [one.prompt_tokens for one in all_arrivals(Load(), 1)]
    assert Load(shared_prefix=100).longest == Load().longest + 100


FACTS = ModelFacts("tiny", "llama", 2, 64, 96, 4, 2, 16, 64, 512, 1000, 0)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (
            {},
            r"A\.limits\.blocks: '23' is not possible. Allowed: 0, or at least 24: the longest request has 384 tokens",
        ),
        ({"prompt_max": 500}, "the context of tiny"),
        ({"shared_prefix": 200}, "the context of tiny"),
    ],
)
def test_what_could_never_be_served_is_refused_before_anything_is_loaded(load: dict[str, int], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_load(Serving.read({"load": load, "variants": [{"limits": {"blocks": 23}}]}), FACTS)


def test_a_memory_limit_that_holds_the_longest_request_is_enough() -> None:
    check_load(Serving.read({"variants": [{"limits": {"blocks": 24}}]}), FACTS)


@pytest.mark.parametrize(("tokens", "words"), [(600, "load.trace"), (400, r"A\.limits\.blocks")])
def test_so_is_a_trace_whose_longest_request_is_too_long(tmp_path: Path, tokens: int, words: str) -> None:
    table = tmp_path / "a.csv"
    table.write_text(f"arrival_s,prompt_tokens,output_tokens\n0,{tokens},8\n")
    asked = {"load": {"arrivals": "trace", "trace": str(table)}, "variants": [{"limits": {"blocks": 25}}]}
    with pytest.raises(RecipeError, match=words):
        check_load(Serving.read(asked), FACTS)
