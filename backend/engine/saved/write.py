"""Writing a model as it is now: packed layers as codes and scales, the rest as floats, in safetensors."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.catalog import resolve
from backend.engine.saved.card import model_card
from backend.engine.saved.codec import keep, packed_layers
from backend.recipe.base import RecipeError
from backend.recipe.recipe import Recipe
from backend.saved import MARKER, ONE_TABLE, WEIGHTS, PackedLayer, Saved, read_saved, unfinished
from backend.techniques.anatomy import refusal_to_reload
from backend.techniques.base import Subject
from backend.techniques.expertlayers import stacked_names
from backend.techniques.quantize.counting import weight_bytes
from backend.techniques.quantize.packed_embedding import PackedEmbedding
from backend.techniques.widths import uneven_widths

Progress = Callable[[float, str], None]
LIBRARIES = ("torch", "transformers", "bitsandbytes", "safetensors")
TERMS = ("*LICENSE*", "*NOTICE*", "*TERMS*")  # travel with the weights
# In config.json. transformers refuses a quantization without a method; one that it does not know it only warns of, and
# fills the packed layers with random numbers.
ONLY_HERE = {"headway": "packed layers, described in recipe.json"}
UNEVEN = {"headway": "widths that differ by layer, described in recipe.json"}


def write_saved_model(
    subject: Subject,
    recipe: Recipe,
    folder: Path,
    revision: str | None = None,
    progress: Progress | None = None,
    trained: str = "",
) -> Saved:
    """Write the model, its config, its tokenizer, its recipe and a card into `folder`; whole, or not there at all.

    Args:
        recipe: the one that the lane was asked for; what of it is no weight is written down and said.
        trained: what training did to it, in a few words.
    Raises:
        RecipeError: for a folder that is not empty, a layer that cannot be kept, a config that would be refused when
            it is loaded again, or a disk that is full.
    """
    tell = progress or subject.progress
    check_subject(subject)
    check_folder(folder)
    with full_disk_said(folder), _beside(folder) as work:
        layers, tensors = _collect(subject.model, tell)
        saved = Saved(
            revision=revision,
            recipe=recipe.on(subject.facts),
            not_weights=tuple(switch.kind for switch in recipe.pipeline if not switch.changes_weights),
            layers=layers,
            widths=uneven_widths(subject.model),
            trained=trained,
            weights_bytes=weight_bytes(subject.model),
            versions={name: version(name) for name in LIBRARIES},
            **_before(subject, revision),
        )
        tell(0.8, "Writing the weights")
        save_file(tensors, work / WEIGHTS, metadata={"format": "pt"})
        _write_config(subject, work, ONLY_HERE if layers else UNEVEN if saved.widths else None)
        _copy_terms(subject.facts.name, revision, work)
        (work / "README.md").write_text(model_card(saved, (work / WEIGHTS).stat().st_size), encoding="utf-8")
        (work / MARKER).write_text(json.dumps(saved.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    tell(1.0, "Saved")
    return saved


def check_subject(subject: Subject) -> None:
    """Refuse what is not worth saving, or would not load again.

    Raises:
        RecipeError: for random weights, code that comes with the model, parts that no config describes, or a config
            that transformers refuses.
    """
    model = subject.model
    if subject.facts.random_weights or subject.tokenizer is None:
        raise RecipeError("model", subject.facts.name, "a model with weights and a tokenizer of its own", "Choose one.")
    if getattr(model.config, "auto_map", None):
        allowed = "a model that transformers knows by itself"
        raise RecipeError("model", subject.facts.name, allowed, "Its own code would not travel with the folder.")
    if strange := next(filter(None, (getattr(module, "no_config", "") for module in model.modules())), ""):
        allowed = "a model that a config of transformers can describe"
        raise RecipeError("save", strange, allowed, "Race it and train it elsewhere; here it cannot be kept.")
    if refusal := refusal_to_reload(model):
        allowed = "a shape that transformers loads again"
        raise RecipeError("save", refusal, allowed, "Choose another ratio, for example one half.")


def check_folder(folder: Path) -> None:
    """Refuse a place where something is.

    Raises:
        RecipeError: for a file, or a folder that is not empty.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RecipeError("out", folder, "a folder that is not there yet, or is empty", "Name another folder.")


@contextmanager
def full_disk_said(place: Path) -> Iterator[None]:
    """Turn what the system says of a write that failed into a card."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        where = next((parent for parent in place.absolute().parents if parent.is_dir()), Path("/"))
        free = shutil.disk_usage(where).free
        value = f"{place}: {str(error).splitlines()[0][:120]} ({free / 1e6:,.0f} MB free)"
        remedy = "Free some space, or name a place on a disk that has it and may be written."
        raise RecipeError("out", value, "a place that takes the whole model", remedy) from error


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one, which takes its name at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{unfinished(folder)}-") as work:
        made = Path(work) / "model"
        made.mkdir()
        yield made
        if folder.is_dir():
            folder.rmdir()
        made.rename(folder)


def _collect(model: nn.Module, tell: Progress) -> tuple[dict[str, PackedLayer], dict[str, Tensor]]:
    """Packed layers by name, and every tensor of the file; a tensor that two modules share is there once."""
    packed: dict[str, PackedLayer] = {}
    tensors: dict[str, Tensor] = {}
    layers = packed_layers(model)
    for done, (name, layer) in enumerate(layers.items()):
        tell(0.8 * done / len(layers), f"Reading {name}")
        packed[name], pieces = keep(name, layer)
        if isinstance(layer, PackedEmbedding) and any(layer.is_that_of(other) for other in layers.values()):
            packed[name] = packed[name].model_copy(update={"format": ONE_TABLE})
            pieces = {leaf: pieces[leaf] for leaf in packed[name].pieces()}
        tensors |= {f"{name}.{leaf}": piece.cpu().contiguous() for leaf, piece in pieces.items()}
    inside = tuple(f"{name}." for name in layers)
    for name, value in (*model.named_parameters(), *_saved_buffers(model)):
        if not name.startswith(inside):
            tensors[name] = value.detach().cpu().contiguous()
    return packed, tensors if packed else _stacked(model, tensors)


def _stacked(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Experts put back into the blocks that transformers holds them in, for a file that it can read."""
    for stack, names in stacked_names(model).items():
        tensors[stack] = torch.stack([tensors.pop(name) for name in names])
    return tensors


def _saved_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and leaf not in module._non_persistent_buffers_set:
                yield f"{prefix}.{leaf}" if prefix else leaf, buffer


def _write_config(subject: Subject, folder: Path, only_here: dict[str, str] | None) -> None:
    """Config, generation config and tokenizer, as transformers writes them; a note where it cannot load them."""
    model, tokenizer = subject.model, subject.tokenizer
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if (written := getattr(model, "generation_config", None)) is not None:  # an encoder has none
        written.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if only_here:
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8")) | {"quantization_config": only_here}
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _copy_terms(name: str, revision: str | None, folder: Path) -> None:
    source = resolve(name, revision).path
    if source is not None and source.is_dir():
        for file in {file for pattern in TERMS for file in source.glob(pattern) if file.is_file()}:
            shutil.copy(file, folder / file.name)


def _before(subject: Subject, revision: str | None) -> dict[str, Any]:
    """What it was made from: names, bytes of the original in fp32 and, where they lie here, of the files loaded."""
    source, original, files = subject.facts.name, 4 * subject.facts.parameters, None
    ref = resolve(source, revision)
    path = ref.path
    if path is not None and path.is_file():
        files = path.stat().st_size
    elif path is not None:
        files = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        if earlier := read_saved(path):  # it was made from another before
            original = earlier.original_bytes
    return {"source": source, "origin": ref.origin or source, "original_bytes": original, "source_bytes": files}
