"""Quality on the page: the alarm, the budget, the table of metrics, and worst tokens that are text and never markup."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import staged
from streamlit.testing.v1 import AppTest

from backend.journal import Journal
from backend.recipe.race import Race
from backend.replay import LaneView
from backend.ui import exports
from backend.ui.quality_table import quality_rows
from backend.ui.worst import spoken, spot_html, visible

Open = Callable[..., AppTest]


def run_race(journal: Journal, **changes: object) -> int:
    race = Race.read(staged.race().model_dump(mode="json") | changes)
    job = journal.submit("race", race.model_dump(mode="json"))
    staged.play(journal, job, race)
    return job


def test_the_alarm_is_red_on_the_card_of_the_lane_that_fell(open_bench: Open, journal: Journal) -> None:
    app = open_bench(job=str(run_race(journal)))
    assert not app.exception
    told = [one.value.replace("\\", "") for one in app.error]
    assert len(told) == 1  # B, and not A
    assert told[0].startswith("**Quality alarm: ")
    assert "exact match 92% to 50%" in told[0]


def test_a_budget_stands_on_the_card_first(open_bench: Open, journal: Journal) -> None:
    app = open_bench(job=str(run_race(journal, budget={"kld": 0.05})))
    lines = [one.value.replace("\\", "") for one in app.markdown]
    passed = next(at for at, line in enumerate(lines) if line.startswith("**A, quality budget: pass: decode KLD"))
    failed = next(at for at, line in enumerate(lines) if line.startswith(":red[**B, quality budget: fail: decode KLD"))
    assert passed < next(at for at, line in enumerate(lines) if "A is 1.7" in line) < failed


def test_every_metric_stands_beside_the_baselines_with_its_protocol(open_bench: Open, journal: Journal) -> None:
    app = open_bench(job=str(run_race(journal)))
    table = next(one.value for one in app.dataframe if "Protocol" in one.value)
    rows = {row["Metric"]: row for row in table.to_dict("records")}
    assert rows["Perplexity"]["Baseline"] == "2.31"
    assert "context 256" in rows["Perplexity"]["Protocol"]
    assert rows["Exact match on questions"]["A"].startswith("92%, 22 of 24 (p 1")
    assert rows["KLD mean, decode, nats"]["Baseline"] == "reference"
    assert " to " in rows["KLD mean, decode, nats"]["B"]
    assert rows["First divergence"]["B"] == "token 41"
    assert "KLD mean, prefill, nats" not in rows  # nothing was scored there


def test_a_race_without_quality_has_no_table(journal: Journal) -> None:
    view = staged.play(journal, journal.submit("race", staged.race().model_dump(mode="json")), staged.race())
    view.verdict = {"lanes": {"base": {"label": "unchanged"}, "A": {"label": "A", "failed": True}}}
    assert list(quality_rows(view)) == []


class Seen(HTMLParser):
    """Tags and text as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markup_in_a_token_is_shown_as_text() -> None:
    seen = Seen()
    seen.feed(spot_html(staged.spot(16, 2.5), "decode", LaneView("A"), dark=False))
    assert "b" not in seen.tags
    for text in ("<b>red</b>", " **blue**", "It is $x^2$ & *warm*", "↵"):
        assert text in seen.text
    assert "60%" in seen.text


def test_a_screen_reader_hears_the_place_in_one_sentence() -> None:
    assert spoken(staged.spot(16, 2.5), "decode", "A") == (
        "Written token 17, KLD 2.50 nats: the text has “<b>red</b>” (60% in the baseline, 20% in A); "
        "the baseline's choice is “<b>red</b>” (60%), A's is “ **blue**” (50%)."
    )
    assert visible("  ") == "␣␣"
    assert visible("a\tb\r\n") == "a⇥b↵"


def test_the_worst_tokens_stand_in_an_expander(open_bench: Open, journal: Journal) -> None:
    app = open_bench(job=str(run_race(journal)))
    assert any(one.label.startswith("Worst tokens") for one in app.expander)
    bodies = [one.value for one in app.html]
    assert any("&lt;b&gt;red&lt;/b&gt;" in body for body in bodies)
    assert not any("<b>" in body for body in bodies)


def test_top5_is_exported(journal: Journal) -> None:
    view = staged.play(journal, journal.submit("race", staged.race().model_dump(mode="json")), staged.race())
    assert '"top5": [' in exports.as_json(view, {})
    assert "top5" in exports.as_csv(view).split("\n")[0]


def test_a_limit_is_set_and_unset_in_the_form(open_bench: Open) -> None:
    app = open_bench()
    box = next(one for one in app.number_input if one.label == "accuracy points")
    assert box.value is None
    from backend.ui.form.sheet import race_data

    box.set_value(2.0).run()
    assert race_data(app.session_state["sheet"])["budget"]["accuracy_points"] == 2.0
    box = next(one for one in app.number_input if one.label == "accuracy points")
    box.set_value(None).run()
    assert race_data(app.session_state["sheet"])["budget"]["accuracy_points"] is None
    assert not app.exception
