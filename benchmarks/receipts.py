"""Every technique sabotaged: the receipt must catch each that does nothing, and see each that does its work.

A model is loaded afresh for every case. What cannot run on this machine, or on this model, is listed with its reason.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from typing import Any

import torch

from backend.catalog import model_facts, resolve
from backend.engine.decode import Decoder
from backend.engine.load import load
from backend.engine.receipt import receipt
from backend.engine.text import encode
from backend.engine.witness import witness
from backend.recipe.base import RecipeError
from backend.recipe.race import Sampling
from backend.recipe.recipe import Recipe
from backend.recipe.switch import Switch, all_switches
from backend.techniques.base import Subject
from backend.techniques.registry import all_techniques, apply_switch
from backend.texts import held_out_text
from benchmarks._bench import ENGLISH, STORY, Bench

THREADS = torch.get_num_threads()  # before any case changes them


def examples(kind: str, model: str) -> Iterator[Switch]:
    """The switch with its defaults, asking for what is not there already; and the other kinds of a choice."""
    cls = all_switches()[kind]
    asked: dict[str, Any] = {}
    if kind == "threads":
        asked = {"count": 1 if THREADS > 1 else 2}
    if kind == "draft_model" and model != "storyteller":
        asked = {"model": model}  # its own draft: no gain, and all that a receipt can see
    yield cls.read(asked)
    for more in {
        "int8_dynamic": [{"per_channel": True}],
        "bnb_4bit": [{"format": "fp4"}],
        "int8_weight_only": [{"head": "keep"}],
        "int4_weight_only": [{"group_size": 64, "head": "int4"}],
        "mixed_precision": [{"levels": "0-3:int4 5:keep head:int4"}],
    }.get(kind, []):
        yield cls.read(more)


def case(model: str, switch: Switch, works: bool) -> dict[str, Any]:
    """One fresh model under one switch, or under a technique that does nothing: its effect as the receipt tells it."""
    torch.set_num_threads(THREADS)
    subject = load(resolve(model))
    prompt = encode(subject, STORY if model == "storyteller" else ENGLISH)
    subject.longest = len(prompt) + 16
    subject.sample_ids = encode(subject, held_out_text(resolve(model)).text[:8000])[-512:]
    if works:
        apply_switch(subject, switch)
    effect = _read(subject, switch, prompt)
    del subject
    gc.collect()
    return effect


def _read(subject: Subject, switch: Switch, prompt: list[int]) -> dict[str, Any]:
    """Run a few tokens as a lane does, and read the receipt."""
    decoder = Decoder(subject, Sampling(), seed=1)
    decoder.start(prompt, room=8)
    for _ in range(4):
        decoder.step()
    began = time.perf_counter()
    subject.run = witness(subject, decoder, prompt)
    facts = receipt(subject, Recipe(switches={switch.kind: switch}))
    return facts["effects"][0] | {"receipt_s": time.perf_counter() - began}


def refusal(model: str, switch: Switch) -> str | None:
    """Why this model on this machine cannot have the switch, or could not show that it did nothing."""
    facts = model_facts(resolve(model))
    if switch.kind == "device" and list(facts.devices) == ["cpu"]:
        return "this machine has one device, on which every model lies already"
    return switch.unfit(facts)


def main() -> None:
    """Print every case; exit 1 when a technique that does nothing is not caught, or one that works is not seen."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["storyteller", "gemma"])
    parser.add_argument("--kinds", nargs="+", default=[switch.kind for switch in all_techniques()])
    args = parser.parse_args()
    bench = Bench("receipts")
    for model in args.models:
        slowest = 0.0
        for switch in (switch for kind in args.kinds for switch in examples(kind, model)):
            if reason := refusal(model, switch):
                print(f"        {model}, {switch.kind}: skipped, it allows only {reason}", flush=True)
                continue
            slowest = max(slowest, judge(bench, model, switch))
        bench.check(
            f"{model}: slowest receipt with its run, s", slowest, at_most=1.0 if model == "storyteller" else 5.0
        )
    bench.end()


def judge(bench: Bench, model: str, switch: Switch) -> float:
    """Check both cases of one switch; returns the longest time that a receipt took."""
    name = f"{model}, {switch.kind} ({switch.label})"
    idle = case(model, switch, works=False)
    bench.check(f"{name}: doing nothing is caught ({idle['summary']})", not idle["took_effect"], at_least=1)
    try:
        real = case(model, switch, works=True)
    except RecipeError as error:
        print(f"        {name}: refused, {error.allowed}", flush=True)
        return float(idle["receipt_s"])
    bench.check(f"{name}: doing its work is seen ({real['summary']})", real["took_effect"], at_least=1)
    return float(max(idle["receipt_s"], real["receipt_s"]))


if __name__ == "__main__":
    main()
