"""The embedding's table in 8 or 4 bits."""

from __future__ import annotations

import torch
from torch import nn

from backend.recipe.base import RecipeError
from backend.recipe.switches.embedding import EmbeddingTable
from backend.techniques.base import Effect, Subject, replace_module
from backend.techniques.quantize.census import layer_format
from backend.techniques.quantize.counting import layer_bytes, weight_bytes
from backend.techniques.quantize.int8_linear import Int8Linear
from backend.techniques.quantize.layers import head_name, untie_head
from backend.techniques.quantize.packed_embedding import PackedEmbedding, pack_table
from backend.techniques.quantize.release import release_memory
from backend.techniques.quantize.torchao_layers import int8_layer, torchao_device
from backend.techniques.registry import technique


@technique(EmbeddingTable)
class PackedTable:
    """Packs the table; a head that reads the same floats becomes int8, since else they would stay beside the codes."""

    def apply(self, subject: Subject, switch: EmbeddingTable) -> None:
        """Replace the embedding, and the head where the two were one.

        Raises:
            RecipeError: for an embedding that does more than look up a row and multiply it, or that is not finite.
        """
        model = subject.model
        old = model.get_input_embeddings()
        table = _plain(old, switch)
        subject.notes[switch.kind] = {"bytes_before": weight_bytes(model), "table_before": table.weight.nbytes}
        subject.progress(0.0, "Packing the embedding")
        head = model.get_output_embeddings()
        if isinstance(head, nn.Linear) and head.weight is table.weight:
            on_gpu = torchao_device(subject.device, switch.kind)
            packed = int8_layer(head) if on_gpu else Int8Linear(head)
            untie_head(model)
            replace_module(model, str(head_name(model)), packed.eval())
        name = next(name for name, module in model.named_modules() if module is old)
        replace_module(model, name, pack_table(table, switch.bits, model.get_output_embeddings()).eval())
        release_memory(subject.device)

    def read_back(self, subject: Subject, switch: EmbeddingTable) -> Effect:
        """Look at the live table, its bytes, and whether the head reads the same."""
        model, note = subject.model, subject.notes.get(switch.kind, {})
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        if not isinstance(table, PackedEmbedding):
            return Effect(switch.kind, False, f"the embedding is {type(table).__name__}, not packed")
        shared = table.is_that_of(head)
        held = layer_bytes(table)
        head_is = layer_format(head) if head is not None else "none"
        beside = ", one table with the head" if shared else f", head {head_is}" if head is not None else ""
        return Effect(
            kind=switch.kind,
            took_effect=table.bits == switch.bits,
            summary=f"embedding int{table.bits}{beside}",
            facts={
                "bits": table.bits,
                "bits_per_weight": round(8 * held / (table.num_embeddings * table.embedding_dim), 3),
                "table_bytes": held,
                "table_bytes_before": note.get("table_before"),
                "shared_with_the_head": shared,
                "head": head_is,
                "weight_bytes": weight_bytes(model),
                "weight_bytes_before": note.get("bytes_before"),
            },
        )


def _plain(old: nn.Module, switch: EmbeddingTable) -> nn.Embedding:
    """The embedding, if rows and a multiplier are all that it is."""
    field, remedy = f"switches.{switch.kind}", "Switch it off."
    computes = isinstance(old, nn.Embedding) and (
        type(old).forward is nn.Embedding.forward or hasattr(old, "embed_scale")
    )
    if not isinstance(old, nn.Embedding) or not computes or old.max_norm is not None:
        raise RecipeError(field, type(old).__name__, "an embedding that looks up a row and multiplies it", remedy)
    if not torch.isfinite(old.weight).all():
        raise RecipeError(field, "weights that are no finite numbers", "a table of finite numbers", remedy)
    return old
