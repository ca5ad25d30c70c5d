"""The Train page through AppTest: nothing yet, asked for, running, paused, finished, compared, and what cannot be."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.race import Race
from backend.recipe.training import Training
from backend.trained import TrainedLane, TrainingView
from backend.ui.share import pack
from backend.ui.sketch import sketch
from backend.ui.train import curves, exports, words
from backend.ui.train.racing import draft_race_data, race_data
from backend.ui.train.several import at_once_of
from backend.ui.train.sheet import training_data, values_of

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[..., AppTest]
HALF = {"switches": {"drop_layers": {"count": 4}}}
STEPS, STEP_TOKENS = 8, 1024
MARKUP = "The <b>map</b> is **in** the $garden$."


@pytest.fixture
def open_train(open_at: Callable[..., Open]) -> Open:
    """Opens the page; keyword arguments are the address's parameters."""
    return open_at("train")


def asked(**changes: Any) -> Training:
    return Training.read({"name": "half", "student": HALF, "pace": {"tokens": STEPS * STEP_TOKENS}} | changes)


def a_training(journal: Journal, until: str = "finished", **changes: Any) -> int:
    """A training of eight steps with three looks: 3.0, 1.5 and 0.3 nats from the teacher."""
    spec = asked(**changes)
    job = journal.submit("train", spec.model_dump(mode="json"))
    journal.claim("a worker", "train")
    begun = {
        "step": 0, "steps": STEPS, "step_tokens": STEP_TOKENS, "parameters": 12_900_000, "dtype": "float32",
        "trained_parameters": 12_900_000, "teacher_parameters": 25_500_000, "source": "stories", "threads": 1,
        "training_tokens": 9000, "held_out_tokens": 700, "held_out_again": 2, "layers": [0, 1, 3, 7],
    }  # fmt: skip
    journal.append(job, [("opened", None, {"lanes": {"student": spec.label}}), ("begun", "student", begun)])
    journal.append(job, [("looked", "student", a_look("teacher", 0, 0.5, accuracy=0.9))])
    journal.append(job, [("looked", "student", a_look("student", 0, 3.0, kld=3.0))])
    for step in range(STEPS):
        journal.append(job, [("stepped", "student", a_step(step))])
        if step in (3, STEPS - 1):
            kld = 1.5 if step == 3 else 0.3
            journal.append(job, [("looked", "student", a_look("student", step + 1, 1.0, kld=kld))])
    phase = {"name": "training", "done": 6, "total": STEPS, "eta_s": 3.0, "text": "step 6 of 8"}
    journal.append(job, [("phase", "student", phase), ("gave_way", None, {"seconds": 9.0, "waited_s": 0.4})])
    journal.append(job, [("checkpointed", "student", {"step": 4, "bytes": 155e6, "seconds": 0.2})])
    if until == "running":
        return job
    if until == "finished":
        saved = {"name": spec.name, "folder": "there", "weights_bytes": 51_500_000}
        journal.append(job, [("ended", "student", {"step": STEPS, "reason": "trained to the end"})])
        journal.append(job, [("saved", "student", saved)])
    card = {"field": "pace.rate", "value": "1: the loss is nan", "allowed": "a finite loss", "remedy": "Lower it."}
    journal.append(job, [(until, None, {"card": card} if until == "failed" else {"wall_s": 9.0})])
    journal.finish(job, until)
    return job


def a_step(number: int) -> dict[str, Any]:
    memory = {"weights_bytes": 50e6, "gradient_bytes": 50e6, "optimizer_bytes": 100e6, "peak_bytes": 600e6}
    parts = {"logits": 2.0 - number / 10, "labels": 1.0}
    told = {"kept_share": 1 - number / 10}
    return {
        "number": number, "loss": 3.0 - number / 10, "parts": parts, "rate": 1e-3, "norm": 0.5, "told": told,
        "seconds": 0.5, "memory": memory,
    }  # fmt: skip


def a_look(who: str, step: int, loss: float, **more: float) -> dict[str, Any]:
    found = {"who": who, "step": step, "loss": loss, "tokens": 512, "sample": MARKUP} | more
    return found | ({"top1": 0.5, "accepted": 0.4, "accuracy": 0.25 * (1 + step / STEPS)} if who == "student" else {})


def view_of(journal: Journal, job: int) -> TrainingView:
    return TrainingView().apply_all(journal.events(job))


def shown(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.info]
    return "\n".join(one.value for one in parts).replace("\\", "")


def button(app: AppTest, label: str) -> Any:
    return next(one for one in app.button if one.label == label)


def test_at_first_it_says_what_to_do_and_is_ready_to_train(open_train: Open, journal: Journal) -> None:
    app = open_train()
    assert not app.exception
    assert "Press Train: the student is made from the model on the left" in shown(app)
    assert "4 layers fewer, chosen, trained: 293 steps of 1,024 tokens, 300k in all." in shown(app)
    assert any("predicted" in one.label and "Memory" in one.label for one in app.expander)
    button(app, "Train").click().run()
    job = journal.jobs(kind="train")[0]
    assert Training.read(job.spec).student.switches["drop_layers"].count == 4  # type: ignore[attr-defined]
    assert app.query_params["train"] == str(job.id)


def test_what_the_form_changes_is_what_is_trained(open_train: Open, journal: Journal) -> None:
    app = open_train()
    next(one for one in app.number_input if one.label == "tokens to train on").set_value(5000).run()
    next(one for one in app.number_input if one.label == "rate").set_value(0.0003).run()
    next(one for one in app.slider if one.label == "count").set_value(5).run()
    next(one for one in app.text_input if one.label == "Name of the result").set_value("mine").run()
    button(app, "Train").click().run()
    spec = Training.read(journal.jobs(kind="train")[0].spec)
    assert (spec.name, spec.pace.tokens, spec.pace.rate) == ("mine", 5000, 0.0003)
    assert spec.student.label == "5 layers fewer"


def test_the_form_of_the_bench_stays_its_own(open_train: Open) -> None:
    app = open_train()
    app.switch_page("pages/bench.py").run()
    before = app.session_state["sheet"]["model"], len(app.session_state["sheet"]["lanes"])
    app.switch_page("pages/train.py").run()
    next(one for one in app.number_input if one.label == "batch").set_value(4).run()
    app.switch_page("pages/bench.py").run()
    assert not app.exception
    assert before == (app.session_state["sheet"]["model"], len(app.session_state["sheet"]["lanes"]))
    app.switch_page("pages/train.py").run()
    assert next(one for one in app.number_input if one.label == "batch").value == 4


def test_what_has_ended_is_told_in_words_and_figures(open_train: Open, journal: Journal) -> None:
    number = a_training(journal)
    app = open_train(train=str(number))
    assert not app.exception
    text = shown(app)
    assert f"Training {number}. Finished. storyteller: 4 layers fewer, trained." in text
    assert "half: 90% of what was lost has come back." in text
    assert "KLD 3.00 to 0.300" in text
    assert "accuracy 25% to 50% (teacher 90%)" in text
    assert "8.19k tokens in 4.00 s of steps, 2,050 tokens/s at the end, float32. 12.9M parameters, all trained" in text
    assert "Gave way to 1 other job for 9.00 s in all; the longest that one waited for a step was 400 ms." in text
    assert "2 documents that are held out came up again and were left out" in text
    assert button(app, "Race it")
    looks = next(one.value for one in app.dataframe if "writes" in one.value)
    assert looks["who"].tolist() == ["teacher", "student", "student", "student"]
    assert looks["KLD, nats"].tolist() == ["", "3.00", "1.50", "0.300"]


def test_samples_are_text_and_never_markup(open_train: Open, journal: Journal) -> None:
    app = open_train(train=str(a_training(journal)))
    assert [one.value for one in app.code] == [MARKUP] * 3
    assert MARKUP not in "".join(one.value for one in app.markdown)


def test_while_it_runs_it_can_be_paused_resumed_and_ended(open_train: Open, journal: Journal) -> None:
    number = a_training(journal, until="running")
    app = open_train(train=str(number))
    assert not app.exception
    assert "Training loss" in shown(app)
    button(app, "Pause").click().run()
    assert journal.state(number) == "paused"
    button(app, "Resume").click().run()
    assert journal.state(number) == "queued"
    button(app, "Cancel").click().run()
    assert journal.cancelled(number)


def test_one_that_failed_has_a_card_and_keeps_its_curves(open_train: Open, journal: Journal) -> None:
    app = open_train(train=str(a_training(journal, until="failed")))
    text = shown(app)
    assert "This was not trained to its end" in text
    assert "Field: **pace.rate**" in text
    assert "Training loss" in text
    assert not any(one.label.startswith(("Resume", "Race it")) for one in app.button), "no checkpoint, no model"


def test_one_that_ended_before_goes_on_from_its_checkpoint(open_train: Open, journal: Journal, home: Path) -> None:
    number = a_training(journal, until="cancelled")
    folder = home / "training" / "half" / "checkpoint-4"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 4}')
    (folder.parent / "training.json").write_text(json.dumps(asked().model_dump(mode="json")))
    app = open_train(train=str(number))
    button(app, "Resume after step 4").click().run()
    assert not app.exception
    assert journal.state(number) == "queued"


def test_a_setting_travels_in_the_address(open_train: Open) -> None:
    one = asked(losses={"labels": 0.5}, pace={"rate": 3e-5})
    app = open_train(training=pack(one))
    assert not app.exception
    button(app, "Share this setting").click().run()
    assert app.query_params["training"] == pack(one)


def test_a_link_that_is_none_is_said_to_be_so(open_train: Open) -> None:
    assert "Copy the whole link again" in shown(open_train(training="what"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pace": {"batch": 4096, "length": 65_536}}, "pace.batch"),
        ({"smaller": "no-such-model"}, "model"),
        ({"student": {"switches": {"int8_weight_only": {}}}}, "student.switches.int8_weight_only"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(
    open_train: Open, changes: dict[str, Any], field: str
) -> None:
    app = open_train(training=pack(asked(**changes)))
    assert "This cannot be trained as it stands" in shown(app)
    assert field in shown(app)
    assert button(app, "Train").disabled


def test_an_empty_name_is_a_card_that_names_it(open_train: Open) -> None:
    app = open_train()
    next(one for one in app.text_input if one.label == "Name of the result").set_value("").run()
    assert not app.exception
    assert "Field: **name**" in shown(app)


def test_a_name_of_a_training_under_way_is_not_given_twice(open_train: Open, journal: Journal) -> None:
    a_training(journal, until="running")
    app = open_train(training=pack(asked()))
    button(app, "Train").click().run()
    assert "a name that no training under way has" in shown(app)
    assert len(journal.jobs(kind="train")) == 1


def test_the_recipe_can_be_changed_as_json(open_train: Open, journal: Journal) -> None:
    app = open_train()
    area = next(one for one in app.text_area if one.label == "Recipe")
    data = json.loads(area.value) | {"name": "typed", "looks": {"patience": 3}}
    area.set_value(json.dumps(data)).run()
    button(app, "Take it over").click().run()
    button(app, "Train").click().run()
    spec = Training.read(journal.jobs(kind="train")[0].spec)
    assert (spec.name, spec.looks.patience) == ("typed", 3)


def test_json_that_is_none_is_said_to_be_so(open_train: Open) -> None:
    app = open_train()
    next(one for one in app.text_area if one.label == "Recipe").set_value("{").run()
    button(app, "Take it over").click().run()
    assert not app.exception
    assert "Correct the text there" in shown(app)


def test_one_training_for_every_number_of_heads_is_queued(open_train: Open, journal: Journal) -> None:
    app = open_train(training=pack(asked(student={"switches": {"kv_heads": {"count": 2}}})))
    button(app, "Train one for each of 4, 2, 1 KV heads").click().run()
    specs = [Training.read(job.spec) for job in reversed(journal.jobs(kind="train"))]
    assert [spec.name for spec in specs] == ["half-kv4", "half-kv2", "half-kv1"]
    assert [spec.student.label for spec in specs] == ["GQA 4", "GQA 2", "MQA"]


def test_trainings_stand_in_a_table_with_what_came_back(open_train: Open, journal: Journal) -> None:
    first, second = a_training(journal), a_training(journal, until="running", name="other")
    app = open_train()
    assert not app.exception
    table = next(one.value for one in app.dataframe if "recovered" in one.value)
    assert table["training"].tolist() == [second, first]
    assert table["state"].tolist() == ["running", "finished"]
    assert table["recovered"].tolist() == ["90%", "90%"]
    assert table["tokens"].tolist() == ["8.19k", "8.19k"]


def test_several_are_compared_over_the_tokens_they_trained_on(journal: Journal) -> None:
    runs = {str(n): view_of(journal, n).lane("student") for n in (a_training(journal), a_training(journal))}
    chart = curves.compared(runs, dark=False)
    assert chart.title == "KLD from the teacher"
    assert [list(trace.x) for trace in chart.figure.data] == [[0, 4096, 8192]] * 2
    assert "3.00 to 0.300 after 8.19k" in chart.summary
    ends = sorted(one.y for one in chart.figure.layout.annotations)
    assert ends[1] - ends[0] >= 0.09 * 3.0, "the names of two lines that end at one place stand apart"


def test_without_a_teacher_losses_are_compared() -> None:
    lane = TrainedLane("student", begun={"step_tokens": 10}, looks=[{"step": 0, "loss": 2.0}, {"step": 5, "loss": 1.0}])
    assert curves.compared({"a": lane}, dark=True).title == "Loss on held-out text"
    assert curves.compared({}, dark=True).summary == "None of them has been looked at yet."


def test_a_loss_of_quality_is_told_as_plainly_as_a_gain() -> None:
    looks = [{"step": 0, "loss": 1.0, "kld": 0.2}, {"step": 5, "loss": 1.0, "kld": 0.3}]
    worse = TrainedLane("student", looks=looks)
    assert words.headline(worse, "x") == "x: 50% further from the teacher than at first. Training made it worse."
    same = TrainedLane("student", looks=[looks[0], looks[0]])
    assert words.headline(same, "x") == "x: nothing of what was lost has come back."


def test_every_figure_has_a_curve_live_and_at_the_end(journal: Journal) -> None:
    lane = view_of(journal, a_training(journal)).lane("student")
    end = float(STEPS * STEP_TOKENS)
    charts = [
        *curves.steps(lane, False, end), *curves.quality(lane, False, end), *curves.pace(lane, False, end),
    ]  # fmt: skip
    assert [chart.title for chart in charts] == [
        "Training loss", "Kept share", "KLD from the teacher", "Loss on held-out text", "Top-1 agreement and accuracy",
        "Learning rate", "Speed", "Gradient norm",
    ]  # fmt: skip
    for chart in charts:
        drawn = sketch(chart.figure, True)
        assert drawn.count("clip-path:polygon(") == 2 * len(chart.figure.data)
        assert "nan" not in drawn
    assert ">8,000</span>" in sketch(charts[0].figure, True)
    assert charts[0].summary == "Loss 2.30; logits 1.30; labels 1.00, of the last step."


def test_before_the_first_step_plots_are_empty_frames() -> None:
    lane = TrainedLane("student", begun={"step_tokens": 8, "steps": 2})
    for chart in (*curves.steps(lane, False, 16), *curves.quality(lane, False, 16), *curves.pace(lane, False, 16)):
        assert "clip-path" not in sketch(chart.figure, False)
        assert chart.summary


def test_the_race_holds_teacher_untrained_and_trained() -> None:
    race = Race.read(race_data(asked()))
    assert [recipe.label for _, recipe in race.lanes] == ["unchanged", "4 layers fewer", "half"]
    smaller = Race.read(race_data(asked(student={}, smaller="other")))
    assert [recipe.label for _, recipe in smaller.lanes] == ["unchanged", "other", "half"]
    same = Race.read(race_data(asked(student={})))
    assert [recipe.label for _, recipe in same.lanes] == ["unchanged", "half"]


def test_race_it_opens_the_bench(open_train: Open, journal: Journal) -> None:
    app = open_train(train=str(a_training(journal)))
    button(app, "Race it").click().run()
    assert not app.exception
    assert app.session_state["sheet"]["B.trained.name"] == "half"


def test_a_draft_is_raced_with_its_teacher_before_and_after_training() -> None:
    cut = Race.read(draft_race_data(asked(), [0, 1, 3, 7]))
    own, trained = (recipe.switches for _, recipe in cut.lanes[1:])
    assert own["self_draft"].model_dump()["layers"] == "0-1 3 7"
    assert own["self_draft"].model_dump()["cache"] == "own"
    assert trained["draft_model"].model_dump()["model"] == "half"
    smaller = Race.read(draft_race_data(asked(student={}, smaller="other"), []))
    assert [recipe.switches["draft_model"].model_dump()["model"] for _, recipe in smaller.lanes[1:]] == [
        "other",
        "half",
    ]
    narrow = {"switches": {"prune_neurons": {"ratio": 0.5}}}  # no switch makes a draft of it untrained
    assert len(Race.read(draft_race_data(asked(student=narrow), [0, 1])).lanes) == 2


def test_assistants_are_put_on_the_way_to_the_student(open_train: Open) -> None:
    app = open_train()
    widget = next(one for one in app.number_input if one.label == "assistants on the way")
    app = widget.set_value(1).run()
    assert not app.exception
    (assistant,) = app.session_state["sheet-train"]["stages.assistants"]
    assert assistant["student"]["switches"]["drop_layers"]["remove"] == "6-7"
    assert "2 layers fewer" in shown(app)


def test_in_stages_and_at_once_are_queued_together(open_train: Open, journal: Journal) -> None:
    app = open_train(train_preset="progressive")
    button(app, "Train it in stages and at once").click().run()
    assert not app.exception
    staged, direct = (Training.read(job.spec) for job in reversed(journal.jobs("train")))
    assert len(staged.stages.assistants) == 2
    assert direct.stages.assistants == ()
    assert direct.student.switches["drop_layers"].model_dump()["count"] == 6
    assert direct.pace.tokens == staged.pace.tokens


def test_a_staged_student_is_compared_with_itself_at_once_where_a_recipe_makes_it() -> None:
    narrow = {"switches": {"prune_neurons": {"ratio": 0.5}}}
    stages = {"assistants": [{"student": narrow, "share": 0.5}]}
    direct = at_once_of(asked(student=narrow, stages=stages))
    assert direct is not None
    assert (direct.name, direct.student.label) == ("half-at-once", "50% fewer neurons")
    assert at_once_of(asked(student=narrow, stages=stages | {"made_from": "before"})) is None
    assert at_once_of(asked()) is None


def test_race_it_as_a_draft_opens_the_bench(open_train: Open, journal: Journal) -> None:
    app = open_train(train=str(a_training(journal)))
    button(app, "Race it as a draft").click().run()
    assert not app.exception
    assert app.session_state["sheet"]["B.draft_model.model"] == "half"


def test_files_hold_raw_values(journal: Journal) -> None:
    job = journal.job(a_training(journal))
    assert job is not None
    view = view_of(journal, job.id)
    rows = list(csv.DictReader(io.StringIO(exports.as_csv(view))))
    assert [row["record"] for row in rows] == ["step"] * STEPS + ["look"] * 4
    assert (rows[0]["loss_logits"], rows[0]["optimizer_bytes"], rows[0]["tokens_trained"]) == (
        "2.0",
        "100000000.0",
        "1024",
    )
    assert rows[-1]["held_out_kld"] == "0.3"
    assert json.loads(rows[-1]["sample_json"]) == MARKUP
    assert json.loads(exports.as_json(view, job.spec))["lanes"]["student"]["recovered"] == pytest.approx(0.9)


def test_a_sheet_gives_back_the_training_that_it_shows() -> None:
    one = asked(losses={"labels": 0.5}, looks={"patience": 2}, text="a.txt", revision="main")
    assert Training.read(training_data(values_of(one))) == one
