"""Why the gain is what it is, in at most three sentences, each with its evidence (see backend/explain.py)."""

from __future__ import annotations

from typing import Any

from backend.ui.figures import ratio, seconds, share, size, three

Lane = dict[str, Any]
OTHERS = {
    "bandwidth": "reading weights and cache",
    "compute": "arithmetic",
    "kernels": "kernels that fall short of this machine's bandwidth",
    "unchanged parts": "attention, norms, cache and sampling",
    "overhead": "calling operators",
    "unexplained": "unexplained",
}


def why(lane: Lane, base: Lane) -> list[str]:
    """The reason for the step's length, the promise beside the gain, and the prefill's reason where it differs."""
    explained = lane.get("explained", {})
    decode, prefill = explained.get("decode"), explained.get("prefill")
    made = [reason(decode, "step")] if decode else []
    made.append(promise(lane, base))
    if prefill and (decode is None or prefill["reason"] != decode["reason"]):
        made.append(reason(prefill, "prefill"))
    return [sentence for sentence in made if sentence]


def promise(lane: Lane, base: Lane) -> str:
    """What the bytes alone promised, and what came: 'Not 3.5x, as the bytes of its matrices promise: ...'."""
    ours, theirs = (one.get("explained", {}).get("decode") for one in (lane, base))
    gain = (lane.get("speed") or {}).get("ratio")
    if not ours or not theirs or not gain or lane.get("speculation"):
        return ""
    promised = theirs["evidence"]["weights_bytes"] / ours["evidence"]["weights_bytes"]
    if promised < 1.1 or gain >= 0.95 * promised:
        return ""
    could = (theirs["bars"]["weights"] + theirs["bars"]["kernels"]) / theirs["measured_s"]
    return (
        f"Not {ratio(promised)}, as the bytes of its matrices promise: only {share(could)} of the baseline's step "
        f"was in its matrices, and here {_rest(ours)}."
    )


def _rest(explained: dict[str, Any]) -> str:
    """What takes most of the step besides reading the weights."""
    bars, whole = explained["bars"], explained["measured_s"]
    rest = {name: value for name, value in bars.items() if name not in ("weights", "unexplained")}
    most = max(rest, key=rest.__getitem__)
    names = {"kv": "reading the cache", "arithmetic": "arithmetic", "unchanged": OTHERS["unchanged parts"]}
    return f"{share(rest[most] / whole)} of the step is {names.get(most) or OTHERS[most]}"


def reason(explained: dict[str, Any], what: str) -> str:
    """What keeps one step, or the prefill, from being faster."""
    bars, seen, whole = explained["bars"], explained["evidence"], explained["measured_s"]
    of = f"of a {what} of {seconds(whole)}" if what == "step" else f"of the prefill of {seconds(whole)}"
    found = explained["reason"]
    if found == "simulated":
        held = size(seen["weights_bytes"])
        return f"The matrices stay dense floats, which are read whole: {held} for each token (simulated)."
    if found == "slow layer":
        times, place = three(seen["times_median"]), int(seen["slowest_layer"])
        return (
            f"Layer {place} alone takes {times} times as long as the middle one, {share(seen['slowest_share'])} {of}."
        )
    if found == "bandwidth":
        reads = f"reading {size(seen['weights_bytes'])} at {size(seen['bandwidth_bytes_per_s'])}/s, measured here"
        return f"{share((bars['weights'] + bars['kv']) / whole)} {of} is {reads}: only fewer bytes shorten that."
    if found == "compute":
        reached = share(min(1.0, seen["flops_reached"]))
        return (
            f"{share(bars['arithmetic'] / whole)} {of} is arithmetic, at {reached} of the peak measured here: "
            "fewer bytes do not shorten that, fewer operations do."
        )
    if found == "kernels":
        missed, reached = share(bars["kernels"] / whole), share(seen["reached"])
        return f"{missed} {of} is lost in kernels, which read at {reached} of the bandwidth measured here."
    if found == "unchanged parts":
        missed = share(bars["unchanged"] / whole)
        return f"{missed} {of} is {OTHERS[found]}, which smaller matrices leave as they were."
    if found == "overhead":
        missed, calls = share(bars["overhead"] / whole), f"{seen['calls']:,.0f}"
        return f"{missed} {of} is calling {calls} operators from Python: smaller matrices cannot shorten that."
    return f"{share(abs(bars['unexplained']) / whole)} {of} is not explained by what was measured."
