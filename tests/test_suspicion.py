"""Suspicion is voiced with its evidence, and only with evidence; the readings are those of a live machine."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.conditions import Conditions, own_pids
from backend.suspicion import suspicions, trend

QUIET = {
    "seconds": 12.0, "cores": 2, "others": [{"name": "sshd", "cores": 0.01}], "unseen_cores": 0.02, "steal_share": 0.0,
    "swapped_in_bytes": 0, "swapped_out_bytes": 0, "frequency_mhz": [3000.0] * 12, "throttle_events": 0,
}  # fmt: skip
STEADY = [0.3 + 0.001 * (-1) ** n for n in range(20)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"others": [{"name": "gzip", "cores": 0.43}]}, "Another process, gzip, used 43% of a core"),
        ({"others": [{"name": "make", "cores": 1.7}]}, "Another process, make, used 1.7 cores"),
        ({"unseen_cores": 0.5}, "cannot be seen from here used 50% of a core"),
        ({"steal_share": 0.08}, "gave 8.0% of the processor time to others"),
        ({"swapped_in_bytes": 3e6, "swapped_out_bytes": 12e6}, "12 MB were swapped out and 3 MB in"),
        ({"throttle_events": 4}, "4 thermal throttle events"),
        ({"frequency_mhz": [3400.0] * 6 + [2900.0] * 6}, "fell from 3.40 to 2.90 GHz"),
    ],
)
def test_each_reason_names_its_evidence(change: dict, words: str) -> None:
    [said] = suspicions(QUIET | change, {"A": STEADY}, STEADY)
    assert words in said
    assert said.endswith(".")


def test_a_quiet_machine_gives_no_reason() -> None:
    assert suspicions(QUIET, {"A": STEADY}, STEADY) == []
    assert suspicions({}, {}, []) == []
    many = {"cores": 64, "others": [{"name": "sshd", "cores": 0.5}], "throttle_events": None}
    assert suspicions(QUIET | many, {"A": STEADY}, STEADY) == []


def test_a_ratio_that_drifts_and_a_baseline_that_slows_are_said_apart() -> None:
    rising = [0.3 + 0.004 * n for n in range(20)]
    [said] = suspicions(QUIET, {"A": rising, "B": STEADY}, STEADY)
    assert said.startswith("A's ratio drifted by +7.9%")
    [said] = suspicions(QUIET, {"A": STEADY}, rising)
    assert "baseline itself became 7.9% slower" in said
    [said] = suspicions(QUIET, {"A": STEADY}, rising[::-1])
    assert "faster" in said


@given(st.integers(0, 1000), st.integers(8, 40))
def test_a_trend_turns_its_sign_with_the_row(seed: int, count: int) -> None:
    values = np.random.default_rng(seed).normal(0, 1, count).tolist()
    found, turned = trend(values), trend(values[::-1])
    assert (found is None) == (turned is None)
    if found and turned:
        assert found[0] == pytest.approx(-turned[0])


def test_noise_seldom_looks_like_a_trend() -> None:
    rng = np.random.default_rng(2)
    assert sum(trend(rng.normal(0, 1, 20)) is not None for _ in range(500)) < 15


@pytest.mark.alone
def test_what_another_process_uses_is_read_by_its_name_and_ours_is_not() -> None:
    burn = "import time\nend = time.time() + 1.5\nwhile time.time() < end: pass"
    conditions = Conditions()
    ours = subprocess.Popen([sys.executable, "-c", burn])
    assert {ours.pid} < own_pids()
    # setsid makes it nobody's child: another process, as one of another person would be.
    subprocess.run(["setsid", "-f", "timeout", "4", "yes"], stdout=subprocess.DEVNULL, check=True)
    time.sleep(1.1)
    conditions.look()
    ours.wait()
    facts = conditions.facts()
    assert facts["own_cores"] > 0.1
    assert any(other["name"] == "yes" and other["cores"] > 0.02 for other in facts["others"]), facts
    assert facts["seconds"] > 1
    assert facts["swapped_in_bytes"] >= 0
    assert set(facts) == set(QUIET) | {"own_cores"}
