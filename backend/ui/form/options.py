"""What a switch can be on this model, asked of the switch itself: values that fit, and reasons for what does not."""

from __future__ import annotations

from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from backend.recipe.facts import ModelFacts
from backend.recipe.switch import Switch

MOST_TRIED = 1024  # values of an integer field that are tried one by one


def bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """Lowest and highest value that the field allows, ends that are excluded moved in by a hundredth or by one."""
    step = 1 if base_type(field) is int else 0.01
    low = high = None
    for rule in field.metadata:
        if isinstance(rule, Ge):
            low = rule.ge
        elif isinstance(rule, Gt):
            low = rule.gt + step  # type: ignore[operator]
        elif isinstance(rule, Le):
            high = rule.le
        elif isinstance(rule, Lt):
            high = rule.lt - step  # type: ignore[operator]
    return low, high  # type: ignore[return-value]


def base_type(field: FieldInfo) -> Any:
    """The field's type without None; Literal stays as it is."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    return kind


def choices(field: FieldInfo) -> tuple[Any, ...] | None:
    """The values of a Literal, every value of a short integer range, None for what has too many."""
    kind = base_type(field)
    if get_origin(kind) is Literal:
        return get_args(kind)
    low, high = bounds(field)
    if kind is int and low is not None and high is not None and high - low < MOST_TRIED:
        return tuple(range(int(low), int(high) + 1))
    return None


@lru_cache(maxsize=512)
def fitting(cls: type[Switch], name: str, facts: ModelFacts) -> tuple[Any, ...] | None:
    """Values of one field that the switch does not refuse on this model; None where not all can be tried."""
    tried = choices(cls.model_fields[name])
    if tried is None:
        return None
    return tuple(value for value in tried if cls(**{name: value}).unfit(facts) is None)


@lru_cache(maxsize=512)
def impossible(cls: type[Switch], facts: ModelFacts) -> str | None:
    """The reason why no setting of the switch fits this model, or None."""
    if foreign := cls.foreign(facts):
        return foreign
    reason = cls().unfit(facts)
    if reason is None or any(fitting(cls, name, facts) for name in cls.model_fields):
        return None
    if facts.held_as and cls().changes_weights:
        return reason
    free = [name for name, field in cls.model_fields.items() if choices(field) is None]
    return None if free else reason


@lru_cache(maxsize=512)
def refused(cls: type[Switch], name: str, facts: ModelFacts) -> tuple[str, ...]:
    """Reasons for the values of a Literal that do not fit: 'fp16: it needs a GPU'; none where no value would help.

    Values that have one reason stand together.
    """
    tried = choices(cls.model_fields[name]) or ()
    if len(tried) > 12 or get_origin(base_type(cls.model_fields[name])) is not Literal:
        return ()
    reasons = [(value, cls(**{name: value}).unfit(facts)) for value in tried]
    if len({reason for _, reason in reasons}) == 1:
        return ()  # it is another field's
    alike: dict[str, list[str]] = {}
    for value, reason in reasons:
        if reason:
            alike.setdefault(reason, []).append(str(value))
    return tuple(f"{', '.join(values)}: {reason}" for reason, values in alike.items())
