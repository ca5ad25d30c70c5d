"""The sheet: everything that stands in the form, as flat plain values, and its two ways from and to a race.

Keys: `model`, `prompt`, ... for fields of the race; `sampling.top_k` for fields of its parts; `A.precision` for the
choice of an exclusive group; `A.prune_heads` for a switch that is on; `A.prune_heads.ratio` for its field.
"""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo

from backend.recipe.base import Config
from backend.recipe.race import LANES, Budget, Measure, Race, Sampling
from backend.recipe.recipe import Recipe
from backend.recipe.switch import ONE_OF, Switch, all_switches

Values = dict[str, Any]
PARTS: dict[str, type[Config]] = {"sampling": Sampling, "measure": Measure, "budget": Budget}
PLAIN = tuple(name for name in Race.model_fields if name not in (*PARTS, "baseline", "variants"))
NONE = ""


def values_of(race: Race) -> Values:
    """The sheet that shows this race."""
    data = race.model_dump(mode="json")
    values: Values = {name: data[name] for name in PLAIN}
    for part in PARTS:
        values |= {f"{part}.{name}": value for name, value in data[part].items()}
    values["lanes"] = [name for name, _ in race.lanes]
    for lane, recipe in race.lanes:
        values |= recipe_values(lane, recipe)
    return values


def recipe_values(lane: str, recipe: Recipe) -> Values:
    """The part of the sheet that belongs to one lane."""
    values: Values = {f"{lane}.{group}": NONE for group in ONE_OF}
    for switch in recipe.switches.values():
        if switch.group in ONE_OF:
            values[f"{lane}.{switch.group}"] = switch.kind
        else:
            values[f"{lane}.{switch.kind}"] = True
        values |= {f"{lane}.{switch.kind}.{name}": value for name, value in switch.model_dump(mode="json").items()}
    return values


def race_data(values: Values) -> dict[str, Any]:
    """The race that the sheet asks for, as plain data that is not yet validated."""
    data = given(values, "", {name: Race.model_fields[name] for name in PLAIN})
    for part, cls in PARTS.items():
        data[part] = given(values, f"{part}.", cls.model_fields)
    lanes = [recipe_data(values, lane) for lane in values["lanes"]]
    return data | {"baseline": lanes[0], "variants": lanes[1:]}


def recipe_data(values: Values, lane: str) -> dict[str, Any]:
    """The recipe of one lane as plain data."""
    kinds = [kind for kind, cls in all_switches().items() if is_on(values, lane, cls)]
    return {"switches": {kind: fields_of(values, lane, kind) for kind in kinds}}


def is_on(values: Values, lane: str, cls: type[Switch]) -> bool:
    """Whether the lane has the switch."""
    if cls.group in ONE_OF:
        return bool(values.get(f"{lane}.{cls.group}", NONE) == cls.kind)
    return bool(values.get(f"{lane}.{cls.kind}", False))


def fields_of(values: Values, lane: str, kind: str) -> dict[str, Any]:
    """What the sheet holds for the fields of a switch; fields nobody touched are left to their defaults."""
    return given(values, f"{lane}.{kind}.", all_switches()[kind].model_fields)


def given(values: Values, prefix: str, fields: dict[str, FieldInfo]) -> dict[str, Any]:
    """Fields by name; an empty text where nothing need be given is nothing, since a widget cannot hold None."""
    held = {name: values[prefix + name] for name in fields if prefix + name in values}
    return {name: value for name, value in held.items() if value != "" or fields[name].default is not None}


def without_lane(values: Values, lane: str) -> Values:
    """The sheet without one variant: the ones after it move up, so that letters stay in order."""
    names = [name for name in values["lanes"] if name != lane]
    moved = dict(zip(names, LANES, strict=False))
    kept = {key: value for key, value in values.items() if key.split(".")[0] not in LANES}
    for old, new in moved.items():
        own = {key: value for key, value in values.items() if key.startswith(f"{old}.")}
        kept |= {f"{new}.{key.partition('.')[2]}": value for key, value in own.items()}
    return kept | {"lanes": list(moved.values())}


def with_lane(values: Values) -> Values:
    """The sheet with one more variant, a copy of the last."""
    new, last = LANES[len(values["lanes"])], values["lanes"][-1]
    copied = {f"{new}.{key.partition('.')[2]}": value for key, value in values.items() if key.startswith(f"{last}.")}
    return values | copied | {"lanes": [*values["lanes"], new]}


def reset_lane(values: Values, lane: str) -> Values:
    """The sheet with every switch of one lane off."""
    kept = {key: value for key, value in values.items() if not key.startswith(f"{lane}.")}
    return kept | recipe_values(lane, Recipe())
