"""A prediction (see backend/prediction.py) as rows of plain text, for the page and the command line."""

from __future__ import annotations

from typing import Any

from backend.room import ENDLESS
from backend.ui.figures import count, ratio, seconds, size, three
from backend.ui.palette import look

Prediction = dict[str, Any]
Rows = list[list[str]]
UNMEASURED = "this machine has not been measured yet"


def lane_rows(predicted: Prediction) -> Rows:
    """Lanes side by side: titles first, then parameters by part, bytes, and the ceilings of this machine."""
    lanes = predicted["lanes"]
    rows = [["", *(f"{look(name).title}: {lane['label']}" for name, lane in lanes.items())]]
    for part in next(iter(lanes.values()))["parameters"]:
        told = (_part(lane["parameters"], part) for lane in lanes.values())
        rows.append([f"Parameters, {part}", *told])
    rows.append(["Parameters, all", *(count(sum(lane["parameters"].values())) for lane in lanes.values())])
    for title, key in (("Weights", "weights_bytes"), ("KV per token", "kv_bytes_per_token")):
        rows.append([title, *(size(lane[key]) for lane in lanes.values())])
    rows.append(["Longest context that fits, a lane alone", *(_room(lane) for lane in lanes.values())])
    for title, key in (
        (f"KV at {predicted['context']:,} tokens", "kv_bytes"),
        ("Peak of load", "loading_bytes"),
        ("Peak of run", "run_bytes"),
        ("Must move per token", "moved_bytes"),
    ):
        rows.append([title, *(_bytes(lane, key) for lane in lanes.values())])
    rows.append(["Decode ceiling here", *(_speed(predicted, name) for name in lanes)])
    title = f"Prefill of {predicted['prompt_tokens']:,} tokens, at least"
    rows.append([title, *(_prefill(lane) for lane in lanes.values())])
    return rows


def _part(parameters: dict[str, int], part: str) -> str:
    return "the embedding's" if part == "head" and not parameters[part] else count(parameters[part])


def _room(lane: dict[str, Any]) -> str:
    """'1.2M tokens': by the free memory, whatever the model has learned to read."""
    fits = lane["fits_tokens"]
    if fits is None:
        return "the device does not say what is free"
    return "any: the cache stops growing" if fits >= ENDLESS else f"{count(fits)} tokens"


def _bytes(lane: dict[str, Any], key: str) -> str:
    if key != "moved_bytes":
        return size(lane[key])
    tokens = lane["round_tokens"]
    return size(lane[key] / tokens) + (f" if all {tokens - 1} guesses are right" if tokens > 1 else "")


def _speed(predicted: Prediction, name: str) -> str:
    """'271 tokens/s, 3.4x': tokens a second where the machine was measured, and against the baseline."""
    speed, against = predicted["lanes"][name]["tokens_per_s"], predicted["ratios"].get(name)
    told = [f"{three(speed)} tokens/s"] if speed else []
    told += [ratio(against)] if against else []
    return ", ".join(told) or UNMEASURED


def _prefill(lane: dict[str, Any]) -> str:
    return seconds(lane["prefill_s"]) if lane["prefill_s"] else UNMEASURED


def elsewhere_rows(predicted: Prediction) -> Rows:
    """Known machines, a row each: bandwidth, and each lane's decode ceiling and prefill; the source last."""
    lanes = list(predicted["lanes"])
    speeds = (f"{look(name).title}, decode and prefill" for name in lanes)
    rows = [["machine", "bandwidth (datasheet)", *speeds, "source"]]
    for there in predicted["elsewhere"]:
        told = [_there(there["lanes"][name]) for name in lanes]
        rows.append([there["machine"], f"{size(there['bandwidth_bytes_per_s'])}/s", *told, there["source"]])
    return rows


def _there(lane: dict[str, Any]) -> str:
    if lane["reason"]:
        return str(lane["reason"])
    prefill = f", {seconds(lane['prefill_s'])}" if lane["prefill_s"] else ""
    return f"{three(lane['tokens_per_s'])} tokens/s{prefill}"


def precision_line(predicted: Prediction) -> str:
    """The weights at each precision: 'Weights: fp32 104 MB, bf16 52 MB, ...'."""
    told = ", ".join(f"{name} {size(held)}" for name, held in predicted["precisions"].items())
    return f"Weights, predicted: {told}."


def machine_line(predicted: Prediction) -> str:
    """What the ceilings here were computed from."""
    here = predicted["here"]
    if here is None:
        return f"Ceilings here: {UNMEASURED}; the worker does it once, as soon as it has been idle for a few seconds."
    flops = ", ".join(f"{name} {count(rate)}" for name, rate in here["flops_per_s"].items())
    return (
        f"Ceilings here: from {size(here['memory_bytes_per_s'])}/s of memory bandwidth and operations a second "
        f"({flops}), both measured with {here['threads']} thread{'s' if here['threads'] > 1 else ''}. "
        "What fits into the processor's caches is read faster, and has its own measured bandwidth."
    )


def summary(predicted: Prediction) -> str:
    """The forecast in words, for who does not see the table."""
    told = []
    for name, lane in predicted["lanes"].items():
        speed = f", at most {three(lane['tokens_per_s'])} tokens/s here" if lane["tokens_per_s"] else ""
        held = f"weights {size(lane['weights_bytes'])}, peak of run {size(lane['run_bytes'])}"
        told.append(f"{look(name).title}: {held}{speed}")
    return f"Predicted at {predicted['context']:,} tokens. {'; '.join(told)}."
