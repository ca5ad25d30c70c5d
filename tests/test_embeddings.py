"""What sentence vectors are worth: against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.embeddings import (
    cosines,
    found,
    nearest,
    own_worth,
    pair_cosines,
    rank_correlation,
    right_neighbours,
    worth_against,
)
from backend.packedvectors import packed, unpacked
from backend.sentences import Pair, Sentences, own_sentences

ASKED = Sentences(
    sentences=("a", "b", "c", "d"),
    topics=("x", "x", "y", "y"),
    pairs=(Pair(4, "e", "f"), Pair(2, "g", "h"), Pair(0, "i", "j")),
)
# Four sentences, then the pairs' first sides, then their second sides.
VECTORS = np.array(
    [[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [1, 0], [1, 0], [1, 0], [1, 0], [0.6, 0.8], [-1, 0]], float
)


def test_a_cosine_is_the_product_over_the_lengths() -> None:
    first, second = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [0.0, 5.0], [1.0, 1.0]])
    assert cosines(first, second).tolist() == [24 / 25, 0.0, 0.0]


@given(arrays(float, (4, 3), elements=st.floats(-100, 100)), arrays(float, (4, 3), elements=st.floats(-100, 100)))
def test_a_cosine_lies_between_minus_one_and_one_and_is_the_same_both_ways(a: np.ndarray, b: np.ndarray) -> None:
    assert np.all(np.abs(cosines(a, b)) <= 1 + 1e-9)
    assert np.allclose(cosines(a, b), cosines(b, a))


def test_ranks_are_spearmans() -> None:
    assert rank_correlation([1, 2, 3], [10, 200, 3000]) == 1.0
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1.0
    # d = (0, 1, -1): 1 - 6 * 2 / (3 * 8)
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_a_neighbour_is_right_where_the_nearest_other_has_the_topic() -> None:
    sentences = VECTORS[:4]
    # a-b .8, b-c .6, b-d 0, c-d .8, a-d -.6: a and b find each other, and so do c and d.
    assert nearest(sentences).tolist() == [1, 0, 3, 2]
    assert right_neighbours(sentences, ASKED.topics) == [1, 1, 1, 1]
    assert right_neighbours(sentences, ("x", "y", "y", "y")) == [0, 0, 1, 1]


def test_a_lanes_own_worth() -> None:
    assert pair_cosines(VECTORS, ASKED).tolist() == [1.0, 0.6, -1.0]
    worth = own_worth(VECTORS, ASKED)
    assert worth["grades"] == 1.0
    assert (worth["neighbours"]["right"], worth["neighbours"]["asked"]) == (4, 4)
    assert worth["neighbours"]["low"] < 1.0 == worth["neighbours"]["high"]


def test_worth_against_a_baseline() -> None:
    same = worth_against(VECTORS, VECTORS, ASKED)
    assert same["cosine"] == {"mean": 1.0, "p1": 1.0, "min": 1.0}
    assert same["ranks"] == 1.0
    assert same["neighbours_within_noise"]
    turned = VECTORS.copy()
    turned[1] = [-0.6, 0.8]  # b at a right angle to what it was, beside d
    changed = worth_against(turned, VECTORS, ASKED)
    assert changed["cosine"]["min"] == pytest.approx(0.0, abs=1e-12)
    assert changed["cosine"]["mean"] == pytest.approx(0.9)
    assert changed["worst"] == "b"


def test_length_changes_nothing() -> None:
    assert worth_against(VECTORS * 7, VECTORS, ASKED)["cosine"]["mean"] == pytest.approx(1.0)
    assert own_worth(VECTORS * 7, ASKED) == own_worth(VECTORS, ASKED)


def test_a_query_finds_the_nearest_first() -> None:
    hits = found(np.array([[0.0, 2.0]]), VECTORS, ASKED, most=2)
    assert [hit["sentence"] for hit in hits] == ["c", "d"]
    assert [hit["cosine"] for hit in hits] == pytest.approx([1.0, 0.8])


@given(arrays(np.float32, (3, 5), elements=st.floats(-1, 1, width=32)))
def test_vectors_come_back_as_they_were(vectors: np.ndarray) -> None:
    assert np.array_equal(unpacked(packed(vectors)), vectors.astype(float))


def test_the_sentences_are_enough_and_each_stands_once() -> None:
    asked = own_sentences()
    assert len(asked.sentences) == len(set(asked.sentences)) == 80
    assert {asked.topics.count(topic) for topic in asked.topics} == {8}
    assert len(set(asked.topics)) == 10
    assert sorted({pair.grade for pair in asked.pairs}) == [0, 1, 2, 3, 4]
    assert len({(pair.first, pair.second) for pair in asked.pairs}) == len(asked.pairs) == 40
    assert len(asked.texts) == 80 + 2 * 40
    assert all(math.isfinite(pair.grade) and pair.first != pair.second for pair in asked.pairs)
