"""A look at an encoder under training: what its vectors of this project's own sentences are worth, piece by piece."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from backend.embeddings import own_worth, worth_against
from backend.engine.encode import embed_all, groups
from backend.sentences import own_sentences
from backend.techniques.base import Subject

AT_ONCE = 16


def look_encoder(student: Subject, teacher: Subject | None) -> Generator[None, None, dict[str, Any]]:
    """Encode sentences that it never learns from.

    Returns:
        right neighbours (share) and the rank correlation with grades; beside a teacher the mean cosine to its vectors,
        the rank correlation of pairs, and `loss`, which is 1 - cosine.
    """
    asked = own_sentences()
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    for group in groups(asked.texts, AT_ONCE):
        ours.append(embed_all(student, group, AT_ONCE))
        if teacher is not None:
            theirs.append(embed_all(teacher, group, AT_ONCE))
        yield
    vectors = np.concatenate(ours)
    own = own_worth(vectors, asked)
    found = {
        "loss": 0.0,
        "grades": own["grades"],
        "neighbours": own["neighbours"]["right"] / own["neighbours"]["asked"],
        "sentences": len(asked.texts),
    }
    if teacher is not None:
        kept = worth_against(vectors, np.concatenate(theirs), asked)
        found |= {"loss": 1 - kept["cosine"]["mean"], "cosine": kept["cosine"]["mean"], "ranks": kept["ranks"]}
    return found
