"""Sentences about a race: a lane's verdict (see backend/verdict.py) as a person reads it. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backend.alarm import STEADY
from backend.speculation import shares_by_place
from backend.ui.figures import interval, money, ratio, share, three
from backend.ui.why import why

Lane = dict[str, Any]
TOO_WIDE = 1.5  # an interval whose ends lie further apart than this says nothing of what is equal


def sentences(name: str, lane: Lane, base: Lane) -> list[str]:
    """Everything to say about one variant, the headline first."""
    if lane.get("failed"):
        return [f"{name} failed, so there is no verdict on it."]
    effects = lane.get("effects", ())
    made = [headline(name, lane), *losses(lane), text_line(lane), *quality_lines(lane), speculation_line(lane)]
    made += [took_effect(effects), skipped(effects), *why(lane, base)]
    return [sentence for sentence in made if sentence]


def headline(name: str, lane: Lane) -> str:
    """How much faster, how much smaller, and how it answers: 'A is 1.72x faster (1.69 to 1.75), 2.9x smaller ...'."""
    parts = [part for part in (_speed(lane.get("speed")), _size(lane.get("memory")), _answers(lane)) if part]
    if not parts:
        return f"{name}: nothing was measured to the end, so there is no verdict."
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
    return f"{name} {text}{' (speed and memory simulated)' if lane.get('simulated') else ''}."


def undecided(found: dict[str, Any], why: str) -> str:
    """What a ratio within noise says: nothing where its interval is wide, for which there is a reason."""
    if not found.get("within_noise"):
        return ""
    wide = found.get("low") and found["high"] > TOO_WIDE * found["low"]
    return f", {why} to tell" if wide else ", within noise"


def no_difference(verb: str, speed: dict[str, Any], span: str) -> str:
    """A ratio within noise; where its interval is too wide, even 'as fast as' would claim too much."""
    if speed.get("low") and speed["high"] > TOO_WIDE * speed["low"]:
        return f"cannot be told from the baseline in speed, so noisy was it: {ratio(speed['ratio'])} {span}"
    return f"{verb} as fast as the baseline, {ratio(speed['ratio'])} {span[:-1]}, within noise)"


def _speed(speed: dict[str, Any] | None) -> str:
    if not speed:
        return ""
    span = interval(speed.get("low"), speed.get("high"))
    if not speed.get("pairs", 1):
        span = "(in the race alone, no interval)"
    if speed.get("within_noise"):
        return no_difference("is", speed, span)
    if speed["ratio"] < 1:
        return f"is {ratio(speed['ratio'])}: slower {span}"
    return f"is {ratio(speed['ratio'])} faster {span}"


def _size(memory: dict[str, Any] | None) -> str:
    if not memory or not memory.get("ratio"):
        return ""
    value = memory["ratio"]
    if 0.98 <= value <= 1.02:
        return "is as large"
    return f"{ratio(value)} smaller" if value > 1 else f"{ratio(1 / value)} larger"


def _answers(lane: Lane) -> str:
    answers = lane.get("answers")
    if not answers or answers.get("baseline_share") is None:
        agreement = lane.get("top1")
        return "" if agreement is None else f"ranks the baseline's token first {share(agreement)} of the time"
    ours, theirs = answers["share"], answers["baseline_share"]
    span = f"{share(theirs)} to {share(ours)}"
    if answers.get("within_noise"):
        if abs(ours - theirs) > STEADY:
            return f"may answer {'better' if ours > theirs else 'worse'} ({span}, too few questions to tell)"
        return f"answers as well ({span}, within noise)"
    return f"answers {'better' if ours > theirs else 'worse'} ({span})"


def losses(lane: Lane) -> list[str]:
    """Why a lane lost, where that was measured."""
    speed, draft = lane.get("speed") or {}, lane.get("speculation") or {}
    if not speed or speed["ratio"] >= 1 or speed.get("within_noise") or draft.get("pays", True):
        return []
    figures = f"accepted {share(draft['alpha'])} of the guesses it tried, break-even {share(draft['break_even'])}"
    return [f"The draft cost more than it saved ({figures})."]


def text_line(lane: Lane) -> str:
    """Where the text leaves the baseline's."""
    at, same = lane.get("first_divergence"), lane.get("identical_tokens")
    rouge = lane.get("rouge_l")
    tail = "" if rouge is None or (at is None and same) else f"; ROUGE-L {three(rouge)}"
    if at is not None:
        return f"Text differs from token {at + 1} on{tail}."
    return f"Text is identical for {same} tokens." if same else ""


def quality_lines(lane: Lane) -> list[str]:
    """KLD in the call shapes in which it ran, top-1 agreement, perplexity and last words."""
    made = []
    for shape, key, top1 in (("decode", "kld", "top1"), ("prefill", "kld_prefill", "top1_prefill")):
        if found := lane.get(key):
            agree = f", top-1 agreement {share(lane[top1])}" if lane.get(top1) is not None else ""
            figures = f"KLD {three(found['mean'])} mean, {three(found['p99'])} p99"
            made.append(f"{figures} over {found['tokens']} tokens in {shape}{agree}.")
    perplexity = lane.get("perplexity")
    if perplexity and perplexity.get("baseline") is not None:
        span = ratio(perplexity["ratio"])
        if perplexity.get("low") is not None:
            span += f" {interval(perplexity['low'], perplexity['high'])}"
        span += undecided(perplexity, "too few windows")
        read = f"; {protocol(perplexity['protocol'])}" if perplexity.get("protocol") else ""
        made.append(f"Perplexity {three(perplexity['baseline'])} to {three(perplexity['value'])}, {span}{read}.")
    if cloze := lane.get("cloze"):
        span = f"{share(cloze['baseline_share'])} to {share(cloze['share'])} of {cloze['asked']}"
        made.append(f"Last words found: {span}{', within noise' if cloze['within_noise'] else ''}.")
    return made


def protocol(facts: dict[str, Any]) -> str:
    """How a perplexity was read: without this it is no number."""
    return f"{facts['tokens']} tokens of {facts['source']}, context {facts['context']}, stride {facts['stride']}"


def speculation_line(lane: Lane) -> str:
    """What the draft did."""
    draft = lane.get("speculation")
    if not draft or draft.get("acceptance_rate") is None:
        return ""
    parts = [f"accepted {share(draft['acceptance_rate'])} of its guesses"]
    if draft.get("break_even") is not None:
        parts[0] += f" ({share(draft['alpha'])} of those it came to, break-even {share(draft['break_even'])})"
    if draft.get("mean_acceptance_length") is not None:
        parts.append(f"{three(draft['mean_acceptance_length'])} tokens a round")
    if draft.get("draft_cost_share") is not None:
        parts.append(f"guessing cost {share(draft['draft_cost_share'])} of the time")
    if draft.get("speedup_predicted") is not None:
        expected, seen = ratio(draft["speedup_predicted"]), ratio(draft["speedup_measured"])
        parts.append(f"theory predicts {expected} of its plain steps from this, and the race gave {seen}")
    return f"Draft: {', '.join(parts)}."


def drafting_line(draft: dict[str, Any]) -> str:
    """What the guesses of a race come to so far, short enough for a line of its pane."""
    if not draft.get("drafted"):
        return "no guesses so far" if draft else ""
    places = " ".join(f"{100 * kept:.0f}" for kept in shares_by_place(draft))
    cost, length = share(draft["draft_cost_share"]), three(draft["mean_acceptance_length"])
    return f"kept by place {places}% · {length} tokens a round · guessing {cost} of the time"


def took_effect(effects: Iterable[dict[str, Any]]) -> str:
    """What the receipt found true of the live model; what it did not find is an alarm (see no_effect.py)."""
    found = [_tagged(effect) for effect in effects if effect.get("took_effect")]
    return f"Took effect: {'; '.join(found)}." if found else ""


def _tagged(effect: dict[str, Any]) -> str:
    return f"{effect['summary']} (simulated)" if effect.get("simulated") else str(effect["summary"])


def skipped(effects: Iterable[dict[str, Any]], most: int = 4) -> str:
    """What was left as it was, by reason."""
    by_reason: dict[str, list[str]] = {}
    for effect in effects:
        for one in effect.get("skipped", ()):
            by_reason.setdefault(one["reason"], []).append(one["layer"])
    if not by_reason:
        return ""
    parts = [f"{_some(layers)} ({reason})" for reason, layers in list(by_reason.items())[:most]]
    rest = len(by_reason) - most
    return f"Not: {'; '.join(parts)}{f'; and {rest} more reasons' if rest > 0 else ''}."


def _some(layers: list[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{layers[0]} and {len(layers) - 1} more"


def cost_line(lane: Lane, base: Lane, price_per_hour: float) -> str:
    """Cost per million tokens at the person's price per hour of this machine."""
    if not lane.get("tokens_per_s") or not base.get("tokens_per_s"):
        return ""
    ours, theirs = (price_per_hour / 3600 / one["tokens_per_s"] * 1e6 for one in (lane, base))
    tag = " (simulated)" if lane.get("simulated") else ""
    return f"At {money(price_per_hour)} an hour: {money(theirs)} to {money(ours)} per million tokens{tag}."


def left(eta_s: float | None) -> str:
    """Time left in words, nothing where it is not known."""
    if eta_s is None:
        return ""
    whole = max(1, round(eta_s))
    return f"{whole} s left" if whole < 100 else f"{round(whole / 60)} min left"


def turn(place: int) -> str:
    """Where a queued race stands."""
    if place == 0:
        return "Next in turn: it starts in a moment."
    return f"{place} race{'s' if place > 1 else ''} before yours."


NO_WORKER = "No worker is running, so races wait. Start one with: make run, or python -m backend worker."


def failure(data: dict[str, Any]) -> str:
    """What became of a lane that failed, where, and what to do."""
    where = f" while {data['phase']}" if data.get("phase") else ""
    detail = f": {data['detail']}" if data.get("detail") else ""
    return f"This lane failed{where} ({data.get('cause', 'unknown cause')}{detail}). {data.get('remedy', '')}".strip()


def phase_line(phase: dict[str, Any]) -> str:
    """A phase as one line: 'racing: 84 of 128 tokens, 3 s left'."""
    name, done, total = phase["name"], phase.get("done") or 0, phase.get("total") or 0
    unit = {"racing": " tokens", "measuring": " s", "loading": " lanes", "transforming": " lanes"}.get(name, "")
    told = [f"{value:,.0f}" if value == int(value) else three(value) for value in (done, total)]
    parts = [f"{told[0]} of {told[1]}{unit}"] if total else []
    parts += [text for text in (phase.get("text") or "", left(phase.get("eta_s"))) if text]
    return f"{name}: {', '.join(parts)}" if parts else str(name)
