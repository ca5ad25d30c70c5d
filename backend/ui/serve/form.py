"""The form of the Serve page: a load, and for each lane how requests share the model."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from backend.recipe.base import Config, RecipeError
from backend.recipe.serving import Batching, Limits, Load, ServedLane, Serving, Targets
from backend.recipe.switch import all_switches
from backend.ui.figures import size
from backend.ui.models import facts_of
from backend.ui.palette import look
from backend.ui.serve import address
from backend.ui.text import plain

MODELS = ("storyteller", "gemma")
BY_ARRIVALS = {  # the fields that say something, for each kind of arrivals
    "poisson": ("requests", "rate_per_s"),
    "burst": ("requests", "burst", "every_s"),
    "closed": ("requests", "clients"),
    "trace": ("trace",),
}
LENGTHS = ("prompt_min", "prompt_max", "output_min", "output_max")
LIMITS = ("slots", "chunk_tokens", "block_tokens", "admission", "preemption", "tpot_target_s", "prefix_blocks")
TITLES = {
    "rate_per_s": "requests a second",
    "burst": "requests at once",
    "every_s": "seconds between bursts",
    "trace": "trace file",
    "prompt_min": "shortest prompt, tokens",
    "prompt_max": "longest prompt, tokens",
    "output_min": "shortest answer, tokens",
    "output_max": "longest answer, tokens",
    "chunk_tokens": "prompt tokens read in a step",
    "block_tokens": "tokens of a KV block",
    "ttft_s": "TTFT target, s",
    "tpot_s": "TPOT target, s",
    "tpot_target_s": "keep to TPOT, s (0: no target)",
    "prefix_blocks": "prefixes kept, blocks (0: none)",
    "shared_prefix": "tokens that all prompts begin with",
    "check_alone": "answers compared with ones written alone",
}


def draw_form() -> tuple[Serving | None, dict[str, str] | None]:
    """Draw it in the sidebar; what it asks for, or the card that says why it cannot be."""
    held: Serving = st.session_state["serve-seed"]
    with st.sidebar:
        _draw_presets()
        known = [*dict.fromkeys((held.model, *MODELS))]
        options: dict[str, Any] = {"accept_new_options": True, "key": _key("model")}
        model = st.selectbox("Model", known, help="A name, a folder or a Hub model.", **options) or held.model
        load = _load(held.load)
        targets = _fields(held.targets, tuple(Targets.model_fields), "targets")
        count = st.segmented_control("Lanes", [2, 3, 4], default=1 + len(held.variants), key=_key("lanes")) or 2
        kept = [lane for _, lane in held.lanes]
        longest, names = _longest(load), ("base", *"ABC"[: count - 1])
        lanes = [_lane(name, kept[min(at, len(kept) - 1)], model, longest) for at, name in enumerate(names)]
        with st.expander("More"):
            more = _fields(held, ("seed", "check_alone"), "more")
    whole = held.model_dump(mode="json") | more | {"model": model, "load": load, "targets": targets}
    try:
        return Serving.read(whole | {"baseline": lanes[0], "variants": lanes[1:]}, where="serving"), None
    except RecipeError as error:
        return None, error.card()


def _key(name: str) -> str:
    return f"serve-{st.session_state['serve-version']}-{name}"


def show(serving: Serving, preset: str | None) -> None:
    """Fill the form anew."""
    st.session_state["serve-seed"], st.session_state["serve-preset"] = serving, preset
    st.session_state["serve-version"] = st.session_state.get("serve-version", 0) + 1


def _draw_presets() -> None:
    found = address.presets()
    chosen = st.session_state.get("serve-preset")
    index = list(found).index(chosen) if chosen in found else None
    name = _key("preset")
    st.selectbox(
        "Preset", list(found), index=index, format_func=lambda one: found[one].title, key=name,
        on_change=_choose, args=(name,), placeholder="a setting of your own",
    )  # fmt: skip
    if chosen in found:
        st.caption(plain(found[chosen].look_at))


def _choose(key: str) -> None:
    if name := st.session_state[key]:
        show(address.presets()[name].serving, name)
        st.query_params.from_dict({address.ADDRESS.preset: name})


def _load(held: Load) -> dict[str, Any]:
    """Arrivals and lengths; what another kind of arrivals would read stays as it was."""
    st.markdown("**Load**")
    kinds = list(BY_ARRIVALS)
    note = plain(Load.model_fields["arrivals"].description or "")
    chosen = st.selectbox("Arrivals", kinds, index=kinds.index(held.arrivals), key=_key("arrivals"), help=note)
    names = (*BY_ARRIVALS[chosen], *(() if chosen == "trace" else LENGTHS), "shared_prefix")
    trace = {} if chosen == "trace" else {"trace": ""}
    return held.model_dump(mode="json") | {"arrivals": chosen} | _fields(held, names, "load") | trace


def _longest(load: dict[str, Any]) -> int:
    """Tokens of the longest request as far as the form knows: of a trace its file decides, of a bad load nothing."""
    try:
        return Load.read(load | {"arrivals": "burst", "trace": ""}).longest
    except RecipeError:
        return Load().longest


def _lane(name: str, held: ServedLane, model: str, longest: int) -> dict[str, Any]:
    with st.expander(look(name).title.capitalize(), expanded=name in ("base", "A")):
        kinds = list(get_args(Batching))
        note = plain(Limits.model_fields["batching"].description or "")
        batching = st.selectbox(
            "Batching", kinds, index=kinds.index(held.limits.batching), key=_key(f"{name}-batching"), help=note
        )
        limits = _fields(held.limits, LIMITS, name) | {"batching": batching}
        blocks = _memory(name, held.limits, limits, model, longest)
        return {"recipe": _recipe(name, held), "limits": limits | {"blocks": blocks}}


def _memory(name: str, held: Limits, limits: dict[str, Any], model: str, longest: int) -> int:
    """The memory limit as a slider, in blocks, up to enough for all; at 0 there is enough for all, too."""
    most = max(limits["slots"] * -(-longest // limits["block_tokens"]), held.blocks, 1)
    kept = _key(f"{name}-blocks")  # what was chosen last, whatever was the most then
    start = min(st.session_state.get(kept, held.blocks), most)
    blocks = st.slider(
        "Memory limit, KV blocks", 0, most, start, key=_key(f"{name}-blocks-{most}"),
        help="0 is enough for the longest request in every slot.",
    )  # fmt: skip
    st.session_state[kept] = blocks
    facts, _ = facts_of(model, None, False)
    if blocks and facts is not None:
        from backend.forecast import kv_bytes_per_token
        from backend.recipe.recipe import Recipe

        tokens = blocks * limits["block_tokens"]
        st.caption(
            plain(f"{tokens:,} tokens, {size(tokens * kv_bytes_per_token(facts, Recipe()))} unchanged, predicted")
        )
    return blocks


def _recipe(name: str, held: ServedLane) -> dict[str, Any]:
    """Which switches are on, each with what it was shared with or its defaults."""
    before = held.recipe.model_dump(mode="json")["switches"]
    fitting = {kind: fields for kind, switch in all_switches().items() if (fields := switch.for_batch()) is not None}
    chosen = st.multiselect(
        "Switches of the model", [*dict.fromkeys((*before, *fitting))], default=list(before),
        key=_key(f"{name}-switches"),
        help="Set up in detail on the Bench; what decodes one request only cannot be served and is not offered.",
    )  # fmt: skip
    return {"switches": {kind: before.get(kind, fitting.get(kind, {})) for kind in chosen}}


def _fields(held: Config, names: tuple[str, ...], prefix: str) -> dict[str, Any]:
    """A widget for each field: a menu, a number or a text."""
    found: dict[str, Any] = {}
    for name in names:
        field, value = type(held).model_fields[name], getattr(held, name)
        title, key = TITLES.get(name, name.replace("_", " ")), _key(f"{prefix}-{name}")
        note = plain(field.description or "") or None
        choices = get_args(field.annotation)
        if choices:
            found[name] = st.selectbox(title, choices, index=choices.index(value), key=key, help=note)
        elif isinstance(value, str):
            found[name] = st.text_input(title, value, key=key, help=note)
        else:
            step = 1 if isinstance(value, int) else 0.01
            found[name] = st.number_input(title, value=value, step=step, key=key, help=note)
    return found
