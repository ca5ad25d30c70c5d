"""Writing a model as a GGUF file that llama.cpp loads: floats or q8_0, with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize
from torch import Tensor

from backend.engine.gguf.architecture import Architecture, add_sizes, architecture_of
from backend.engine.gguf.tokens import add_tokenizer
from backend.engine.saved.codec import packed_layers
from backend.engine.saved.floats import float_bias, float_matrix
from backend.engine.saved.write import check_subject, full_disk_said
from backend.recipe.base import RecipeError
from backend.techniques.anatomy import text_config
from backend.techniques.base import Subject
from backend.techniques.widths import uneven_widths

Progress = Callable[[float, str], None]
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32  # weights that share a scale in q8_0
ROWS_AT_A_TIME = 1 << 14


def write_gguf(subject: Subject, file: Path, kind: str, progress: Progress) -> list[str]:
    """Write the model as it is now; packed layers are made floats first. The file is whole or not there.

    Args:
        kind: of the matrices, 'f32', 'f16' or 'q8_0'; vectors are f32.
    Returns:
        What was written, in lines to be shown.
    Raises:
        RecipeError: for an architecture, a setting or a tokenizer that llama.cpp has not, and a full disk.
    """
    check_subject(subject)
    if file.exists():
        raise RecipeError("gguf", file, "a file that is not there yet", "Name another file.")
    if uneven_widths(subject.model):
        allowed = "layers of one width: what is written here says it once for all of them"
        raise RecipeError("gguf", "widths that differ by layer", allowed, "Prune by layer and not globally.")
    config = text_config(subject.model)
    known = architecture_of(config)
    part = file.with_name(f".{file.name}.part")
    with full_disk_said(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            coarse = _write(subject, config, known, part, kind, progress)
            part.rename(file)
        finally:
            part.unlink(missing_ok=True)
    progress(1.0, "Written")
    return _told(subject, file, kind, coarse)


def _write(subject: Subject, config: Any, known: Architecture, part: Path, kind: str, progress: Progress) -> list[str]:
    """Write it all; returns the names of matrices that q8_0 does not fit."""
    writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[known.arch])
    try:
        writer.add_name(subject.facts.name)
        writer.add_file_type(TYPES[kind][1])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_sizes(writer, config)
        known.extras(writer, config)
        if subject.tokenizer is not None:
            add_tokenizer(writer, subject.tokenizer, config.vocab_size)
        coarse = _add_tensors(writer, subject, config, known, kind, progress)
        progress(0.9, f"Writing {part.name}")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return coarse


def _add_tensors(
    writer: gguf.GGUFWriter, subject: Subject, config: Any, known: Architecture, kind: str, progress: Progress
) -> list[str]:
    names = gguf.get_tensor_name_map(known.arch, config.num_hidden_layers)
    coarse = []
    for share, name, tensor in _floats(subject.model):
        progress(0.9 * share, f"Converting {name}")
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise RecipeError("gguf", name, "tensors that llama.cpp knows", "Save it as a folder instead (--out).")
        wanted = TYPES[kind][0] if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
        if wanted == gguf.GGMLQuantizationType.Q8_0 and tensor.shape[-1] % BLOCK:
            wanted = gguf.GGMLQuantizationType.F16
            coarse.append(theirs)
        writer.add_tensor(theirs, _encoded(known.fit(name, tensor, config), wanted), raw_dtype=wanted)
    return coarse


def _floats(model: Any) -> Iterator[tuple[float, str, Tensor]]:
    """Every parameter as float32 by its name, packed ones unpacked one at a time; a tied head has none of its own."""
    packed = packed_layers(model)
    inside = tuple(f"{name}." for name in packed)
    plain = [(name, value) for name, value in model.named_parameters() if not name.startswith(inside)]
    total = len(plain) + len(packed)
    for done, (name, value) in enumerate(plain):
        yield done / total, name, value.detach().float().cpu()
    for done, (name, layer) in enumerate(packed.items(), len(plain)):
        yield done / total, f"{name}.weight", float_matrix(name, layer)
        if (bias := float_bias(layer)) is not None:
            yield done / total, f"{name}.bias", bias


def _encoded(tensor: Tensor, wanted: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """The numbers as the type holds them, some rows at a time: q8_0 takes several copies of what it rounds."""
    numbers = tensor.contiguous().numpy()
    if tensor.ndim == 1:
        return quantize(numbers, wanted)
    blocks = [
        quantize(numbers[start : start + ROWS_AT_A_TIME], wanted) for start in range(0, len(numbers), ROWS_AT_A_TIME)
    ]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _told(subject: Subject, file: Path, kind: str, coarse: list[str]) -> list[str]:
    size, original = file.stat().st_size, 4 * subject.facts.parameters
    told = [f"{file}: GGUF, {kind}, {size / 1e6:,.1f} MB on disk, {original / size:.2f} times smaller than fp32"]
    if coarse:
        told.append(f"f16 and not q8_0, since {BLOCK} does not divide their width: {', '.join(coarse)}")
    if packed_layers(subject.model):
        again = " and rounded a second time" if kind == "q8_0" else ""
        told.append(f"The packed layers were made floats first{again}: llama.cpp has other formats for them.")
    return told
