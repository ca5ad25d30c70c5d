"""What many clients leave behind: 1,000 requests, 50 at once, a third of them hung up on in the middle of a stream."""

from __future__ import annotations

from benchmarks._bench import STORY, Bench
from benchmarks._served import Served
from benchmarks._swarm import Swarm

REQUESTS, CLIENTS, TOKENS, LONG = 1_000, 50, 24, 400
WARM = REQUESTS // 5  # by then every slot and every client's connection has been used
NAMES = ("lantern", "key", "rope", "shell", "apple", "drum", "boat", "map")
PROMPTS = [f"{STORY[: 20 + 25 * place]} Once there was a {name}" for place, name in enumerate(NAMES)]
RESIDENT = ("headway_model_resident_bytes", "headway_server_resident_bytes")


def main() -> None:
    """Print what is left; exit 1 when a slot, a block or memory is, or an answer was wrong."""
    bench = Bench("endpoint")
    served = Served("storyteller")
    try:
        swarm, warm = Swarm(served, "storyteller", PROMPTS, TOKENS, LONG), dict[str, float]()
        before = served.settled()
        swarm.run(REQUESTS, CLIENTS, lambda done: warm.update(served.metrics()) if done == WARM else None)
        after = served.settled()
    finally:
        code = served.stop()
    tally = swarm.tally
    cancelled = 'headway_finished_total{reason="cancelled"}'
    ended = sum(value - before.get(name, 0) for name, value in after.items() if name.startswith("headway_finished"))
    bench.check("right answers", tally.right, at_least=REQUESTS - tally.hung_up)
    bench.check("hung up", tally.hung_up, at_least=REQUESTS // 3)
    bench.check("texts that have ended", ended, at_least=REQUESTS)
    bench.check("texts given up, of those hung up on", after[cancelled] / tally.hung_up, at_least=0.9)
    for name in ("open_requests", "running_requests", "waiting_requests", "kv_blocks_used"):
        bench.check(f"{name} at the end", after[f"headway_{name}"], at_most=0)
    for name in RESIDENT:
        bench.check(f"{name} at the end to that after {WARM}", after[name] / warm[name], at_most=1.05)
    lag = after['headway_event_loop_lag_seconds_bucket{le="0.1"}'] / after["headway_event_loop_lag_seconds_count"]
    bench.check("share of looks at the event loop at which it was at most .1 s late", lag, at_least=0.99)
    bench.check("exit code after SIGTERM", code, at_most=0)
    print(f"        slowest answer: {tally.slowest_s:.1f} s, of {CLIENTS} clients at {served.url}")
    bench.end()


if __name__ == "__main__":
    main()
