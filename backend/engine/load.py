"""Loading: one door for every kind of model, in the precision of the baseline, ready to be changed."""

from __future__ import annotations

from backend.engine import quiet  # noqa: F401  before transformers, which imports torchao

# isort: split
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from backend.catalog import model_facts, resolve
from backend.engine.pooling import read_pooling
from backend.engine.randomweights import random_model
from backend.engine.saved.read import read_saved_model
from backend.hub import snapshot
from backend.modelref import ModelRef, bad_model
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts, Task
from backend.saved import read_saved
from backend.techniques.base import Pooling, Subject
from backend.techniques.expertlayers import unstack

Progress = Callable[[float, str], None]
Pair = tuple[PreTrainedModel, PreTrainedTokenizerBase | None]


def best_device(name: str | None = None) -> torch.device:
    """The named device, or the best one that torch can use here.

    Raises:
        RecipeError: when torch cannot use the named one.
    """
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind, there in usable.items() if there))
    if not usable.get(name.split(":")[0], False):
        allowed = ", ".join(kind for kind, there in usable.items() if there)
        raise RecipeError("switches.device", name, f"one of the devices of this machine: {allowed}", "Choose another.")
    return torch.device(name)


def base_dtype(device: torch.device) -> torch.dtype:
    """The baseline's precision: bf16 on a CUDA device, where it is the custom, and fp32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def load(
    ref: ModelRef,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    progress: Progress = lambda share, text: None,
) -> Subject:
    """Load a model for inference.

    Every weight lies contiguous in memory of its own, none mapped from a file, so that resident bytes are honest.

    Args:
        device: 'cpu', 'cuda' or 'mps'; None is the best one.
        dtype: of weights and activations; None is `base_dtype`. A model whose weights were converted and saved stays
            as it is, and one that was packed runs on the CPU.
        progress: hears the share done, 0 to 1, and what is being done.
    Raises:
        RecipeError: for a model that cannot be used, with what is wrong with it.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    progress(0.0, "Reading the config")
    facts = model_facts(ref, trust_remote_code)
    target = best_device(device or ("cpu" if facts.packed else None))
    dtype = dtype or base_dtype(target)
    progress(0.1, "Loading weights")
    model, tokenizer = _read(ref, facts, dtype, trust_remote_code, progress)
    pooling: Pooling = "mean"
    if facts.task == "encoder":
        without_pooler(model)
        folder = None if ref.kind == "shape" else Path(model.config._name_or_path)
        pooling = read_pooling(ref.name, folder)
    progress(0.8, f"Moving weights to {target}")
    torch.nn.Module.to(model, target)  # in place; transformers annotates its own `to` for other uses
    model.eval().requires_grad_(False)
    progress(1.0, "Loaded")
    return Subject(
        model=model,
        tokenizer=tokenizer,
        facts=facts,
        device=target,
        pooling=pooling,
        load_other=lambda name: load(resolve(name), device=device, dtype=dtype, trust_remote_code=trust_remote_code),
        progress=progress,
    )


def _read(ref: ModelRef, facts: ModelFacts, dtype: torch.dtype, trust: bool, progress: Progress) -> Pair:
    """Model and tokenizer, each weight in memory of its own; what transformers cannot build as it was saved here."""
    if facts.held_as or facts.uneven:
        model, tokenizer = _from_saved(ref, trust, progress)
        if unstack(model):
            own_weights(model)
        return (model if facts.held_as else torch.nn.Module.to(model, dtype)), tokenizer
    model, tokenizer = _read_floats(ref, dtype, trust, facts.task, progress)
    unstack(model)
    own_weights(model)
    return model, tokenizer


def _read_floats(ref: ModelRef, dtype: torch.dtype, trust: bool, task: Task, progress: Progress) -> Pair:
    if ref.kind == "shape":
        return random_model(ref, dtype, _class_for(task)), None
    if ref.kind == "gguf":
        return read_gguf_model(ref.place, dtype)
    if ref.kind != "hub":
        return _from_folder(ref, ref.place, dtype, trust, task)
    progress(0.1, "Fetching from the Hub")
    folder = snapshot(ref, code=trust)
    fetched = ModelRef(ref.name, "folder", folder)
    model_facts(fetched, trust)  # what the config alone could not show: missing, cut or pickled weights
    return _from_folder(fetched, folder, dtype, trust, task)


def _from_folder(ref: ModelRef, folder: Path, dtype: torch.dtype, trust: bool, task: Task) -> Pair:
    options: dict[str, Any] = {"trust_remote_code": trust, "local_files_only": True}
    try:
        loaded: Any = _class_for(task).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise _cannot_load(ref, error) from error
    model, report = loaded
    missing = sorted(name for name in report["missing_keys"] if not (task == "encoder" and name.startswith("pooler.")))
    if missing:
        shown = f"{ref.name}: {len(missing)} missing, for example {missing[0]}"
        raise bad_model(shown, "weights for every layer", "Download the model again.")
    return model, _tokenizer(ref, folder, options)


def _from_saved(ref: ModelRef, trust: bool, progress: Progress) -> Pair:
    """A model whose weights were converted, or whose widths differ by layer, and that was saved."""
    saved = read_saved(ref.place)
    if saved is None:
        raise bad_model(ref.name, "a model that was saved", "Save it again.")
    options = {"trust_remote_code": trust, "local_files_only": True}
    return read_saved_model(ref, saved, progress), _tokenizer(ref, ref.place, options)


def _tokenizer(ref: ModelRef, folder: Path, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, **options)
    except (ValueError, OSError, KeyError, ImportError, TypeError) as error:
        remedy = f"Put tokenizer.json beside config.json. transformers says: {_first_line(error)}"
        raise bad_model(ref.name, "a folder with a tokenizer", remedy) from error


def _class_for(task: Task) -> Any:
    return AutoModel if task == "encoder" else AutoModelForCausalLM


def without_pooler(model: PreTrainedModel) -> None:
    """Take out what an encoder computes beside its hidden states: sentence vectors are means of those."""
    if getattr(model, "pooler", None) is not None:
        model.register_module("pooler", None)


def read_gguf_model(file: Path, dtype: torch.dtype) -> Pair:
    """Model and tokenizer of a GGUF file, its weights unpacked to `dtype`; takes a minute for 270M parameters.

    Raises:
        RecipeError: when transformers cannot read this architecture from GGUF.
    """
    ref = ModelRef(file.name, "gguf", file)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, OSError, KeyError, ImportError, NotImplementedError) as error:
        raise _cannot_load(ref, error) from error
    # The weights are plain floats now; what is left of the file's quantization would stop save_pretrained.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def own_weights(model: torch.nn.Module) -> None:
    """Give each parameter contiguous memory of its own, in place; tied ones stay tied."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _cannot_load(ref: ModelRef, error: Exception) -> RecipeError:
    remedy = f"Choose another model. transformers says: {_first_line(error)}"
    return bad_model(ref.name, "a causal language model that the installed transformers can load", remedy)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
