"""Sentences about the quality alarm and the quality budget (backend/alarm.py, backend/budget.py). Pure functions."""

from __future__ import annotations

from typing import Any

from backend.ui.figures import ratio, share, three

Data = dict[str, Any]
NAMES = {
    "kld": "KLD",
    "kld_prefill": "prefill KLD",
    "kld_p99": "KLD p99",
    "top1": "top-1 agreement",
    "top5": "top-5 agreement",
    "perplexity": "perplexity",
    "answers": "exact match",
    "cloze": "last-word cloze",
    "repetition": "repetition",
}
BUDGET_NAMES = {"perplexity_ratio": "perplexity", "accuracy_points": "accuracy", "kld": "KLD", "top1": "top-1"}
RISES = ("kld", "kld_p99", "perplexity", "repetition")  # metrics of which less is better
TASKS = ("answers", "cloze")


def quality_lines(lane: Data) -> list[str]:
    """The budget's verdict first, then the alarm and what contradicts it: lines for a command line."""
    return [line for line in (budget_line(lane), alarm_line(lane), *contradictions(lane)) if line]


def alarm_line(lane: Data) -> str:
    """'Quality alarm: decode KLD 0.27 (over 0.1), top-1 agreement 71%, perplexity 1.9x.'; empty without an alarm."""
    alarm = lane.get("alarm")
    if not alarm or not alarm["raised"]:
        return ""
    return f"Quality alarm: {', '.join(_fall(fall) for fall in alarm['fell'])}."


def _fall(fall: Data) -> str:
    metric, value, limit = fall["metric"], fall["value"], fall["limit"]
    name = _named(metric, fall["shape"])
    if metric in ("kld", "kld_p99"):
        return f"{name} {three(value)} (over {three(limit)})"
    if metric in ("top1", "top5"):
        return f"{name} {share(value)} (under {share(limit)})"
    if metric == "perplexity":
        return f"{name} {ratio(value)} the baseline's (over {ratio(limit)})"
    return f"{name} {share(fall['baseline'])} to {share(value)}"


def _named(metric: str, shape: str | None) -> str:
    return f"{shape} {NAMES[metric]}" if shape else NAMES[metric]


def contradictions(lane: Data) -> list[str]:
    """Where one metric says that nothing happened: 'Exact match is unchanged, yet decode KLD is high: ...'."""
    made = []
    for pair in (lane.get("alarm") or {}).get("disagree", ()):
        fell = f"{_named(pair['fell'], pair['shape'])} {'is high' if pair['fell'] in RISES else 'fell'}"
        if pair["steady"] in ("kld", "kld_prefill"):
            other = "prefill" if pair["steady"] == "kld_prefill" else "decode"
            made.append(f"KLD is within its limit in {other}, yet {fell}: the call's shape decides.")
        else:
            steady = NAMES[pair["steady"]]
            made.append(f"{steady[:1].upper()}{steady[1:]} is unchanged, yet {fell}: one metric can lie.")
    return made


def budget_line(lane: Data) -> str:
    """'pass: ...', 'fail: KLD 0.27 is over the budget of 0.01.' or 'not judged: ...'; empty without a budget."""
    budget = lane.get("budget")
    if not budget:
        return ""
    checks = budget["checks"]
    broken = [_broken(check) for check in checks if not check["passes"]]
    missing = f"{' and '.join(BUDGET_NAMES[name] for name in budget['missing'])} was not measured"
    if broken:
        return f"fail: {'; '.join(broken)}."
    if budget["missing"]:
        return f"not judged: {missing}."
    unsure = [f"{_broken(check)}, but within noise" for check in checks if check["over"]]
    kept = unsure or [f"{_figure(check)}, {_limit(check)} {_allowed(check)}" for check in checks]
    return f"pass: {'; '.join(kept)}."


def _allowed(check: Data) -> str:
    return "asked for" if check["metric"] == "top1" else "allowed"


def _broken(check: Data) -> str:
    word = "under" if check["metric"] == "top1" else "over"
    verb = "," if check["metric"] in TASKS else " is"
    return f"{_figure(check)}{verb} {word} the budget of {_limit(check)}"


def _figure(check: Data) -> str:
    name, value = _named(check["metric"], check["shape"]), check["value"]
    if check["metric"] == "kld":
        return f"{name} {three(value)}"
    if check["metric"] == "top1":
        return f"{name} {_percent(value)}"
    if check["metric"] == "perplexity":
        return f"{name} {ratio(value)}"
    lost = 100 * (check["baseline"] - value)
    return f"{name} lost {three(max(0.0, lost))} points ({share(check['baseline'])} to {share(value)})"


def _limit(check: Data) -> str:
    if check["metric"] == "top1":
        return _percent(check["limit"])
    if check["metric"] == "perplexity":
        return ratio(check["limit"])
    return three(check["limit"])


def _percent(value: float) -> str:
    """Three digits: a whole percent would show 89.6% as the limit of 90% that it misses."""
    return f"{three(100 * value)}%"
