"""Threads: how many of them compute one operation on the CPU."""

from __future__ import annotations

import os

import torch

from backend.recipe.switches.runtime import Threads
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique


@technique(Threads)
class ThreadCount:
    """Sets the threads of this process, which is the lane's own."""

    def apply(self, subject: Subject, switch: Threads) -> None:
        """Set the threads now, and in the plan for whoever starts a pool later."""
        torch.set_num_threads(switch.count)
        subject.plan.threads = switch.count

    def read_back(self, subject: Subject, switch: Threads) -> Effect:
        """Ask torch how many it may use, and the run how many computed."""
        live, busy = torch.get_num_threads(), subject.run.busy_threads if subject.run else None
        cores = os.cpu_count() or 1
        summary = f"{live} thread{'s' if live > 1 else ''}"
        summary += f", more than the {cores} cores" if live > cores else ""
        idle = busy == 1 and live > 1  # operations too small to share, or a device that computes by itself
        return Effect(
            kind=switch.kind,
            took_effect=live == switch.count and not idle,
            summary=f"{summary}, of which one alone computed" if idle else summary,
            facts={"threads": live, "cores": cores, "busy_threads": busy},
        )
