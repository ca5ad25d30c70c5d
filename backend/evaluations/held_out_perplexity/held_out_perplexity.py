"""Perplexity from sums of negative log-likelihoods, a window a sample."""

import math

import datasets
import evaluate

_DESCRIPTION = "exp(sum of negative log-likelihoods / number of tokens)."


class HeldOutPerplexity(evaluate.Metric):
    """Perplexity over windows whose losses were summed by a lane."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions are sums of nats a window; references are numbers of tokens",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return {"perplexity": math.exp(sum(predictions) / sum(references))}
