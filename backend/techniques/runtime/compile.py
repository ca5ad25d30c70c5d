"""torch.compile of one-token steps, warmed up before the clock runs, with eager as the way out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import Cache, DynamicCache, PreTrainedModel

from backend.recipe.base import RecipeError
from backend.recipe.switches.runtime import Compile
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique

WARM_PROMPT = 8  # tokens: neither 0 nor 1, which the compiler would take for constants
WARM_STEPS = 4
WARM_TURNS = 3


class CompiledStep:
    """Stands in for the model's call when one token is decoded; the prompt goes through the model itself.

    Every step reaches the compiler with the same arguments and the same input tensor, whatever the caller gives: a
    further combination, or a tensor born in inference mode, would be compiled again in the middle of a race.
    """

    def __init__(self, model: PreTrainedModel, options: dict[str, Any]) -> None:
        self.options = options
        self.compiled: Callable[..., Any] = torch.compile(model, dynamic=True, options=options or None)
        self._token = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    def __call__(self, input_ids: torch.Tensor, cache: Cache, use_cache: bool = True, logits_to_keep: int = 0) -> Any:
        """Logits (1, 1, V) and the cache, for one token (1, 1), of which all logits are kept."""
        return self.compiled(input_ids=self._token.copy_(input_ids), cache=cache, use_cache=use_cache)


@technique(Compile)
class Compilation:
    """Compiles for growing caches (dynamic sizes), so that no step compiles again because the text got longer."""

    def apply(self, subject: Subject, switch: Compile) -> None:
        """Compile and warm up; where the compiler fails, steps stay eager and the reason is kept for the receipt.

        Raises:
            RecipeError: when the model itself cannot decode with a cache, compiled or not.
        """
        before, start = dict(counters["graph_break"]), time.perf_counter()
        graphs = counters["stats"]["unique_graphs"]
        step = CompiledStep(subject.model, options(subject, switch))
        notes: dict[str, Any] = {"reason": ""}
        subject.progress(0.0, "compiling")
        try:
            warm_up(subject, step)
        except (RuntimeError, OSError) as error:  # what torch's compiler and its C++ compiler raise
            notes["reason"] = _first_line(error)
            _check_eager(subject, switch)
        else:
            subject.plan.forward = step
        notes["compile_s"] = time.perf_counter() - start
        notes["graph_breaks"] = _new(before, counters["graph_break"])
        notes["graphs"] = counters["stats"]["unique_graphs"] - graphs
        subject.notes[switch.kind] = notes
        subject.progress(1.0, "compiled" if subject.plan.forward is step else "not compiled, eager")

    def read_back(self, subject: Subject, switch: Compile) -> Effect:
        """Run two more steps through the live plan and ask the compiler's counters what they cost."""
        notes = subject.notes.get(switch.kind, {"reason": "it was never asked", "graphs": 0, "graph_breaks": {}})
        step, run = subject.plan.forward, subject.run
        if isinstance(step, CompiledStep) and run and not run.compiled_regions:
            notes, step = notes | {"reason": "no compiled code was entered in the run"}, None
        if not isinstance(step, CompiledStep):
            reason = f"eager: {notes['reason']}"
            return Effect(switch.kind, False, reason, {"reason": notes["reason"], "mode": switch.mode})
        graphs = counters["stats"]["unique_graphs"]
        few_steps(subject, step, WARM_PROMPT + 5)
        again = counters["stats"]["unique_graphs"] - graphs
        breaks = sum(notes["graph_breaks"].values())
        return Effect(
            kind=switch.kind,
            took_effect=notes["graphs"] > 0,
            summary=f"compiled in {notes['compile_s']:.0f} s, {breaks} graph breaks, {again} recompiled for more text",
            facts={
                "mode": "max-autotune" if step.options.get("max_autotune") else "default",
                "compile_s": notes["compile_s"],
                "graphs": notes["graphs"],
                "graph_breaks": breaks,
                "recompiles": again,
                "compiled_regions_a_step": run.compiled_regions if run else None,
                "reasons": "; ".join(_first_line(reason) for reason in notes["graph_breaks"]),
            },
        )


def options(subject: Subject, switch: Compile) -> dict[str, Any]:
    """Inductor's options: the mode's own, and on a CPU weights frozen into the compiled code, which packs them."""
    chosen = dict(torch._inductor.list_mode_options(switch.mode)) if switch.mode != "default" else {}
    if subject.device.type == "cpu":
        chosen["freezing"] = True
        if switch.mode == "max-autotune":
            chosen["max_autotune_gemm_backends"] = "CPP,ATEN"
    return chosen


def warm_up(subject: Subject, step: Callable[..., Any]) -> None:
    """Decode at the lengths at which the compiler meets something new, until a round of them compiles no more."""
    for turn in range(WARM_TURNS):
        known = counters["stats"]["unique_graphs"]
        lengths = [length + 3 * turn for length in warm_lengths(subject)]
        for place, length in enumerate(lengths):
            share = (turn + place / len(lengths)) / WARM_TURNS
            subject.progress(share, f"compiling, round {turn + 1}, at {length} tokens")
            few_steps(subject, step, length)
        if counters["stats"]["unique_graphs"] == known:
            return


def warm_lengths(subject: Subject) -> list[int]:
    """A short prompt, and for every window of the caches that the coming requests reach, one each side of its edge."""
    longest = subject.longest or subject.facts.context
    cache = _new_cache(subject, longest)
    windows = {getattr(layer, "sliding_window", None) or getattr(layer, "window", None) for layer in cache.layers}
    if subject.plan.make_cache and subject.facts.sliding_window:
        windows.add(subject.facts.sliding_window)  # a static cache does not say which of its layers slide
    reached = sorted(window for window in windows if window and window < longest)
    return [WARM_PROMPT, *(length for window in reached for length in (max(2, window - 2), window + 2))]


@torch.inference_mode()
def few_steps(subject: Subject, step: Callable[..., Any], tokens: int) -> None:
    """A prompt of that many tokens through the model, and a few steps through `step`, in a cache of the plan's kind."""
    cache = _new_cache(subject, tokens + WARM_STEPS)
    if subject.plan.proposer:
        cache.activate_past_recording()  # as the engine does, so that sliding layers can be cropped
    ids = torch.zeros((1, tokens), dtype=torch.long, device=subject.device)
    subject.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
    for _ in range(WARM_STEPS):
        step(input_ids=ids[:, :1], cache=cache, use_cache=True)


def _new_cache(subject: Subject, total: int) -> Cache:
    make = subject.plan.make_cache
    return make(total) if make else DynamicCache(config=subject.model.config)


def _check_eager(subject: Subject, switch: Compile) -> None:
    """Tell a failed compiler from a model that cannot decode at all.

    Raises:
        RecipeError: in the second case.
    """
    try:
        few_steps(subject, subject.model, WARM_PROMPT)
    except (RuntimeError, TypeError) as error:
        allowed = f"a model that decodes with a cache ({_first_line(error)})"
        raise RecipeError(f"switches.{switch.kind}", type(subject.model).__name__, allowed, "Switch it off.") from None


def _new(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {reason: count - before.get(reason, 0) for reason, count in now.items() if count > before.get(reason, 0)}


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:200]
