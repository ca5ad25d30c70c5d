"""Pooling: how an encoder's hidden states become one vector, as the folder of a sentence encoder says it."""

from __future__ import annotations

import json
from pathlib import Path

from backend.modelref import bad_model
from backend.techniques.base import Pooling

FILE = Path("1_Pooling") / "config.json"  # written by sentence-transformers beside its models
MODES: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "first"}  # as newer versions write it, under pooling_mode


def read_pooling(name: str, folder: Path | None) -> Pooling:
    """The mean of all tokens, unless the folder says that the first token's state is the vector.

    Raises:
        RecipeError: for a way that is not known here, since vectors made in another would mean nothing.
    """
    file = folder / FILE if folder else None
    if file is None or not file.is_file():
        return "mean"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise bad_model(f"{name}/{FILE}", "a JSON file", f"Correct it: {error}.") from None
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    found = {MODES.get(key) for key in on} or {NAMES.get(str(config.get("pooling_mode", "mean")))}
    way = found.pop() if len(found) == 1 else None
    if way is None:
        told = ", ".join(on) or config.get("pooling_mode")
        raise bad_model(f"{name}: {told}", "an encoder whose vector is the mean or the first token", "Choose another.")
    return way
