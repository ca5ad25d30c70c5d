"""What a trained storyteller is worth: answers on stories never seen, and loss on held-out text."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from backend.storyteller.stories import END, exam, held_out_text


@torch.inference_mode()
def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, count: int) -> dict[str, float]:
    """Share of questions answered exactly, overall and by kind; each answer is one token, chosen greedily."""
    right: dict[str, list[bool]] = defaultdict(list)
    for story, question in exam(seed, count):
        ids = tokenizer.encode(f"{END}{story} {question.text}", return_tensors="pt", add_special_tokens=False)
        choice = model(input_ids=ids.to(model.device), use_cache=False).logits[0, -1].argmax()
        right[question.kind].append(tokenizer.decode([int(choice)]) == question.answer)
    kinds = {kind: round(sum(marks) / len(marks), 4) for kind, marks in sorted(right.items())}
    return {"all": round(sum(map(sum, right.values())) / count, 4)} | kinds


@torch.inference_mode()
def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, windows: int) -> float:
    """Mean cross-entropy in nats a token over `windows` windows of 256 tokens of held-out stories."""
    ids = tokenizer.encode(held_out_text(seed, windows * 3), add_special_tokens=False)[: windows * 256]
    rows = torch.tensor(ids, device=model.device).view(windows, 256)  # (N, T)
    logits = torch.cat([model(input_ids=row[None, :-1], use_cache=False).logits for row in rows])  # (N, T - 1, V)
    return round(nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten()).item(), 4)
