"""Exact match on the storyteller's questions, overall and by kind."""

from typing import Any

import datasets
import evaluate

_DESCRIPTION = "Share of answers that equal the true answer, overall and by kind of question."


class StorytellerMatch(evaluate.Metric):
    """Exact match after stripping white space."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references are answers; kinds names each question's kind",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Value("string"),
                    "kinds": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[str], kinds: list[str]) -> dict[str, Any]:
        marks = [int(p.strip() == r.strip()) for p, r in zip(predictions, references, strict=True)]
        by_kind: dict[str, list[int]] = {}
        for kind, mark in zip(kinds, marks, strict=True):
            by_kind.setdefault(kind, []).append(mark)
        shares = {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())}
        return {"exact_match": sum(marks) / len(marks), "marks": marks, "by_kind": shares}
