"""What every way to guess does alike: checks, the pace, and what its receipt says."""

from __future__ import annotations

from typing import Any

from backend.recipe.switches.draft import Drafting
from backend.techniques.base import Subject
from backend.techniques.draft.pace import Pace
from backend.techniques.guess import Pacer
from backend.techniques.tree import check_tree


def drafting(subject: Subject, switch: Drafting) -> Pacer | None:
    """Check that a tree can be verified where one is asked for; returns the pace, None where the length is fixed.

    Raises:
        RecipeError: for a model, a cache or a kernel that cannot verify a tree.
    """
    if switch.branches > 1:
        check_tree(subject, f"switches.{switch.kind}.branches")
    return Pace() if switch.length == "adaptive" else None


def took(subject: Subject, switch: Drafting) -> bool:
    """Whether the proposer in the plan is as asked, and was asked in the run."""
    proposer, run = subject.plan.proposer, subject.run
    if proposer is None or (run is not None and run.rounds == 0):
        return False
    asked = (switch.tokens, switch.tokens * switch.branches, switch.length == "adaptive")
    # A pace measures plain steps first and may find that guessing does not pay: that it was asked is all it owes.
    guessed = run is None or run.drafted > 0 or proposer.pace is not None or proposer.source == "lookup"
    return guessed and (proposer.depth, proposer.width, proposer.pace is not None) == asked


def tail(subject: Subject, switch: Drafting) -> str:
    """'4 tokens at a time, as long as it pays', and what is wrong with the run if something is."""
    proposer, run = subject.plan.proposer, subject.run
    if proposer is None:
        return "nothing"
    wide = f" with {proposer.width // proposer.depth} candidates each" if proposer.width > proposer.depth else ""
    paced = ", as many as pay" if proposer.pace else ""
    made = f"{'up to ' if paced else ''}{proposer.depth} tokens at a time{wide}{paced}"
    if run is not None and run.rounds == 0:
        return f"{made}; the run never asked it"
    return made if took(subject, switch) or run is None or run.drafted else f"{made}; it guessed nothing in the run"


def seen_facts(subject: Subject) -> dict[str, Any]:
    """Of the proposer in the plan and of the run."""
    proposer, run = subject.plan.proposer, subject.run
    if proposer is None:
        return {}
    return {
        "proposer": proposer.name,
        "tokens": proposer.depth,
        "candidates": proposer.width // proposer.depth,
        "adaptive": proposer.pace is not None,
        "rounds": run.rounds if run else None,
        "drafted": run.drafted if run else None,
    }
