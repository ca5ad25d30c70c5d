"""The saved model: what stands in the recipe.json of a folder that Headway wrote, and the tensors that belong to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from backend.journal import state_folder
from backend.modelref import bad_model
from backend.recipe.base import Config, RecipeError
from backend.recipe.facts import STORYTELLERS
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Group
from backend.recipe.switches.embedding import GROUP as TABLE_GROUP
from backend.weightfiles import Entry
from backend.widths import Widths

MARKER = "recipe.json"
WEIGHTS = "model.safetensors"
FORMAT = "headway-model"
TAKEN = STORYTELLERS | {"gemma", "gemma-3-270m", "minilm", "all-minilm-l6-v2"}  # mean other models already
ROW_STEP = 16  # rows of an int4 matrix are padded to it
ONE_TABLE = "table of the head"  # an embedding that looks its rows up in what the int8 head holds
BLOCK = 64  # weights that share a scale in the 4 bits of bitsandbytes
PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,79}")
_AGAIN = "Save the model again, or get both files again."


class PackedLayer(Config):
    """One layer whose matrix (rows, columns) is kept as codes."""

    format: str
    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    bias: bool = False
    group_size: int = Field(0, ge=0)  # of int4 and split
    likely: int = Field(0, ge=0)  # of split: rows that are int8
    per_channel: bool = False  # of qint8
    threshold: float = Field(0.0, ge=0.0)  # of LLM.int8()
    activation_scale: float = Field(0.0, ge=0.0)  # of w8a8 with a fixed range; 0 is a range a token
    activation_zero: int = Field(0, ge=0, le=255)
    kernel: Literal["fbgemm", "onednn"] = "fbgemm"  # of w8a8: which one it was made for; either gives the same

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PIECES:
            raise ValueError(f"one of {', '.join(PIECES)}: this version of Headway knows no other")
        return value

    def pieces(self) -> dict[str, Entry]:
        """The tensors that hold it, by the last part of their names; an empty dtype may be any."""
        bias = {"bias": Entry("", (self.rows,))} if self.bias else {}
        return PIECES[self.format](self) | bias


def _int8(layer: PackedLayer) -> dict[str, Entry]:
    return {"codes": Entry("I8", (layer.rows, layer.columns)), "scale": Entry("F32", (layer.rows,))}


def _int4(layer: PackedLayer) -> dict[str, Entry]:
    rows = -(-layer.rows // ROW_STEP) * ROW_STEP
    groups = -(-layer.columns // max(1, layer.group_size))
    codes = Entry("U8", (rows, groups * layer.group_size // 2))  # two a byte, the first in the low half
    return {"codes": codes, "scales_and_zeros": Entry("BF16", (groups, rows, 2))}


def _qint8(layer: PackedLayer) -> dict[str, Entry]:
    scales = (layer.rows if layer.per_channel else 1,)
    codes = Entry("I8", (layer.rows, layer.columns))
    return {"codes": codes, "scale": Entry("F64", scales), "zero_point": Entry("I64", scales)}


def _codebook(layer: PackedLayer) -> dict[str, Entry]:
    numbers = layer.rows * layer.columns
    return {
        "codes": Entry("U8", (-(-numbers // 2),)),
        "scale": Entry("", (-(-numbers // BLOCK),)),
        "codebook": Entry("F32", (16,)),
    }


def _split(layer: PackedLayer) -> dict[str, Entry]:
    codes = Entry("I8", (layer.likely, layer.columns))
    likely = {"likely": Entry("I64", (layer.likely,)), "likely_codes": codes}
    return _int4(layer) | likely | {"likely_scale": Entry("F32", (layer.likely,))}


def _table8(layer: PackedLayer) -> dict[str, Entry]:
    return _int8(layer) | _table_of_head(layer)


def _table4(layer: PackedLayer) -> dict[str, Entry]:
    codes, scale = (layer.rows, layer.columns // 2), (layer.rows, layer.columns // TABLE_GROUP, 2)
    return {"codes": Entry("U8", codes), "scale": Entry("BF16", scale)} | _table_of_head(layer)


def _table_of_head(layer: PackedLayer) -> dict[str, Entry]:
    return {"multiplier": Entry("", (1,))}  # of a row, in the type that rows have


PIECES: dict[str, Callable[[PackedLayer], dict[str, Entry]]] = {
    "int8": _int8,
    "int4": _int4,
    "split": _split,
    "qint8": _qint8,
    "nf4": _codebook,
    "fp4": _codebook,
    "llm_int8": _int8,
    "w8a8": _int8,
    "table8": _table8,
    "table4": _table4,
    ONE_TABLE: _table_of_head,
}


class Saved(Config):
    """What a saved model's recipe.json says."""

    format: Literal["headway-model"] = "headway-model"
    version: Literal[1] = 1
    source: str  # the model that it was made from, by the name that a person gave
    origin: str  # the model that this one was made from, where it was a saved one too; else the same
    revision: str | None = None
    recipe: Recipe = Recipe()  # all of it, as it was raced
    not_weights: tuple[str, ...] = ()  # switches of the recipe that the folder cannot hold
    layers: dict[str, PackedLayer] = Field(default_factory=dict)  # by the layer's dotted name
    widths: Widths | None = None
    trained: str = Field("", max_length=400)  # what training did to it, in a few words
    weights_bytes: int = Field(ge=0)  # in memory
    original_bytes: int = Field(ge=0)  # of the original's weights in fp32
    source_bytes: int | None = Field(None, ge=0)  # of the original's weight files
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def precision(self) -> Recipe:
        """The part of the recipe that says how the weights are held."""
        held = (Group.PRECISION, Group.EMBEDDING)
        kinds = {kind: switch for kind, switch in self.recipe.switches.items() if switch.group in held}
        return Recipe(switches=kinds)

    @property
    def one_table(self) -> bool:
        """Whether embedding and head are one, packed."""
        return any(layer.format == ONE_TABLE for layer in self.layers.values())

    @property
    def label(self) -> str:
        """What was done to the weights, in a few words."""
        kinds = {kind: switch for kind, switch in self.recipe.switches.items() if kind not in self.not_weights}
        return self.trained or Recipe(switches=kinds).label

    def whole(self, name: str, entries: dict[str, Entry]) -> dict[str, Entry]:
        """The file's tensors with each packed layer as the one matrix that it stands for.

        Raises:
            RecipeError: when a piece is missing or has another shape than the layer says.
        """
        found = dict(entries)
        for layer, packed in self.layers.items():
            for leaf, wanted in packed.pieces().items():
                piece = f"{layer}.{leaf}"
                _compare(name, piece, found.pop(piece, None), wanted)
            found[f"{layer}.weight"] = Entry(packed.format, (packed.rows, packed.columns))
            if packed.bias:
                found[f"{layer}.bias"] = Entry("", (packed.rows,))
        return found


def _compare(name: str, piece: str, found: Entry | None, wanted: Entry) -> None:
    if found is None:
        raise bad_model(f"{name}: {piece} is missing", "every tensor that recipe.json tells of", _AGAIN)
    if found.shape != wanted.shape or (wanted.dtype and found.dtype != wanted.dtype):
        given = f"{name}: {piece} is {_shown(found)}"
        raise bad_model(given, f"{_shown(wanted)}, as recipe.json says", _AGAIN)


def _shown(entry: Entry) -> str:
    return f"{' x '.join(map(str, entry.shape))} {entry.dtype}".strip()


def read_saved(folder: Path) -> Saved | None:
    """What a folder's recipe.json says, or None for a folder that Headway did not write.

    Raises:
        RecipeError: when it is Headway's and cannot be read.
    """
    file = folder / MARKER
    if not file.is_file():
        return None
    shown = f"{folder.name}/{MARKER}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise bad_model(shown, "a JSON file", f"Correct it: {error}.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return None  # somebody else's file of that name
    try:
        return Saved.read(data)
    except RecipeError as error:
        found = f"{shown}: {error.field} is {error.value}"
        raise bad_model(found, error.allowed, f"{_AGAIN} {error.remedy}") from None


def models_folder() -> Path:
    """Where models lie that were fetched, or saved under a plain name."""
    return state_folder() / "models"


def saved_folder(name: str) -> Path | None:
    """The folder of the model that was saved under a plain name, or None."""
    folder = models_folder() / name
    return folder if PLAIN_NAME.fullmatch(name) and (folder / MARKER).is_file() else None


def own_folder(name: str) -> Path:
    """Where a model that is to be saved under a name will lie.

    Raises:
        RecipeError: for a name that is no plain one, or is taken.
    """
    allowed = "a plain name: letters, digits, '_', '.' and '-', not ending in .gguf, 80 characters at most"
    if not PLAIN_NAME.fullmatch(name) or name.lower().endswith(".gguf"):
        raise RecipeError("name", name, allowed, "Correct the name.")
    if name in TAKEN or (models_folder() / name).exists():
        raise RecipeError("name", name, "a name that no model has", "Choose another name.")
    return models_folder() / name


def unfinished(folder: Path) -> str:
    """How the names of folders begin in which this one is being made."""
    return f".saving-{folder.name}"


def saved_models() -> list[tuple[str, str]]:
    """Every model that was saved under a plain name, as (name, title); one that cannot be read keeps its place."""
    found = []
    for marker in sorted(models_folder().glob(f"*/{MARKER}")):
        name = marker.parent.name
        if not PLAIN_NAME.fullmatch(name):
            continue
        try:
            saved = read_saved(marker.parent)
        except RecipeError:
            found.append((name, f"{name}, cannot be read"))
            continue
        if saved is not None:
            found.append((name, f"{name}: {saved.source}, {saved.label}"))
    return found
