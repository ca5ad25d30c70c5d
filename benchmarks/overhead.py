"""What racing costs the lane clock: turns, scoring, journal, and a second lane that waits.

One pair of lanes on the storyteller, each repetition in turn: a whole request alone; a race of one lane; a race of
two with scoring and journal. Times are those of the baseline's lane a token, prefill left out.
"""

from __future__ import annotations

from backend.metrics import Request, paired_ratio
from backend.phases import get_ready, go
from backend.raceway import Raceway
from benchmarks._bench import STORY, Bench, make_race

TOKENS = 192
REPETITIONS = 24  # with twelve the interval was as wide as the bound


def alone(way: Raceway) -> float:
    """Seconds a token of one whole request."""
    reply = way.call("base", "request", tokens=TOKENS)
    return Request(tuple(reply["emitted_s"])).tpot_s


def raced(way: Raceway, others: bool) -> float:
    """Seconds a token on the baseline's clock in a race, with or without the other lane."""
    for _ in way.each("again"):
        pass
    lanes = dict(way.lanes)
    if not others:
        way.lanes = {"base": lanes["base"]}
    for lane in way.view.lanes.values():
        lane.ids, lane.clock = [], []
    go(way, scored=others)
    way.lanes = lanes
    clock = way.view.lanes["base"].clock
    return (clock[-1] - clock[0]) / (len(clock) - 1)


def main() -> None:
    """Print both ratios; exit 1 when either costs more than 2%."""
    bench = Bench("overhead")
    race = make_race("storyteller", STORY, {}, max_new_tokens=TOKENS)
    by_itself, single, double = [], [], []
    with bench.raceway(race) as way:
        get_ready(way)
        for turn in range(REPETITIONS + 1):
            steps = [(by_itself, alone, ()), (single, raced, (False,)), (double, raced, (True,))]
            for times, work, arguments in steps if turn % 2 else steps[::-1]:
                value = work(way, *arguments)
                if turn:  # the first round warms up
                    times.append(value)
    cost, waiting = paired_ratio(double, by_itself), paired_ratio(double, single)
    bench.show("a race of two, scored and journaled, against the loop alone", cost)
    bench.show("a race of two against a race of one", waiting)
    bench.check("turns, scoring and journal", cost.ratio, at_most=1.02)
    bench.check("a second lane that waits", waiting.ratio, at_most=1.02)
    bench.end()


if __name__ == "__main__":
    main()
