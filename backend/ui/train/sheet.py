"""The sheet of the Train page: a training as flat plain values, and its two ways from and to it.

Keys as on the Bench: `name` for a field of the training, `pace.rate` for one of its parts, `student.prune_heads` and
`student.prune_heads.ratio` for a switch, `methods.KIND` and `methods.KIND.FIELD` for a method.
"""

from __future__ import annotations

from typing import Any

from backend.recipe.base import Config
from backend.recipe.method import all_methods
from backend.recipe.recipe import Recipe
from backend.recipe.training import Training
from backend.ui.form.sheet import Values, given, recipe_data, recipe_values

STUDENT, METHODS = "student", "methods"
PARTS: dict[str, type[Config]] = {
    name: kind
    for name, field in Training.model_fields.items()
    if isinstance(kind := field.annotation, type) and issubclass(kind, Config) and kind is not Recipe
}
PLAIN = tuple(name for name in Training.model_fields if name not in (*PARTS, STUDENT, METHODS))


def values_of(training: Training) -> Values:
    """The sheet that shows this training."""
    data = training.model_dump(mode="json")
    values: Values = {name: data[name] for name in PLAIN}
    for part in PARTS:
        values |= {f"{part}.{name}": value for name, value in data[part].items()}
    for kind, fields in data[METHODS].items():
        values[f"{METHODS}.{kind}"] = True
        values |= {f"{METHODS}.{kind}.{name}": value for name, value in fields.items()}
    return values | recipe_values(STUDENT, training.student)


def training_data(values: Values) -> dict[str, Any]:
    """The training that the sheet asks for, as plain data that is not yet validated."""
    data = given(values, "", {name: Training.model_fields[name] for name in PLAIN})
    data |= {part: given(values, f"{part}.", kind.model_fields) for part, kind in PARTS.items()}
    methods = {
        kind: given(values, f"{METHODS}.{kind}.", method.model_fields)
        for kind, method in all_methods().items()
        if values.get(f"{METHODS}.{kind}")
    }
    return data | {METHODS: methods, STUDENT: recipe_data(values, STUDENT)}
