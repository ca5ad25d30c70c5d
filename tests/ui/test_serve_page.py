"""The Serve page through AppTest: nothing yet, asked for, running, finished, shared, and what cannot be served."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.serving import Serving
from backend.serving.view import ServedView, ServingView
from backend.ui.serve import exports, plots
from backend.ui.serve.words import headline
from backend.ui.share import pack
from backend.ui.sketch import sketch

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]


@pytest.fixture
def open_serve(journal: Journal) -> Open:
    """Opens the page; keyword arguments are the address's parameters."""

    def open_page(**params: str) -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
        for name, value in params.items():
            app.query_params[name] = value
        return app.switch_page("pages/serve.py").run()

    return open_page


def a_serving(journal: Journal, until: str = "finished") -> int:
    job = journal.submit("serve", Serving().model_dump(mode="json"))
    journal.claim("a worker", "serve")
    journal.append(job, [("opened", None, {"lanes": {"base": "static batching", "A": "continuous batching"}})])
    journal.append(job, [("phase", None, {"name": "serving", "done": 1, "total": 2, "eta_s": 3.0, "text": "half"})])
    for lane, end in (("base", 2.0), ("A", 1.0)):
        journal.append(job, [("loaded", lane, {"requests": 1, "blocks": 8}), ("served", lane, served(end))])
        alone = {"request": 0, "tokens": 5, "same": lane == "A", "differs_at": None if lane == "A" else 2}
        journal.append(job, [("alone", lane, alone)])
    if until == "running":
        return job
    verdict = ServingView().apply_all(journal.events(job, 0)).judged(Serving().targets)
    journal.append(job, [("verdict", None, verdict), (until, None, {"wall_s": 9.0})])
    journal.finish(job, until)
    return job


def served(end: float) -> dict[str, object]:
    return {
        "clock": end, "finished": True, "stats": {"preemptions": 0, "prefix_hit_rate": 0.25},
        "arrived": [[0, 0.0, 8, 5]], "ended": [[0, 0.0, end / 2, end, 5]],
        "spans": [[0, 0, 0.0, end / 2, end]], "open": [],
        "samples": [[end / 2, 1, 1, 1, 2, 8], [end, 0, 1, 1, 2, 1]],
    }  # fmt: skip


def shown(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.info]
    return "\n".join(one.value for one in parts).replace("\\", "")


def button(app: AppTest, label: str):
    return next(one for one in app.button if one.label == label)


def test_at_first_it_says_what_it_does_and_is_ready_to_serve(open_serve: Open, journal: Journal) -> None:
    app = open_serve()
    assert not app.exception
    assert "Press Serve: every lane gets the same requests" in shown(app)
    button(app, "Serve").click().run()
    job = journal.jobs(kind="serve")[0]
    assert Serving.read(job.spec).baseline.limits.batching == "static"
    assert app.query_params["serve"] == str(job.id)


def test_what_has_ended_is_told_in_words_and_figures(open_serve: Open, journal: Journal) -> None:
    number = a_serving(journal)
    app = open_serve(serve=str(number))
    assert not app.exception
    text = shown(app)
    assert f"Serving {number}. Finished in 9.00 s. storyteller, 48 requests, 48 at once." in text
    assert "A, continuous batching, serves 2.00x as many tokens a second as the baseline: 5.00 against 2.50." in text
    assert "0 of 1 kept to both targets (TTFT 2.00 s, TPOT 100 ms), against 0 of 1: goodput 0 against 0" in text
    assert "To the first token: half took at most 500 ms against 1.00 s, the slowest 500 ms against 1.00 s." in text
    assert "request 0 differs from token 3 on" in shown(app)
    table = app.dataframe[0].value
    assert next(iter(table["figure"])) == "Throughput, tokens/s"
    assert table.iloc[-1].tolist()[1:] == ["25.0%", "25.0%"]


def test_while_it_runs_there_is_progress_and_a_way_to_end_it(open_serve: Open, journal: Journal) -> None:
    number = a_serving(journal, until="running")
    app = open_serve(serve=str(number))
    assert not app.exception
    assert button(app, "Serve").disabled
    button(app, "Cancel").click().run()
    assert journal.cancelled(number)


def test_a_setting_travels_in_the_address(open_serve: Open) -> None:
    one = Serving.read({"load": {"requests": 7, "arrivals": "closed"}, "variants": [{"limits": {"blocks": 40}}]})
    app = open_serve(serving=pack(one))
    assert not app.exception
    button(app, "Share this setting").click().run()
    assert app.query_params["serving"] == pack(one)


def test_a_link_that_is_none_is_said_to_be_so(open_serve: Open) -> None:
    app = open_serve(serving="what")
    assert "Copy the whole link again" in shown(app)


def test_what_the_context_cannot_hold_is_refused_before_it_starts(open_serve: Open) -> None:
    app = open_serve(serving=pack(Serving.read({"load": {"output_max": 900_000}})))
    assert "the context of" in shown(app)
    assert button(app, "Serve").disabled


def test_files_hold_raw_values(journal: Journal) -> None:
    job = journal.job(a_serving(journal))
    view = ServingView().apply_all(journal.events(job.id, 0))
    row = next(csv.DictReader(io.StringIO(exports.as_csv(view))))
    assert (row["lane"], row["ttft_s"], row["output_tokens"]) == ("base", "1.0", "5")
    assert json.loads(exports.as_json(view, job.spec))["verdict"]["ratio"]["A"]["tokens_per_s"] == 2.0


def slider(app: AppTest, lane: str):
    return next(one for one in app.slider if f"-{lane}-blocks" in one.key)


def test_the_memory_limit_goes_up_to_enough_for_every_slot(open_serve: Open) -> None:
    one = Serving.read({"load": {"prompt_max": 100, "output_max": 200}, "variants": [{"limits": {"slots": 4}}]})
    app = open_serve(serving=pack(one))
    assert (slider(app, "base").max, slider(app, "A").max) == (8 * 19, 4 * 19)
    slider(app, "A").set_value(30).run()
    next(field for field in app.number_input if field.label == "longest answer, tokens").set_value(300).run()
    assert (slider(app, "A").max, slider(app, "A").value) == (4 * 25, 30), "what was chosen stays"


def test_a_memory_limit_below_the_longest_request_is_refused_at_once(open_serve: Open) -> None:
    app = open_serve(serving=pack(Serving.read({"variants": [{"limits": {"blocks": 20}}]})))
    assert "A.limits.blocks" in shown(app)
    assert button(app, "Serve").disabled


def test_a_kernel_can_be_chosen_that_a_batch_has(open_serve: Open, journal: Journal) -> None:
    app = open_serve()
    switches = next(one for one in app.multiselect if "-A-switches" in one.key)
    assert "attention_kernel" in switches.options
    assert "static_cache" not in switches.options
    switches.set_value(["attention_kernel"]).run()
    button(app, "Serve").click().run()
    (kernel,) = Serving.read(journal.jobs(kind="serve")[0].spec).variants[0].recipe.pipeline
    assert kernel.alone() is None


def test_an_earlier_one_is_opened_and_kept_through_other_pages(open_serve: Open, journal: Journal) -> None:
    number = a_serving(journal)
    app = open_serve()
    menu = next(one for one in app.selectbox if one.label == "Earlier servings")
    menu.set_value(number).run()
    assert app.query_params["serve"] == str(number)
    assert f"Serving {number}. Finished" in shown(app)
    app.switch_page("pages/bench.py").run()
    app.query_params.clear()
    assert f"Serving {number}. Finished" in shown(app.switch_page("pages/serve.py").run())


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (0.5, "serves fewer tokens a second than the baseline, 0.500x: 50.0 against 100."),
        (1.01, "serves as many tokens a second as the baseline: 101 against 100, 1.01x."),
        (3.0, "serves 3.00x as many tokens a second as the baseline: 300 against 100."),
    ],
)
def test_a_loss_and_a_draw_are_told_as_plainly_as_a_gain(times: float, words: str) -> None:
    told = headline("A", "continuous batching", {"tokens_per_s": 100 * times}, {"tokens_per_s": 100})
    assert told == f"A, continuous batching, {words}"


def test_a_lane_that_failed_has_no_verdict_and_a_card(open_serve: Open, journal: Journal) -> None:
    number = a_serving(journal, until="running")
    card = {"field": "limits.blocks", "value": "1", "allowed": "more", "remedy": "Raise blocks."}
    told = {"cause": "refused", "detail": "", "remedy": "", "card": card, "phase": "serving"}
    view = ServingView().apply_all(journal.events(number, 0))
    verdict = view.judged(Serving().targets)
    del verdict["lanes"]["A"]
    journal.append(number, [("lane_failed", "A", told), ("verdict", None, verdict), ("finished", None, {"wall_s": 1})])
    journal.finish(number, "finished")
    text = shown(open_serve(serve=str(number)))
    assert "A did not serve to its end, so there is no verdict on A." in text
    assert "A failed. What the other lanes measured stays." in text
    assert "What to do: Raise blocks." in text


def test_a_sketch_has_what_the_plot_has(journal: Journal) -> None:
    view = ServingView().apply_all(journal.events(a_serving(journal), 0))
    lanes = list(view.lanes.values())
    drawn = sketch(plots.slots(lanes[0], False, 2.0, 8).figure, False)
    assert drawn.count('class="stay"') == 2  # a stay is read for half of its time and then written
    assert "left:49.02%;width:49.02%" in drawn  # the axis goes 2% further
    assert all(f">{slot}</span>" in drawn for slot in range(1, 9))
    for chart in plots.lines(lanes, True, 2.0):
        drawn = sketch(chart.figure, True)
        assert drawn.count("clip-path:polygon(") == 2
        assert ">baseline</span>" in drawn
        assert "nan" not in drawn


def test_a_sketch_of_nothing_is_an_empty_frame() -> None:
    lane = ServedView("A", "continuous batching")
    for chart in (plots.slots(lane, False, 0.0, 100), *plots.lines([lane], False, 0.0)):
        drawn = sketch(chart.figure, False)
        assert "lane clock, s" in drawn
        assert "clip-path" not in drawn
