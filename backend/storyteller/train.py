"""Train the shipped models: Muon for the matrices, AdamW for the rest, hold and then decay.

The dense ones take an hour on two cores. The one of experts sees twenty-five times as many tokens, hours on a CPU and
minutes on a GPU, since every expert meets only a quarter of them. What was tried and dropped stands in docs/log.md.
Checkpoints make a run resumable: start the same command again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from backend.storyteller.balance import balance_loss, expert_loads
from backend.storyteller.card import write_card
from backend.storyteller.exams import accuracy, held_out_loss
from backend.storyteller.stories import END, FIRST_HELD_OUT, stories
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
    experts: int = 1  # feed-forward parts a layer; of several, a token passes through `top_k`
    top_k: int = 1
    balance: float = 0.01  # weight of the load-balance loss


PLANS = {
    "storyteller": Plan(hidden=512, layers=8, heads=8, ffn=1376, tokens=4_000_000, matrix_rate=0.001),
    "storyteller-draft": Plan(hidden=256, layers=2, heads=4, ffn=688, tokens=5_000_000, matrix_rate=0.002),
    "storyteller-moe": Plan(hidden=384, layers=6, heads=6, ffn=448, tokens=102_000_000, matrix_rate=0.0015, batch=64,
                            experts=8, top_k=2),
}  # fmt: skip


def build_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Fresh weights in the plan's shape, multi-head attention, tied embedding: a Llama, or a Mixtral of experts."""
    torch.manual_seed(plan.seed)
    end = tokenizer.bos_token_id
    shape: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,  # padded: packed 4-bit kernels want a round number of rows
        "hidden_size": plan.hidden,
        "intermediate_size": plan.ffn,
        "num_hidden_layers": plan.layers,
        "num_attention_heads": plan.heads,
        "num_key_value_heads": plan.heads,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    if plan.experts == 1:
        return LlamaForCausalLM(LlamaConfig(**shape))
    rope = {"rope_theta": 10000.0, "rope_type": "default"}
    moe = MixtralConfig(
        **shape, num_local_experts=plan.experts, num_experts_per_tok=plan.top_k, sliding_window=None,
        rope_parameters=rope, rms_norm_eps=1e-6, router_aux_loss_coef=plan.balance,
    )  # fmt: skip
    return MixtralForCausalLM(moe)


class Batches(IterableDataset[Tensor]):
    """Packed (B, T + 1) token batches without end; `skip` starts elsewhere so that a resumed run sees new stories."""

    def __init__(self, plan: Plan, tokenizer: PreTrainedTokenizerFast, skip: int) -> None:
        self.plan, self.tokenizer, self.skip = plan, tokenizer, skip

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        apart = 71 * worker.id if worker else 0  # each worker tells other stories
        source = stories(seed=(self.plan.seed + 10 + self.skip + apart) % FIRST_HELD_OUT)
        need = self.plan.batch * (self.plan.length + 1)
        pool: list[int] = []
        while True:
            while len(pool) < need:
                pool.extend(self.tokenizer.encode(END + next(source), add_special_tokens=False))
            yield torch.tensor(pool[:need]).view(self.plan.batch, self.plan.length + 1)  # (B, T + 1)
            pool = pool[need:]


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices; AdamW for embedding and norms, and at the matrices' rate for router and experts.

    Muon takes one matrix at a time, and experts are held as one block of many.
    """
    matrices, experts, rest = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 or name.endswith("mlp.gate.weight"):
            experts.append(parameter)
        elif parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    muon = torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, *(
        torch.optim.AdamW(found, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        for found, rate in ((experts, plan.matrix_rate), (rest, plan.vector_rate)) if found
    )]  # fmt: skip


def rate_at(plan: Plan, seen: int) -> float:
    """Share of the full rate after `seen` tokens: short warm-up, hold, linear to zero."""
    warm = min(1.0, (seen + 1) / 50_000)
    left = (plan.tokens - seen) / (plan.decay * plan.tokens)
    return max(0.0, min(warm, 1.0, left))


@dataclass
class Run:
    """A training under way: what a checkpoint holds."""

    model: PreTrainedModel
    optims: list[torch.optim.Optimizer]
    seen: int = 0  # tokens
    spent: float = 0.0  # seconds

    def resume(self, checkpoint: Path) -> None:
        """Go on where a checkpoint stopped, if there is one."""
        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, weights_only=True, map_location=self.model.device)
        self.model.load_state_dict(state["model"])
        for optim, saved in zip(self.optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        self.seen, self.spent = state["seen"], state["spent"]

    def save(self, checkpoint: Path, spent: float) -> None:
        """Write a checkpoint."""
        state = {"model": self.model.state_dict(), "optims": [o.state_dict() for o in self.optims]}
        torch.save(state | {"seen": self.seen, "spent": spent}, checkpoint)

    def set_rate(self, plan: Plan) -> None:
        """Set every optimizer's rate for the tokens seen so far."""
        for optim in self.optims:
            for group in optim.param_groups:
                group["lr"] = optim.defaults["lr"] * rate_at(plan, self.seen)

    def step(self, forward: Callable[..., Any], batch: Tensor, plan: Plan) -> Tensor:
        """One update on a (B, T + 1) batch; returns the loss of the text in nats, a scalar on the model's device."""
        batch = batch.to(self.model.device, non_blocking=True)
        routed = {"output_router_logits": True} if plan.experts > 1 else {}
        with torch.autocast(batch.device.type, dtype=torch.bfloat16):
            output = forward(input_ids=batch[:, :-1], use_cache=False, **routed)
        loss = nn.functional.cross_entropy(output.logits.float().flatten(0, 1), batch[:, 1:].flatten())
        uneven = balance_loss(output.router_logits, plan.top_k) if routed else 0.0
        (loss + plan.balance * uneven).backward()
        for optim in self.optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        self.seen += batch.shape[0] * (batch.shape[1] - 1)
        return loss.detach()


def train(name: str, plan: Plan, work: Path, out: Path, device: torch.device, workers: int = 0) -> None:
    """Train, checkpoint every few minutes to `work`, and write the finished model and its figures to `out`."""
    tokenizer = build_tokenizer()
    model = build_model(plan, tokenizer)
    nn.Module.to(model, device)
    run = Run(model, optimizers(model, plan))
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    run.resume(checkpoint)
    already, began = run.seen, run.spent
    forward = torch.compile(model) if plan.experts == 1 else model  # which expert is hit depends on the data
    started = saved_at = time.monotonic()
    source = DataLoader(Batches(plan, tokenizer, skip=run.seen % 900), batch_size=None, num_workers=workers)
    for step, batch in enumerate(source):
        if run.seen >= plan.tokens:
            break
        run.set_rate(plan)
        loss = run.step(forward, batch, plan)
        if step % 25 == 0:
            speed = (run.seen - already) / (time.monotonic() - started)
            print(f"{name}: {run.seen / 1e6:.2f}M tokens, loss {loss:.4f}, {speed:.0f} tokens/s", flush=True)
        if time.monotonic() - saved_at > CHECKPOINT_S:
            saved_at = time.monotonic()
            run.save(checkpoint, began + saved_at - started)
            print(f"{name}: accuracy {accuracy(model, tokenizer, seed=1000, count=80)}", flush=True)
    save(name, plan, model, tokenizer, out, began + time.monotonic() - started)


def save(
    name: str, plan: Plan, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path, seconds: float
) -> None:
    """Write bf16 safetensors, tokenizer and `training.json`; accuracy is that of the bf16 weights that ship."""
    trained_on = name_of(model.device)
    nn.Module.to(model, dtype=torch.bfloat16)
    folder = out / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    figures = {
        "plan": asdict(plan),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": round(seconds / 60, 1),
        "trained_on": trained_on,
        "held_out_loss": held_out_loss(model.float(), tokenizer, seed=2000, windows=64),
        "accuracy": accuracy(model, tokenizer, seed=3000, count=ASKED),
    }
    if plan.experts > 1:
        figures["loads"] = expert_loads(model, tokenizer, seed=2000, tokens=8192, top_k=plan.top_k)
    write_card(folder, figures, ASKED)
    print(json.dumps(figures), flush=True)


def name_of(device: torch.device) -> str:
    """What a model was trained on, for its card."""
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{torch.get_num_threads()} threads of a CPU"


def main() -> None:
    """`python -m backend.storyteller.train NAME`: train one shipped model, resuming where it stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=sorted(PLANS))
    parser.add_argument("--work", type=Path, default=Path(".headway/training"), help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder the finished model is written to")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto: a GPU where there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that tell stories; a GPU outruns one")
    parser.add_argument("--tokens", type=int, help="instead of the plan's")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = PLANS[args.name]
    if args.tokens is not None:
        plan = replace(plan, tokens=args.tokens)
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    train(args.name, plan, args.work, args.out, torch.device(device), args.workers)


if __name__ == "__main__":
    main()
