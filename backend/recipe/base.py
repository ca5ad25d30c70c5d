"""What every part of a recipe shares: frozen data, and mistakes that name their field and the remedy."""

from __future__ import annotations

from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class RecipeError(ValueError):
    """A user's mistake: what was given, what is allowed, and what to do. Shown as a card, never as a traceback."""

    def __init__(self, field: str, value: object, allowed: str, remedy: str) -> None:
        self.field = field
        self.value = str(value)[:200]
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(f"{field}: {self.value!r} is not possible. Allowed: {allowed}. {remedy}")

    def card(self) -> dict[str, str]:
        """The four parts, as they go into the journal and onto the page."""
        return {"field": self.field, "value": self.value, "allowed": self.allowed, "remedy": self.remedy}


class Config(BaseModel):
    """Frozen data of JSON scalars; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, data: Any, where: str = "") -> Self:
        """Validate plain data.

        Raises:
            RecipeError: for the first mistake found, with its dotted field.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise _translate(cls, error, where) from None


def _translate(cls: type[BaseModel], error: ValidationError, where: str) -> RecipeError:
    """Turn pydantic's first error into the four parts of a card."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RecipeError):
        return cause
    path = ".".join(str(part) for part in first["loc"])
    field = ".".join(part for part in (where, path) if part) or cls.__name__
    if first["type"] == "extra_forbidden":
        known = ", ".join(_model_at(cls, first["loc"][:-1]).model_fields)
        return RecipeError(field, first["input"], f"one of the keys {known}", "Remove the key or correct its spelling.")
    if first["type"] == "missing":
        return RecipeError(field, "nothing", "a value", "Add the key.")
    return RecipeError(field, first["input"], _allowed(first), "Change the value to one that is allowed.")


def _model_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model inside `cls` to which a path of keys and indices leads."""
    for part in path:
        field = cls.model_fields.get(str(part))
        if field is None:
            continue  # an index into a list of models
        kinds = (field.annotation, *get_args(field.annotation))
        cls = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), cls)
    return cls


def _allowed(first: Any) -> str:
    """Say in words what pydantic wanted, for example 'greater than or equal to 0'."""
    text: str = first["msg"]
    for lead in ("Input should be ", "Value error, "):
        text = text.removeprefix(lead)
    return text
