"""The catalog: which models there are, and what is known of one before a weight is read."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.devices import devices
from backend.families import family, task_of
from backend.fetched import FETCHED, fetched_folder, is_fetched
from backend.ggufheader import read_gguf
from backend.modelconfig import Sizes, read_config, sizes, text_part
from backend.modelref import ModelRef, bad_model
from backend.recipe.base import RecipeError
from backend.recipe.facts import ModelFacts, Task
from backend.saved import Saved, read_saved, saved_folder, saved_models
from backend.shapes import PREFIX, SHAPES, shape_config
from backend.weightfiles import Entry, read_entries

__all__ = ["ModelRef", "devices", "menu", "model_facts", "read_config", "resolve"]

MODELS = Path(__file__).resolve().parents[1] / "models"
SHIPPED = {
    "storyteller": "Storyteller, 26M",
    "storyteller-moe": "Storyteller of experts, 29M, 10M a token",
    "storyteller-draft": "Storyteller draft, 2M",
}
_TWO_MODELS = "Config and weights are of two models: get both again."
_HEADS = frozenset({"cls", "lm_head", "pooler", "discriminator_predictions", "generator_predictions", "qa_outputs"})
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(name: str, revision: str | None = None) -> ModelRef:
    """Find the model that a name means: shipped, fetched, a shape, a config in JSON, a folder, a GGUF file, a Hub id.

    Raises:
        RecipeError: when there is no such model; nothing is fetched and no weight is read.
    """
    name = name.strip()
    if name in SHIPPED:
        return _shipped(name)
    if name in FETCHED:
        if not is_fetched(name):
            raise bad_model(name, "a model that has been fetched", FETCHED[name].remedy)
        return ModelRef(name, "fetched", fetched_folder(name))
    if name.startswith("{"):
        name = PREFIX + name
    if name.startswith(PREFIX):
        shape_config(name)
        return ModelRef(name, "shape")
    path = _path(name)
    if own := saved_folder(name):
        return _folder(name, own.resolve())
    if name.lower().endswith(".gguf"):
        if not path.is_file():
            raise bad_model(name, "an existing GGUF file", "Correct the path; write it from the root of the disk.")
        return ModelRef(name, "gguf", path.resolve())
    if path.is_dir():
        return _folder(name, path.resolve())
    if _HUB_ID.fullmatch(name):
        return ModelRef(name, "hub", None, revision)
    raise _unknown(name)


def _path(name: str) -> Path:
    """The name as a path.

    Raises:
        RecipeError: when no path can be called so.
    """
    if "\0" in name:
        shown = name.replace("\0", "\\0")
        raise bad_model(shown, "a name without NUL bytes", "Remove the NUL bytes.")
    try:
        path = Path(name).expanduser()
        path.exists()  # says whether the system can look for such a name at all
    except (OSError, RuntimeError) as error:
        raise bad_model(name, "a name that this system can look for", f"Correct it: {error}.") from None
    return path


def _shipped(name: str) -> ModelRef:
    if not (MODELS / name / "config.json").exists():
        raise bad_model(name, "a shipped model that is there", "Restore the folder models, or run `make models`.")
    return ModelRef(name, "shipped", MODELS / name)


def _folder(name: str, path: Path) -> ModelRef:
    if not (path / "config.json").exists():
        remedy = "Give the folder that holds config.json and model.safetensors."
        raise bad_model(name, "a folder with a config.json", remedy)
    saved = read_saved(path)
    return ModelRef(name, "folder", path, origin=saved.origin if saved else "")


def _unknown(name: str) -> RecipeError:
    known = [*SHIPPED, *FETCHED, *(PREFIX + shape for shape in SHAPES)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    remedy = f"Did you mean {close[0]}?" if close else "Correct the name or the path."
    return bad_model(name, f"{', '.join(known)}, a folder, a GGUF file, or a Hub id such as org/name", remedy)


def menu() -> list[tuple[str, str, bool]]:
    """What a page offers: (name, title, whether it can be loaded now)."""
    shipped = [(name, title, (MODELS / name / "config.json").exists()) for name, title in SHIPPED.items()]
    shapes = [(PREFIX + shape, f"{shape}, random weights", True) for shape in SHAPES]
    fetched = [(name, model.title, is_fetched(name)) for name, model in FETCHED.items()]
    saved = [(name, title, True) for name, title in saved_models()]
    return [*shipped, *fetched, *saved, *shapes]


def model_facts(ref: ModelRef, trust_remote_code: bool = False) -> ModelFacts:
    """Facts from the config and the weight files' headers; everything that can be wrong without loading is checked.

    Raises:
        RecipeError: for a config, weights or code that cannot be used.
    """
    config = read_config(ref)
    if config.get("auto_map") and not trust_remote_code:
        allowed = "a model that transformers knows by itself"
        remedy = "It brings code of its own, which may do anything. Allow it (trust_remote_code) only if you know it."
        raise bad_model(ref.name, allowed, remedy)
    found = sizes(ref.name, config)
    entries: dict[str, Entry] | None = None
    saved: Saved | None = None
    if ref.kind in ("shipped", "fetched", "folder"):
        entries = read_entries(ref.place)
        if saved := read_saved(ref.place):
            entries = saved.whole(ref.name, entries)
        if saved or "quantization_config" not in config:  # packed by others, weights have shapes of their own
            _compare(ref, replace(found, **saved.widths.first()) if saved and saved.widths else found, entries)
    if saved and saved.widths:
        found = replace(found, **saved.widths.mean())
    return _facts(ref, config, found, entries, saved)


def _facts(
    ref: ModelRef, config: dict[str, Any], found: Sizes, entries: dict[str, Entry] | None, saved: Saved | None
) -> ModelFacts:
    kind = text_part(config).get("model_type", config["model_type"])
    task = task_of(kind, text_part(config))
    table = found.vocab * found.hidden
    tied = _tied(config, kind, entries) or bool(saved and saved.one_table)
    if entries:
        parameters = sum(e.numel for n, e in entries.items() if not _unused(n, tied, task))
    elif ref.kind == "gguf":
        parameters = sum(Entry("", shape).numel for shape in read_gguf(ref.place).shapes.values())
    else:
        parameters = _count(found, config, tied)
    return ModelFacts(
        name=ref.name,
        architecture=kind,
        layers=found.layers,
        hidden=found.hidden,
        ffn=found.ffn,
        heads=found.heads,
        kv_heads=found.kv_heads,
        head_dim=found.head_dim,
        vocab=found.vocab,
        context=found.context,
        parameters=parameters,
        embedding_parameters=table,
        tied=tied,
        sliding_window=found.sliding_window,
        sliding_layers=found.sliding_layers,
        random_weights=ref.kind == "shape",
        devices=("cpu",) if saved and saved.layers else devices(),
        experts=found.experts,
        used_experts=found.used_experts,
        expert_ffn=found.expert_ffn if found.experts > 1 else 0,
        tokenizer_bytes=_tokenizer_bytes(ref),
        task=task,
        held_as=saved.precision.model_dump_json() if saved and saved.precision.switches else "",
        packed=bool(saved and saved.layers),
        uneven=bool(saved and saved.widths),
    )


def _unused(name: str, tied: bool, task: Task) -> bool:
    """Whether a tensor of the files is no weight of what is run: a tied head; of encoders heads, pooler, numbers."""
    if task == "decoder":
        return tied and name.endswith("lm_head.weight")
    return name.endswith("_ids") or any(part in _HEADS for part in name.split("."))


def _tokenizer_bytes(ref: ModelRef) -> int:
    file = ref.path / "tokenizer.json" if ref.path else None
    return file.stat().st_size if file and file.is_file() else 0


def _tied(config: dict[str, Any], kind: str, entries: dict[str, Entry] | None) -> bool:
    """Whether the head is the embedding: the config says it, or else the weights, or else the family's custom."""
    if family(kind).encoder:
        return True  # there is no head
    stated = config.get("tie_word_embeddings", text_part(config).get("tie_word_embeddings"))
    if isinstance(stated, bool):
        return stated
    if entries is not None:
        return not any(name.endswith("lm_head.weight") for name in entries)
    return family(kind).tied


def _count(found: Sizes, config: dict[str, Any], tied: bool) -> int:
    """Parameters from sizes alone: embedding, head, attention, MLP (of every expert), norms, biases, positions."""
    kind = text_part(config)["model_type"]
    built = family(kind)
    attention = 2 * found.hidden * found.head_dim * (found.heads + found.kv_heads)
    router = found.experts * found.hidden if found.experts > 1 else 0
    layer = attention + found.experts * _expert(kind, found) + router + _vectors(kind, found)
    tables = found.vocab * found.hidden * (1 if tied else 2) + (found.context * found.hidden if built.positions else 0)
    tables += built.token_types * found.hidden
    return tables + found.layers * layer + found.hidden * (2 if built.all_bias else 1)


def _expert(kind: str, found: Sizes) -> int:
    """Numbers in the matrices of one MLP, or of one expert."""
    return family(kind).ffn_matrices * found.hidden * found.expert_ffn


def _vectors(kind: str, found: Sizes) -> int:
    """Norms and biases of a layer."""
    built, query = family(kind), found.heads * found.head_dim
    qkv = query + 2 * found.kv_heads * found.head_dim
    vectors = built.norms * found.hidden + built.head_norms * found.head_dim
    if built.all_bias:
        return vectors + qkv + 2 * found.hidden + found.ffn
    return vectors + (qkv if built.qkv_bias else 0)


def _compare(ref: ModelRef, found: Sizes, entries: dict[str, Entry]) -> None:
    """Refuse weights whose shapes are not those that the config states."""
    query, key = found.heads * found.head_dim, found.kv_heads * found.head_dim
    stated = {
        "embed_tokens.weight": (found.vocab, found.hidden),
        "layers.0.self_attn.q_proj.weight": (query, found.hidden),
        "layers.0.self_attn.k_proj.weight": (key, found.hidden),
        "layers.0.self_attn.o_proj.weight": (found.hidden, query),
        "layers.0.mlp.gate_proj.weight": (found.ffn, found.hidden),
        "layers.0.mlp.down_proj.weight": (found.hidden, found.ffn),
        "encoder.layer.0.attention.self.query.weight": (query, found.hidden),
        "encoder.layer.0.intermediate.dense.weight": (found.ffn, found.hidden),
    }
    for name, entry in entries.items():
        for leaf, shape in stated.items():
            if name.endswith(leaf) and "vision" not in name and entry.shape != shape:
                given = f"{name} is {' x '.join(map(str, entry.shape))}"
                allowed = f"{' x '.join(map(str, shape))}, as config.json says"
                raise bad_model(f"{ref.name}: {given}", allowed, _TWO_MODELS)
    numbers = [int(m[1]) for m in (re.search(r"(?<!vision_)model\.layers\.(\d+)\.", name) for name in entries) if m]
    if numbers and max(numbers) + 1 != found.layers:
        given, allowed = f"{ref.name}: {max(numbers) + 1} layers", f"{found.layers} layers, as config.json says"
        raise bad_model(given, allowed, _TWO_MODELS)
