"""What a model's config alone says about it: enough to refuse a switch before a weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STORYTELLERS = frozenset({"storyteller", "storyteller-moe", "storyteller-draft"})  # shipped, of one vocabulary
Task = Literal["decoder", "encoder"]  # writes tokens one by one, or makes one vector of a whole sentence


@dataclass(frozen=True)
class ModelFacts:
    """Plain facts of one model on one machine. Sizes are counts, not bytes."""

    name: str
    architecture: str  # the config's model_type, for example 'llama'
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    parameters: int
    embedding_parameters: int
    tied: bool = True
    sliding_window: int | None = None  # window of the layers that slide by themselves
    sliding_layers: int = 0  # how many layers slide by themselves
    random_weights: bool = False  # a shape: speed and memory only
    devices: tuple[str, ...] = ("cpu",)  # what this machine has, best first
    experts: int = 1  # feed-forward parts a layer
    used_experts: int = 1  # of which a token passes through so many
    expert_ffn: int = 0  # neurons of one of several
    tokenizer_bytes: int = 0  # of the tokenizer's file: what is read from it stays in memory
    task: Task = "decoder"
    held_as: str = ""  # JSON of the recipe by which a saved model's weights are held already; '' where there is none
    packed: bool = False  # whether they are packed for a CPU's kernels
    uneven: bool = False  # a saved model whose widths differ by layer; heads, KV heads and ffn are then means

    @property
    def kv_values_per_token(self) -> int:
        """Cached numbers a token over all layers: keys and values; an encoder caches nothing."""
        return 0 if self.task == "encoder" else 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def kv_values_per_layer(self) -> int:
        """The same of one layer."""
        return self.kv_values_per_token // self.layers if self.layers else 0

    @property
    def idle_parameters(self) -> int:
        """Numbers in the experts that a token does not pass through, all of them gated."""
        return 3 * self.hidden * self.expert_ffn * self.layers * (self.experts - self.used_experts)

    @property
    def has_gpu(self) -> bool:
        """Whether a CUDA device was found."""
        return any(device.startswith("cuda") for device in self.devices)
