"""An encoder's race in words and rows of words. Pure functions of its verdict (see backend/encodingverdict.py)."""

from __future__ import annotations

from typing import Any

from backend.ui import words
from backend.ui.figures import interval, ratio, seconds, share, size, three
from backend.ui.figuretable import ratio_words
from backend.ui.palette import look

Lane = dict[str, Any]
Rows = list[list[str]]
HOW = (
    "From token ids to unit vectors on the host; tokenizing is not counted. Medians of rounds; ratios are paired, "
    "above 1 is better."
)
WORTH = (
    "Cosine and pair order are against the baseline's vectors of the same calls. Grades: rank correlation of each "
    "pair's cosine with the grade written beside it. Neighbours: sentences whose nearest other one has the same topic."
)


def sentences(name: str, lane: Lane, base: Lane) -> list[str]:
    """Everything to say about one variant, the headline first."""
    if lane.get("failed"):
        return [f"{name} failed, so there is no verdict on it."]
    effects = lane.get("effects", ())
    made = [headline(name, lane), *size_lines(lane), *worth_lines(lane, base)]
    made += [words.took_effect(effects), words.skipped(effects)]
    return [sentence for sentence in made if sentence]


def headline(name: str, lane: Lane) -> str:
    """'A encodes 1.62x faster (1.60 to 1.64) in calls of 32, is 1.54x smaller, and keeps its vectors at ... .995'."""
    at = _largest(lane)
    parts = [part for part in (_speed(lane, at), _held(lane.get("memory")), _cosine(lane, at)) if part]
    if not parts:
        return f"{name}: nothing was measured to the end, so there is no verdict."
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
    return f"{name} {text}{' (speed and memory simulated)' if lane.get('simulated') else ''}."


def _largest(lane: Lane) -> str:
    return max(lane.get("sizes", {}) or {"0": {}}, key=int)


def _speed(lane: Lane, at: str) -> str:
    speed = lane.get("sizes", {}).get(at, {}).get("speed")
    return f"{speed_words(speed)} in {calls_of(at)}" if speed else ""


def speed_words(speed: dict[str, Any]) -> str:
    """'encodes 1.62x faster (1.60 to 1.64)', and what it means where it is no gain."""
    span = interval(speed.get("low"), speed.get("high"))
    if speed.get("within_noise"):
        return words.no_difference("encodes", speed, span)
    word = "slower, " if speed["ratio"] < 1 else ""
    return f"encodes {word}{ratio(speed['ratio'])}{'' if word else ' faster'} {span}"


def calls_of(at: str) -> str:
    """'calls of 32', 'calls of one sentence'."""
    return "calls of one sentence" if int(at) == 1 else f"calls of {at}"


def _held(memory: dict[str, Any] | None) -> str:
    if not memory or not memory.get("ratio"):
        return ""
    value = memory["ratio"]
    if 0.98 <= value <= 1.02:
        return "is as large"
    return f"is {ratio(value)} smaller" if value > 1 else f"is {ratio(1 / value)} larger"


def _cosine(lane: Lane, at: str) -> str:
    found = lane.get("sizes", {}).get(at, {}).get("worth", {}).get("cosine")
    return f"keeps its vectors at a cosine of {fine(found['mean'])} to the baseline's" if found else ""


def fine(value: float | None) -> str:
    """A cosine or a correlation: digits enough to tell it from 1, '0.99962' and '0.951'."""
    if value is None:
        return "unknown"
    off = abs(1 - value)
    return f"{value:.3f}" if off >= 0.005 or off < 5e-7 else f"{value:.5f}"


def size_lines(lane: Lane) -> list[str]:
    """The other sizes of the call, one sentence each."""
    made = []
    for at, found in lane.get("sizes", {}).items():
        if at != _largest(lane) and (speed := found.get("speed")):
            told = speed_words(speed)
            made.append(f"In {calls_of(at)} it {told}.")
    return made


def worth_lines(lane: Lane, base: Lane) -> list[str]:
    """What the vectors are still worth, in the largest size; and where the smallest tells something else."""
    at = _largest(lane)
    mine, theirs = (one.get("sizes", {}).get(at, {}).get("worth") for one in (lane, base))
    if not mine or not theirs or "cosine" not in mine:
        return []
    made = [
        f"Cosine to the baseline's vectors in {calls_of(at)}: {fine(mine['cosine']['mean'])} mean, "
        f"{fine(mine['cosine']['min'])} at worst.",
        f"Order of the pairs by cosine: rank correlation {fine(mine['ranks'])} with the baseline's; with the grades "
        f"{fine(theirs['grades'])} to {fine(mine['grades'])}.",
        f"Nearest neighbour has the right topic: {_right(theirs)} to {_right(mine)} of {mine['neighbours']['asked']}"
        f"{', within noise' if mine['neighbours_within_noise'] else ''}.",
    ]
    one = lane["sizes"].get("1", {}).get("worth", {}).get("cosine")
    if one and abs(one["mean"] - mine["cosine"]["mean"]) > 0.001:
        made.append(f"In {calls_of('1')} the cosine is {fine(one['mean'])}: its result depends on what shares a call.")
    return made


def _right(worth: dict[str, Any]) -> str:
    return share(worth["neighbours"]["right"] / worth["neighbours"]["asked"])


def speed_rows(verdict: dict[str, Any]) -> Rows:
    """Sentences a second and the time of a call, by size; a row of titles first. Only titles: nothing was measured."""
    named = _columns(verdict)
    head = ["figure"]
    for name, title in named:
        head += [title] if name == "base" else [title, f"{title} against the baseline"]
    made = [head]
    for at in _sizes(verdict):
        cells = {name: verdict["lanes"][name]["sizes"].get(at, {}) for name, _ in named}
        if not any("sentences_per_s" in cell for cell in cells.values()):
            continue
        made.append(_row(f"{calls_of(at)}, sentences/s", cells, lambda cell: three(cell.get("sentences_per_s")), True))
        for part in ("p50", "p95"):
            made.append(
                _row(f"{calls_of(at)}, latency {part}", cells, lambda cell, part=part: _call(cell, part), False)
            )
    return made


def _call(cell: Lane, part: str) -> str:
    return seconds(cell.get("call_s", {}).get(part))


def _row(title: str, cells: dict[str, Lane], tell: Any, paired: bool) -> list[str]:
    made = [title]
    for name, cell in cells.items():
        made.append(tell(cell))
        if name != "base":
            made.append(ratio_words(cell["speed"]) if paired and cell.get("speed") else "")
    return made


def worth_rows(verdict: dict[str, Any]) -> Rows:
    """What the vectors are worth, by size of the call; only titles where nothing was compared."""
    named = _columns(verdict)
    made = [["figure", *(title for _, title in named)]]
    for at in _sizes(verdict):
        found = {name: verdict["lanes"][name]["sizes"].get(at, {}).get("worth", {}) for name, _ in named}
        if not any(found.values()):
            continue
        tag = calls_of(at)
        made.append([f"{tag}: cosine, mean (worst)", *(_cosine_cell(one) for one in found.values())])
        made.append([f"{tag}: pair order", *(fine(one["ranks"]) if "ranks" in one else "-" for one in found.values())])
        made.append([f"{tag}: grades", *(fine(one.get("grades")) for one in found.values())])
        made.append([f"{tag}: neighbours", *(_neighbours(one) for one in found.values())])
    return made


def _cosine_cell(one: dict[str, Any]) -> str:
    return f"{fine(one['cosine']['mean'])} ({fine(one['cosine']['min'])})" if "cosine" in one else "-"


def _neighbours(one: dict[str, Any]) -> str:
    if "neighbours" not in one:
        return "-"
    near = one["neighbours"]
    tail = ", within noise" if one.get("neighbours_within_noise") else ""
    return f"{near['right']} of {near['asked']} ({share(near['low'])} to {share(near['high'])}){tail}"


def memory_rows(verdict: dict[str, Any], held: dict[str, dict[str, Any]]) -> Rows:
    """Weights held and the peak, with ratios."""
    named = _columns(verdict)
    lanes = verdict["lanes"]
    weights, peaks = ["weights held"], ["peak"]
    for name, _ in named:
        ours, peak = lanes[name].get("memory", {}).get("ratio"), lanes[name].get("peak_ratio")
        kept = size(held.get(name, {}).get("weights_bytes"))
        weights.append(kept if ours is None else f"{kept}, {ratio(ours)}")
        top = size(lanes[name].get("peak_bytes"))
        peaks.append(top if peak is None else f"{top}, {ratio(peak)}")
    return [["figure", *(title for _, title in named)], weights, peaks]


def summary(verdict: dict[str, Any]) -> str:
    """What was measured, in one line."""
    seen = verdict["measurement"]
    if not seen["rounds"]:
        return "Speed was not measured."
    took = f" in {seconds(seen['seconds'])}" if seen.get("seconds") else ""
    of = f"{seen['sentences']} sentences of {three(seen['tokens_per_sentence'])} tokens"
    return f"{seen['rounds']} rounds{took}, each with the same {of} in every size. {HOW}"


def _sizes(verdict: dict[str, Any]) -> list[str]:
    return list(verdict["lanes"].get("base", {}).get("sizes", {}))


def _columns(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    """(lane, title) of every lane, the baseline first."""
    tag = {True: " (simulated)", False: ""}
    return [(name, look(name).title + tag[bool(lane.get("simulated"))]) for name, lane in verdict["lanes"].items()]
