"""ROUGE-L between texts (Lin 2004), with the rouge-score package and no download."""

import datasets
import evaluate
from rouge_score import rouge_scorer

_DESCRIPTION = "F-measure of the longest common subsequence of words."


class RougeL(evaluate.Metric):
    """Mean ROUGE-L F-measure."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references are texts",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
        values = [
            scorer.score(reference, prediction)["rougeL"].fmeasure
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        return {"rouge_l": sum(values) / len(values)}
