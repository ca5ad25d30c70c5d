"""What sentence vectors are worth: cosine, rank correlation, nearest neighbours. Pure arithmetic on (N, H) matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from backend.metrics import changed_answers_p, share_interval
from backend.sentences import Sentences

NOISE_P = 0.05  # a change of right neighbours that chance makes as often as this is called noise


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine of every row with the same row of the other matrix (N,); 0 where one has no length."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.einsum("nh,nh->n", first, second)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rho, ties at their mean rank; None where one side is all alike and has no ranks."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)


def nearest(vectors: np.ndarray) -> np.ndarray:
    """The index of every row's nearest other row by cosine (N,); of equally near ones the first."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T  # (N, N)
    np.fill_diagonal(alike, -np.inf)
    return np.argmax(alike, axis=1)


def right_neighbours(vectors: np.ndarray, topics: Sequence[str]) -> list[int]:
    """1 for every row whose nearest other row has its topic, else 0."""
    return [int(topics[near] == topic) for near, topic in zip(nearest(vectors), topics, strict=True)]


def pair_cosines(vectors: np.ndarray, asked: Sentences) -> np.ndarray:
    """Similarity of both sides of every pair (P,), from vectors in the order of `Sentences.texts`."""
    start, count = len(asked.sentences), len(asked.pairs)
    return cosines(vectors[start : start + count], vectors[start + count : start + 2 * count])


def own_worth(vectors: np.ndarray, asked: Sentences) -> dict[str, Any]:
    """What a lane's vectors are worth by themselves: the grades' rank correlation, and right neighbours."""
    right = right_neighbours(vectors[: len(asked.sentences)], asked.topics)
    low, high = share_interval(sum(right), len(right))
    grades = [float(pair.grade) for pair in asked.pairs]
    return {
        "grades": rank_correlation(pair_cosines(vectors, asked).tolist(), grades),
        "neighbours": {"right": sum(right), "asked": len(right), "low": low, "high": high},
    }


def worth_against(vectors: np.ndarray, base: np.ndarray, asked: Sentences) -> dict[str, Any]:
    """What a variant kept of the baseline's vectors: cosine of every text, order of the pairs, changed neighbours."""
    same = cosines(vectors, base)
    count = len(asked.sentences)
    theirs, ours = (right_neighbours(one[:count], asked.topics) for one in (base, vectors))
    chance = changed_answers_p(theirs, ours)
    ranks = rank_correlation(pair_cosines(vectors, asked).tolist(), pair_cosines(base, asked).tolist())
    return {
        "cosine": {"mean": float(same.mean()), "p1": float(np.percentile(same, 1)), "min": float(same.min())},
        "worst": asked.texts[int(np.argmin(same))],
        "ranks": ranks,
        "neighbours_p": chance,
        "neighbours_within_noise": chance >= NOISE_P,
    }


def found(query: np.ndarray, vectors: np.ndarray, asked: Sentences, most: int = 5) -> list[dict[str, Any]]:
    """The sentences nearest to a query (1, H), the nearest first."""
    alike = cosines(np.broadcast_to(query, (len(asked.sentences), query.shape[1])), vectors[: len(asked.sentences)])
    best = np.argsort(-alike, kind="stable")[:most]
    return [{"sentence": asked.sentences[at], "topic": asked.topics[at], "cosine": float(alike[at])} for at in best]
