"""Another number of experts a token."""

from __future__ import annotations

from backend.recipe.switches.experts import ExpertTopK
from backend.techniques.base import Effect, Subject
from backend.techniques.experts.routed import passed, routed_parts, set_top_k
from backend.techniques.registry import technique


@technique(ExpertTopK)
class RunTimeTopK:
    """Lets the routers choose another number; their weights are made to sum to 1 again where the model does so."""

    def apply(self, subject: Subject, switch: ExpertTopK) -> None:
        """Set it in every layer.

        Raises:
            RecipeError: for an unknown build.
        """
        parts = routed_parts(subject, switch.kind)
        subject.notes[switch.kind] = {"before": parts[0].gate.top_k}
        set_top_k(subject, parts, min(switch.count, len(parts[0].experts)))

    def read_back(self, subject: Subject, switch: ExpertTopK) -> Effect:
        """Send one token through and count the experts that it went to."""
        parts = routed_parts(subject, switch.kind)
        now = passed(subject, parts)
        before = subject.notes.get(switch.kind, {}).get("before", subject.facts.used_experts)
        return Effect(
            kind=switch.kind,
            took_effect=set(now) == {switch.count} and switch.count != before,
            summary=f"{max(now)} of {len(parts[0].experts)} experts a token, {before} before",
            facts={"top_k_before": before, "top_k_after": max(now), "experts": len(parts[0].experts)},
        )
