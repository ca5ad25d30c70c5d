"""The form of the Train page, drawn from schemas: it knows no switch, no method and no loss by name."""

from __future__ import annotations

import json

import streamlit as st

from backend import catalog
from backend.journal import Job
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts
from backend.recipe.method import Method, all_methods
from backend.recipe.stages import Assistant, between
from backend.recipe.switch import all_switches
from backend.recipe.training import Training, trainable
from backend.ui.form.fields import draw_field
from backend.ui.form.order import draw_model
from backend.ui.form.panel import draw_groups
from backend.ui.form.sheet import is_on
from backend.ui.form.state import current, filled, form_of, keep, put, replace, seed, sheet
from backend.ui.models import effect_words, facts_of
from backend.ui.text import plain
from backend.ui.train.address import ADDRESS, begin_with, presets
from backend.ui.train.names import free
from backend.ui.train.sheet import METHODS, PARTS, PLAIN, STUDENT, training_data, values_of

FORM = "train"
MOST = 8  # assistants that the form puts in between
PRESET = "train-preset"
FOLDED = ("revision", "trust_remote_code")
SIMPLE = {"pace": ("tokens", "batch", "length", "rate")}  # what of a part stands above, not folded away
TITLES = {
    "name": "Name of the result",
    "smaller": "or a smaller model",
    "text": "text",
    "pace.tokens": "tokens to train on",
}
Card = dict[str, str]


def fill(job: Job | None) -> None:
    """Fill the form once a session: from the address, from what is followed, or ready to go."""
    with form_of(FORM):
        if filled():
            return
    show(*begin_with(job))


def show(training: Training, preset: str | None = None) -> None:
    """Show a training in the form."""
    with form_of(FORM):
        replace(values_of(training))
    st.session_state[PRESET] = preset


def draw_form() -> tuple[Training | None, Card | None]:
    """Draw it in the sidebar; the training that it asks for, or the card of the first mistake in it."""
    with form_of(FORM):
        with st.sidebar:
            _draw_presets()
            model = draw_model(catalog.menu())
            _draw_plain("name")
            facts, _ = facts_of(model, sheet().get("revision"), bool(sheet().get("trust_remote_code")))
            for part, simple in SIMPLE.items():
                _draw_fields(part, simple)
            _draw_student(facts)
            _draw_methods(facts)
            for part in PARTS:
                _draw_part(part)
            with st.expander("Text and model"):
                for name in PLAIN:
                    if name not in ("model", "name", "smaller"):
                        _draw_plain(name)
        return read()


def read() -> tuple[Training | None, Card | None]:
    """The training as the form stands, or the card of the first mistake in it."""
    with form_of(FORM):
        try:
            return Training.read(training_data(current())), None
        except RecipeError as error:
            return None, error.card()


def _draw_presets() -> None:
    found = presets()
    st.selectbox(
        "Preset", list(found), key=PRESET, index=None, format_func=lambda name: found[name].title,
        on_change=_choose, placeholder="a training of your own",
        help="A training with a sentence on what to look at.",
    )  # fmt: skip
    if (chosen := st.session_state[PRESET]) in found:
        st.caption(plain(found[chosen].look_at))


def _choose() -> None:
    if name := st.session_state[PRESET]:
        show(free(presets()[name].training), name)
        st.query_params.from_dict({ADDRESS.preset: name})


def _draw_plain(name: str) -> None:
    draw_field(name, TITLES.get(name, name.replace("_", " ")), Training.model_fields[name])


def _draw_student(facts: ModelFacts | None) -> None:
    """What is done to the model before it trains, with the Bench's own switches."""
    offered = [cls for cls in all_switches().values() if trainable(cls)]
    on = sum(is_on(sheet(), STUDENT, cls) for cls in offered)
    with st.expander(f"Student{f': {on} switched on' if on else ''}", expanded=True):
        st.caption("What is done to the model before it trains.")
        draw_groups(STUDENT, offered, facts, lambda recipe: effect_words(facts, recipe, 256))
        _draw_plain("smaller")


def _draw_methods(facts: ModelFacts | None) -> None:
    """How it is trained: nothing switched on is every weight, on the text as it stands."""
    with st.expander("Methods", expanded=True):
        for kind, method in all_methods().items():
            _draw_method(kind, method, facts)
        if not all_methods():
            st.caption("Every weight is trained, on the text as it stands.")


def _draw_method(kind: str, method: type[Method], facts: ModelFacts | None) -> None:
    name = f"{METHODS}.{kind}"
    note = f"{plain(method.summary)}\n\nSource: {plain(method.source)}" if method.source else plain(method.summary)
    reason = method().refuse(facts) if facts else None
    held = bool(sheet().get(name, False))
    off = reason is not None and not held
    if keep(name, st.toggle(plain(method.title), key=seed(name, False), help=note, disabled=off)):
        for field, schema in method.model_fields.items():
            draw_field(f"{name}.{field}", field.replace("_", " "), schema)
    if reason:
        st.caption(f"Not here. {plain(reason[:1].upper() + reason[1:])}.")


def _draw_part(part: str) -> None:
    """One part of the training, folded away but for what stands above."""
    simple = SIMPLE.get(part, ())
    with st.expander(f"More of the {part}" if simple else part.capitalize()):
        _draw_fields(part, tuple(name for name in PARTS[part].model_fields if name not in simple))


def _draw_fields(part: str, names: tuple[str, ...]) -> None:
    for name in names:
        title, field = TITLES.get(f"{part}.{name}", name.replace("_", " ")), PARTS[part].model_fields[name]
        if isinstance(field.default, tuple):
            _draw_between(f"{part}.{name}")
            continue
        draw_field(f"{part}.{name}", title, field)


def _draw_between(name: str) -> None:
    """How many assistants, evenly on the way; others are set as JSON, or by a preset."""
    held = [Assistant.read(one) for one in sheet().get(name) or ()]
    note = (
        "Each loses an equal part more of the layers, heads or neurons that the student loses, and has as many tokens."
    )
    key = f"train-between-{len(held)}"  # another when a preset brings others
    st.number_input(
        "assistants on the way", 0, max(MOST, len(held)), len(held), key=key, help=note, on_change=_put_between,
        args=(name, key),
    )  # fmt: skip
    way = (
        f"{' → '.join(one.student.label for one in held)} → student." if held else "It learns from its teacher at once."
    )
    st.caption(plain(f"{way} Others are set in the recipe as JSON, below, or by a preset."))


def _put_between(name: str, key: str) -> None:
    """Put assistants on the way to the student as it stands."""
    with form_of(FORM):
        try:
            found = between(Training.read(training_data(current())).student, st.session_state[key])
            sheet()[name] = [one.model_dump(mode="json") for one in found]
            put("stages.made_from", "original")
        except RecipeError as error:
            ADDRESS.complain(error.card())


def draw_json(asked: Training | None) -> None:
    """The training as JSON, to see, to change, and to paste another into."""
    with st.expander("Recipe as JSON"), form_of(FORM):
        data = asked.model_dump(mode="json") if asked else training_data(current())
        text = json.dumps(data, indent=2, ensure_ascii=False)
        key = f"train-json-{hash(text)}"  # what is typed here goes when the form changes
        st.text_area("Recipe", text, key=key, height=320, label_visibility="collapsed")
        note = "`python -m backend train FILE` runs the same from the command line."
        st.button("Take it over", key="train-json-take", on_click=_take, args=(key,), help=note)


def _take(key: str) -> None:
    try:
        data = json.loads(st.session_state[key])
        show(Training.read(data, where="training"))
    except json.JSONDecodeError as error:
        value = f"line {error.lineno}, column {error.colno}: {error.msg}"
        ADDRESS.complain(RecipeError("recipe", value, "JSON", "Correct the text there.").card())
    except RecipeError as error:
        ADDRESS.complain(error.card())
