"""The explained result, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.explain import REASONS, explain


def phase(**changes: Any) -> dict[str, Any]:
    """A decode step of 10 ms: 6 ms in matrices, 2 ms of them calls; 3 ms in other parts; 1 ms of Python."""
    parts = {"attention": 4e-3, "feed_forward": 4e-3, "norm": 0.5e-3, "sampling": 0.5e-3, "python": 1e-3}
    calls = {"attention": 60, "feed_forward": 40, "norm": 20, "sampling": 5, "python": 10}
    facts: dict[str, Any] = {
        "parts": parts,
        "linear": {"attention": 2e-3, "feed_forward": 4e-3},
        "calls": calls,
        "linear_calls": 20,
        "layers": [2e-3, 2e-3, 2e-3, 2e-3],
        "step_s": 10e-3,
        "hooked_step_s": 10e-3,
        "weights_bytes": 30_000_000,
        "head_bytes": 0,
        "kv_bytes": 1_000_000,
        "flops": 15_000_000,
    }
    return facts | changes


def facts(**changes: Any) -> dict[str, Any]:
    """The machine reads 10 GB/s, does 100 GFLOP/s, and takes 10 us for a call."""
    told = {"bandwidth_bytes_per_s": 10e9, "flops_per_s": 100e9, "call_s": 10e-6}
    return told | {"decode": phase(**changes), "prefill": phase(tokens=100, flops=300e6)}


def test_the_bars_by_hand() -> None:
    found = explain(facts(), "decode", 10e-3)
    assert found is not None
    assert found.bars["weights"] == pytest.approx(3e-3)  # 30 MB at 10 GB/s
    assert found.bars["kv"] == pytest.approx(0.1e-3)
    assert found.bars["arithmetic"] == 0
    assert found.bars["kernels"] == pytest.approx(6e-3 - 0.2e-3 - 3e-3)
    # 3 ms of other parts, less their 105 calls, less the cache's bytes
    assert found.bars["unchanged"] == pytest.approx(3e-3 - 1.05e-3 - 0.1e-3)
    assert found.bars["overhead"] == pytest.approx(1e-3 + 0.2e-3 + 1.05e-3)
    assert found.bars["unexplained"] == pytest.approx(0)
    assert found.reason == "bandwidth"


def test_what_was_measured_beyond_the_parts_is_called_unexplained() -> None:
    found = explain(facts(), "decode", 25e-3)
    assert found is not None
    assert found.bars["unexplained"] == pytest.approx(15e-3)
    assert found.reason == "unexplained"
    assert sum(found.bars.values()) == pytest.approx(25e-3)


def test_a_prefill_multiplies() -> None:
    found = explain(facts(), "prefill", None)
    assert found is not None
    assert found.bars["arithmetic"] == pytest.approx(0)  # 300 MFLOP take the 3 ms that reading takes anyway
    many = facts() | {"prefill": phase(tokens=100, flops=560e6)}
    found = explain(many, "prefill", None)
    assert found is not None
    assert found.bars["arithmetic"] == pytest.approx(2.6e-3)
    assert found.bars["kv"] == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"linear": {"attention": 0.2e-3}, "linear_calls": 10, "weights_bytes": 1e5}, "unchanged parts"),
        ({"weights_bytes": 1_000_000}, "kernels"),
        ({"layers": [1e-3, 1e-3, 5e-3, 1e-3]}, "slow layer"),
        ({"parts": {"attention": 4e-3, "python": 6e-3}, "linear": {"attention": 1e-3}}, "overhead"),
    ],
)
def test_the_reason_is_the_largest_cause(changes: dict[str, Any], reason: str) -> None:
    found = explain(facts(**changes), "decode", 10e-3)
    assert found is not None
    assert found.reason == reason


def test_a_slow_layer_is_named_with_its_number() -> None:
    found = explain(facts(layers=[1e-3, 1e-3, 5e-3, 1e-3]), "decode", 10e-3)
    assert found is not None
    assert found.evidence["slowest_layer"] == 2
    assert found.evidence["times_median"] == pytest.approx(5)
    assert found.evidence["slowest_share"] == pytest.approx(0.4)


def test_zeros_that_no_kernel_uses_are_the_reason_before_all_others() -> None:
    found = explain(facts(), "decode", 10e-3, simulated=True)
    assert found is not None
    assert found.reason == "simulated"


@pytest.mark.parametrize("told", [{}, {"plain_step_s": 0.1}, {"decode": phase(parts={})}])
def test_what_was_not_broken_down_is_not_explained(told: dict[str, Any]) -> None:
    assert explain(told, "decode", 10e-3) is None
    assert explain(told, "prefill", 10e-3) is None


def test_compiled_code_has_no_parts_to_tell_of() -> None:
    assert explain(facts(parts={"compiled": 9e-3, "sampling": 1e-3}), "decode", 10e-3) is None


seconds = st.floats(0, 1e-1)


@given(
    st.fixed_dictionaries({"attention": seconds, "feed_forward": seconds, "python": seconds}), st.floats(0, 1), seconds
)
def test_bars_always_add_up_and_only_the_rest_is_negative(parts: dict[str, float], share: float, whole: float) -> None:
    linear = {name: share * value for name, value in parts.items() if name != "python"}
    found = explain(facts(parts=parts, linear=linear), "decode", whole or 1e-3)
    assert found is not None
    assert sum(found.bars.values()) == pytest.approx(found.measured_s, abs=1e-12)
    assert all(value >= -1e-12 for name, value in found.bars.items() if name != "unexplained")
    assert found.reason in REASONS
