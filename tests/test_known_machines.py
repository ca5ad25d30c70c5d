"""Known machines: units that can be, in an order that everybody knows, and a source for each."""

from __future__ import annotations

import pytest

from backend.known_machines import KNOWN_MACHINES, KnownMachine

BY_NAME = {machine.name: machine for machine in KNOWN_MACHINES}


def test_there_are_some_of_each_sort_and_none_twice() -> None:
    assert len(BY_NAME) == len(KNOWN_MACHINES) >= 10
    assert {machine.sort for machine in KNOWN_MACHINES} == {"CPU", "GPU", "Apple chip"}


@pytest.mark.parametrize("machine", KNOWN_MACHINES, ids=lambda machine: machine.name)
def test_units_are_sane_and_the_source_is_named(machine: KnownMachine) -> None:
    assert 1e10 < machine.bandwidth_bytes_per_s < 2e13  # bytes a second, not GB
    assert machine.flops_per_s is None or 1e13 < machine.flops_per_s < 1e16
    assert machine.memory_bytes is None or 8e9 <= machine.memory_bytes < 1e12
    maker = machine.name.split()[0]
    assert maker in machine.source
    assert (machine.flops_per_s is None) == (machine.sort != "GPU")


def test_channels_times_width_times_rate_is_the_bandwidth_that_makers_state() -> None:
    assert BY_NAME["Intel Core i9-14900K"].bandwidth_bytes_per_s == pytest.approx(89.6e9)
    assert BY_NAME["AMD EPYC 9654"].bandwidth_bytes_per_s == pytest.approx(460.8e9)
    assert BY_NAME["Raspberry Pi 5"].bandwidth_bytes_per_s == pytest.approx(17.1e9, rel=0.01)


def test_the_order_is_the_one_that_everybody_knows() -> None:
    names = ("Raspberry Pi 5", "AMD Ryzen 9 7950X", "Apple M4", "NVIDIA L4", "Apple M4 Max, 40-core GPU")
    names += ("NVIDIA GeForce RTX 4090", "NVIDIA A100 80GB SXM", "NVIDIA H100 SXM", "AMD Instinct MI300X")
    speeds = [BY_NAME[name].bandwidth_bytes_per_s for name in names]
    assert speeds == sorted(speeds)
