"""Encoders: sentences instead of windows, filling that has no part, vectors that are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from backend.engine.training.sentences import BLANK, SentenceRows, sentences_of
from backend.engine.training.text import Documents, read_lesson
from backend.engine.training.trainer import Trainer
from backend.recipe.base import RecipeError
from backend.sentences import own_sentences
from backend.trained import TrainingView
from backend.trainlane import TrainLane

LOSSES = {"logits": 0.0, "embedding": 1.0}


def order(model: Path | str, **fields: Any) -> dict[str, Any]:
    pace = {"tokens": 40 * 8 * 32, "batch": 8, "length": 32, "rate": 0.001, "precision": "fp32"}
    student = {"switches": {"drop_layers": {"count": 1}}}
    return {"model": str(model), "name": "fewer", "student": student, "losses": LOSSES, "pace": pace} | fields


def lane_of(**asked: Any) -> TrainLane:
    lane = TrainLane("student", asked, lambda share, text: None)
    lane.load()
    return lane


def test_sentences_are_cut_out_of_prose() -> None:
    found = list(sentences_of(["Heading\n", "The first one is\nbroken. Is the second a question? Yes!"]))
    assert found == ["The first one is broken.", "Is the second a question?"]


def test_a_batch_is_as_long_as_its_longest_sentence() -> None:
    rows = SentenceRows([[1, 2, 3], [4], [5, 6]], 0)
    assert rows.batch(0, 2).tolist() == [[1, 2, 3], [4, BLANK, BLANK]]
    assert rows.batch(2, 1).tolist() == [[5, 6]]
    assert rows.total == 6


def test_own_sentences_are_never_learned_from(home: Path, tiny_encoder_folder: Path) -> None:
    lane = lane_of(**order(tiny_encoder_folder))
    own = own_sentences().texts
    documents = Documents(
        iter([own[0], *(f"A sentence that is learned from is number {n}." for n in range(40))]), [], "own"
    )
    lesson = read_lesson(lane._pair.student, documents, 10**6, 32, 1, lambda share, text: None)
    assert lesson.dropped == 1
    assert lesson.training.count == 40
    held = {tuple(row) for row in lane.lesson.held_out.rows}
    assert len(held) >= len(set(own)) - 2
    assert not held & {tuple(row) for row in lane.lesson.training.rows}


def test_vectors_come_nearer_to_the_teachers(home: Path, tiny_encoder_folder: Path) -> None:
    lane = lane_of(**order(tiny_encoder_folder))
    told = []
    while not (reply := lane.train(seconds=1.0))["ended"]:
        told += reply["told"]
    told += reply["told"]
    view = TrainingView().lane("student")
    view.teacher, *view.looks = (data for kind, data in told if kind == "looked")
    assert view.teacher["loss"] == 0.0
    first, last = view.looks[0], view.looks[-1]
    assert last["cosine"] > first["cosine"]
    assert last["loss"] == pytest.approx(1 - last["cosine"])
    assert -1 <= last["ranks"] <= 1
    assert view.recovered is not None
    lane.save()
    from transformers import AutoModel

    model = AutoModel.from_pretrained(home / "models" / "fewer")
    assert model.config.num_hidden_layers == len(model.encoder.layer) == 1


def test_filling_changes_no_loss(home: Path, tiny_encoder_folder: Path) -> None:
    """A short sentence beside a long one against the mean of both by themselves."""
    losses = {"logits": 0.0, "embedding": 1.0, "hidden": 0.5, "attention": 0.5}
    lane = lane_of(**order(tiny_encoder_folder, losses=losses))
    trainer: Trainer = lane.trainer
    trainer.model.eval()
    long, short = list(range(5, 25)), [7, 8, 9]
    trainer.model.requires_grad_(False)
    alone = [trainer._losses(torch.tensor([row])) for row in (long, short)]
    filled = torch.tensor([long, short + [BLANK] * 17])
    both = trainer._losses(filled)
    assert float(both["embedding"]) == pytest.approx(sum(float(one["embedding"]) for one in alone) / 2, abs=1e-6)
    maps = [float(one["attention"]) * len(row) for one, row in zip(alone, (long, short), strict=True)]
    assert float(both["attention"]) == pytest.approx(sum(maps) / 23, rel=1e-4)


@pytest.mark.parametrize(
    ("losses", "field"),
    [({"logits": 1.0}, "losses.logits"), ({"logits": 0.0, "labels": 1.0}, "losses.labels")],
)
def test_an_encoder_has_no_logits(losses: dict[str, float], field: str, home: Path, tiny_encoder_folder: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        lane_of(**order(tiny_encoder_folder, losses=losses))
    assert refused.value.field == field
    assert "embedding" in refused.value.remedy or losses["logits"] == 0.0


def test_a_decoder_has_no_sentence_vectors(home: Path, tiny_folder: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        lane_of(**order(tiny_folder))
    assert refused.value.field == "losses.embedding"


def test_a_student_of_another_width_has_other_vectors(
    home: Path, tiny_encoder_folder: Path, tmp_path: Path, storyteller_tokenizer: Any
) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(tiny_encoder_folder, hidden_size=32, num_hidden_layers=1)
    BertModel(config).save_pretrained(tmp_path / "narrow")
    storyteller_tokenizer.save_pretrained(tmp_path / "narrow")
    with pytest.raises(RecipeError) as refused:
        lane_of(**order(tiny_encoder_folder, smaller=str(tmp_path / "narrow"), student={}))
    assert refused.value.field == "losses.embedding"


def test_methods_of_decoders_are_refused(home: Path, tiny_encoder_folder: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        lane_of(**order(tiny_encoder_folder, methods={"on_policy": {}}))
    assert refused.value.field == "methods.on_policy"
