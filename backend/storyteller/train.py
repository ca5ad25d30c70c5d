"""Train the shipped models on two cores: Muon for the matrices, AdamW for the rest, hold and then decay.

What was tried and dropped stands in docs/log.md. Checkpoints make a run resumable: start the same command again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backend.storyteller.card import write_card
from backend.storyteller.exams import accuracy, held_out_loss
from backend.storyteller.stories import END, stories
from backend.storyteller.tokenizer import build_tokenizer

ASKED = 1000  # questions of the card's exam
CHECKPOINT_S = 300.0


@dataclass(frozen=True)
class Plan:
    """What is trained, and for how long: `tokens` in all, the last `decay` share with the rate falling to zero."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    tokens: int
    matrix_rate: float
    vector_rate: float = 3e-3
    batch: int = 8  # more steps matter more here than a smoother gradient
    length: int = 256
    decay: float = 0.4
    seed: int = 7


PLANS = {
    "storyteller": Plan(hidden=512, layers=8, heads=8, ffn=1376, tokens=4_000_000, matrix_rate=0.001),
    "storyteller-draft": Plan(hidden=256, layers=2, heads=4, ffn=688, tokens=5_000_000, matrix_rate=0.002),
}


def build_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of the plan's shape with fresh weights: multi-head attention, tied embedding."""
    torch.manual_seed(plan.seed)
    end = tokenizer.bos_token_id
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,  # padded: packed 4-bit kernels want a round number of rows
        hidden_size=plan.hidden,
        intermediate_size=plan.ffn,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    return LlamaForCausalLM(config)


def batches(plan: Plan, tokenizer: PreTrainedTokenizerFast, skip: int) -> Iterator[Tensor]:
    """Packed (B, T + 1) token batches without end; `skip` starts elsewhere so that a resumed run sees new stories."""
    source = stories(seed=plan.seed + 10 + skip)
    need = plan.batch * (plan.length + 1)
    pool: list[int] = []
    while True:
        while len(pool) < need:
            pool.extend(tokenizer.encode(END + next(source), add_special_tokens=False))
        yield torch.tensor(pool[:need]).view(plan.batch, plan.length + 1)  # (B, T + 1)
        pool = pool[need:]


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embedding and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=plan.vector_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_at(plan: Plan, seen: int) -> float:
    """Share of the full rate after `seen` tokens: short warm-up, hold, linear to zero."""
    warm = min(1.0, (seen + 1) / 50_000)
    left = (plan.tokens - seen) / (plan.decay * plan.tokens)
    return max(0.0, min(warm, 1.0, left))


@dataclass
class Run:
    """A training under way: what a checkpoint holds."""

    model: LlamaForCausalLM
    optims: list[torch.optim.Optimizer]
    seen: int = 0  # tokens
    spent: float = 0.0  # seconds

    def resume(self, checkpoint: Path) -> None:
        """Go on where a checkpoint stopped, if there is one."""
        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optim, saved in zip(self.optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        self.seen, self.spent = state["seen"], state["spent"]

    def save(self, checkpoint: Path, spent: float) -> None:
        """Write a checkpoint."""
        state = {"model": self.model.state_dict(), "optims": [o.state_dict() for o in self.optims]}
        torch.save(state | {"seen": self.seen, "spent": spent}, checkpoint)

    def set_rate(self, plan: Plan, full: list[float]) -> None:
        """Set every optimizer's rate for the tokens seen so far."""
        for optim, rate in zip(self.optims, full, strict=True):
            for group in optim.param_groups:
                group["lr"] = rate * rate_at(plan, self.seen)

    def step(self, forward: Callable[..., Any], batch: Tensor) -> float:
        """One update on a (B, T + 1) batch; returns the loss in nats."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = forward(input_ids=batch[:, :-1], use_cache=False).logits  # (B, T, V)
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        for optim in self.optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        self.seen += batch.shape[0] * (batch.shape[1] - 1)
        return loss.item()


def train(name: str, plan: Plan, work: Path, out: Path) -> None:
    """Train, checkpoint every few minutes to `work`, and write the finished model and its figures to `out`."""
    tokenizer = build_tokenizer()
    model = build_model(plan, tokenizer)
    run = Run(model, optimizers(model, plan))
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    run.resume(checkpoint)
    already, began = run.seen, run.spent
    forward = torch.compile(model)
    started = saved_at = time.monotonic()
    for step, batch in enumerate(batches(plan, tokenizer, skip=run.seen % 900)):
        if run.seen >= plan.tokens:
            break
        run.set_rate(plan, [plan.matrix_rate, plan.vector_rate])
        loss = run.step(forward, batch)
        if step % 25 == 0:
            speed = (run.seen - already) / (time.monotonic() - started)
            print(f"{name}: {run.seen / 1e6:.2f}M tokens, loss {loss:.4f}, {speed:.0f} tokens/s", flush=True)
        if time.monotonic() - saved_at > CHECKPOINT_S:
            saved_at = time.monotonic()
            run.save(checkpoint, began + saved_at - started)
            print(f"{name}: accuracy {accuracy(model, tokenizer, seed=1000, count=80)}", flush=True)
    save(name, plan, model, tokenizer, out, began + time.monotonic() - started)


def save(
    name: str, plan: Plan, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, seconds: float
) -> None:
    """Write bf16 safetensors, tokenizer and `training.json`; accuracy is that of the bf16 weights that ship."""
    nn.Module.to(model, dtype=torch.bfloat16)
    folder = out / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    figures = {
        "plan": asdict(plan),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": round(seconds / 60, 1),
        "held_out_loss": held_out_loss(model.float(), tokenizer, seed=2000, windows=64),
        "accuracy": accuracy(model, tokenizer, seed=3000, count=ASKED),
    }
    write_card(folder, figures, ASKED)
    print(json.dumps(figures), flush=True)


def main() -> None:
    """`python -m backend.storyteller.train NAME`: train one shipped model, resuming where it stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=sorted(PLANS))
    parser.add_argument("--work", type=Path, default=Path(".headway/training"), help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder the finished model is written to")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args.name, PLANS[args.name], args.work, args.out)


if __name__ == "__main__":
    main()
