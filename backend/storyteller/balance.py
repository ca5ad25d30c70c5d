"""Whether experts share the work: the loss that makes them, and what each of them got on text never seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from backend.storyteller.stories import held_out_text


def balance_loss(router_logits: Sequence[Tensor], top_k: int) -> Tensor:
    """The load-balance loss of Fedus et al. 2021 (Switch, eq. 4), the mean over layers; 1 when all experts share alike.

    Taken layer by layer: over all layers at once, one that is overloaded in one layer would be forgiven for idling in
    another.

    Args:
        router_logits: (tokens, experts) of each layer.
    """
    losses = []
    for logits in router_logits:
        odds = logits.float().softmax(-1)  # (N, E)
        chosen = nn.functional.one_hot(odds.topk(top_k).indices, odds.shape[-1]).sum(1).float()  # (N, E)
        losses.append(odds.shape[-1] * (chosen.mean(0) / top_k * odds.mean(0)).sum())
    return torch.stack(losses).mean()


@torch.inference_mode()
def expert_loads(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, tokens: int, top_k: int
) -> list[list[float]]:
    """Each expert's share of its layer's work on held-out stories, (layers, experts); a row sums to 1."""
    ids = tokenizer.encode(held_out_text(seed, tokens // 64), add_special_tokens=False)[: tokens // 256 * 256]
    rows = torch.tensor(ids, device=model.device).view(-1, 256)  # (N, T)
    layers = model(input_ids=rows, use_cache=False, output_router_logits=True).router_logits
    picks = [logits.topk(top_k).indices.flatten() for logits in layers]
    counts = [torch.bincount(pick, minlength=layers[0].shape[-1]).double() for pick in picks]
    return [[round(float(share), 4) for share in count / count.sum()] for count in counts]
