"""Reading a saved model: built without a number in it, then filled from the file, each packed layer from its codes.

A float matrix of a packed layer exists at no moment, so loading takes the memory that running takes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from backend.engine.saved.codec import make
from backend.modelref import ModelRef, bad_model
from backend.saved import Saved
from backend.techniques.base import replace_module
from backend.techniques.expertlayers import unstack
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import unfold_conv1d
from backend.techniques.quantize.packed_embedding import PackedEmbedding
from backend.techniques.widths import set_widths

Progress = Callable[[float, str], None]
_AGAIN = "Save the model again."


def read_saved_model(ref: ModelRef, saved: Saved, progress: Progress) -> PreTrainedModel:
    """The model as it was saved, in the precision of the file, on the CPU, ready to run.

    Raises:
        RecipeError: for a config, tensors or shapes that do not go together.
    """
    model = _empty_model(ref)
    if saved.widths:
        set_widths(model, saved.widths, ref.name)
    if saved.layers:
        unfold_conv1d(model)  # as it was before it was packed
        unstack(model)
    try:
        with Tensors(ref.place) as tensors:
            _put_packed(model, ref, saved, tensors, progress)
            if saved.one_table:
                _share_table(model, ref)
            _put_floats(model, ref, tensors)
            left = tensors.unread
    except SafetensorError as error:
        raise bad_model(ref.name, "whole safetensors files", f"{_AGAIN} safetensors says: {error}") from error
    model.tie_weights()
    missing = [name for name, value in model.named_parameters() if value.is_meta]
    if missing or left:
        what = f"{missing[0]} is missing" if missing else f"{min(left)} belongs to no layer"
        raise bad_model(f"{ref.name}: {what}", "a tensor for every layer and a layer for every tensor", _AGAIN)
    return model.eval()


def _empty_model(ref: ModelRef) -> PreTrainedModel:
    """The architecture of the config with all parameters on 'meta'; small buffers are real, as its code sets them."""
    try:
        config = AutoConfig.from_pretrained(ref.place, local_files_only=True)
        if hasattr(config, "quantization_config"):  # keeps other loaders off; not for this one
            del config.quantization_config
        with no_init_weights(), init_empty_weights(include_buffers=False):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if (ref.place / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(ref.place, local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError) as error:
        said = (str(error).strip() or type(error).__name__).split("\n")[0][:300]
        allowed = "a config of a causal language model that the installed transformers can build"
        raise bad_model(ref.name, allowed, f"{_AGAIN} transformers says: {said}") from error
    return model


class Tensors:
    """The tensors of a folder's files by name, each copied into memory of its own when it is read."""

    def __init__(self, folder: Path) -> None:
        self._files = [safe_open(file, framework="pt") for file in sorted(folder.glob("*.safetensors"))]
        self._home: dict[str, Any] = {}

    def __enter__(self) -> Tensors:
        for file in self._files:
            file.__enter__()
            self._home |= dict.fromkeys(file.keys(), file)
        self.unread = set(self._home)
        return self

    def __exit__(self, *failure: Any) -> None:
        for file in self._files:
            file.__exit__(*failure)

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def read(self, name: str) -> Tensor:
        """One tensor, contiguous."""
        self.unread.discard(name)
        found: Tensor = self._home[name].get_tensor(name)
        return found.clone(memory_format=torch.contiguous_format)


def _put_packed(model: PreTrainedModel, ref: ModelRef, saved: Saved, tensors: Tensors, progress: Progress) -> None:
    for done, (name, packed) in enumerate(saved.layers.items()):
        progress(0.1 + 0.7 * done / len(saved.layers), f"Packing {name}")
        try:
            old: Any = model.get_submodule(name)
        except AttributeError:
            old = None
        shape = (
            getattr(old, "out_features", getattr(old, "num_embeddings", None)),
            getattr(old, "in_features", getattr(old, "embedding_dim", None)),
        )
        if shape != (packed.rows, packed.columns):
            given = f"{ref.name}: {name} is {packed.rows} x {packed.columns}"
            allowed = f"{shape[0]} x {shape[1]}, as config.json says" if old is not None else "a layer of config.json"
            raise bad_model(given, allowed, "Config and weights are of two models: get both again.")
        replace_module(model, name, make(packed, {leaf: tensors.read(f"{name}.{leaf}") for leaf in packed.pieces()}))


def _share_table(model: PreTrainedModel, ref: ModelRef) -> None:
    """An embedding that was kept as the head's table gets it."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(table, PackedEmbedding) or not isinstance(head, Int8Linear):
        raise bad_model(ref.name, "an int8 head for the embedding that shares its table", _AGAIN)
    table.share(head)


def _put_floats(model: PreTrainedModel, ref: ModelRef, tensors: Tensors) -> None:
    """Every parameter and buffer that the files hold under its own name."""
    for prefix, module in model.named_modules():
        held: dict[str, Any]
        for held in (module._parameters, module._buffers):
            for leaf, old in list(held.items()):
                name = f"{prefix}.{leaf}" if prefix else leaf
                if old is None or name not in tensors or name not in tensors.unread:
                    continue
                new = tensors.read(name)
                if new.shape != old.shape:
                    given = f"{ref.name}: {name} is {' x '.join(map(str, new.shape))}"
                    raise bad_model(given, f"{' x '.join(map(str, old.shape))}, as config.json says", _AGAIN)
                held[leaf] = nn.Parameter(new, requires_grad=False) if held is module._parameters else new
