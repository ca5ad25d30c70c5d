"""Trainers of tiny students, for the tests of the methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from backend.engine.training.text import Windows
from backend.engine.training.trainer import Trainer
from backend.recipe.training import Training
from backend.techniques.base import Subject
from backend.techniques.coach import Pupil
from backend.techniques.registry import apply_switch


def training(methods: dict[str, Any], **fields: Any) -> Training:
    """A training of eight steps on labels alone, with these methods."""
    pace = {"tokens": 8 * 256, "batch": 8, "length": 32, "rate": 0.01, "precision": "fp32"} | fields.pop("pace", {})
    losses = {"logits": 0.0, "labels": 1.0}
    return Training.read({"name": "try", "methods": methods, "pace": pace, "losses": losses} | fields)


def trainer(subject: Subject, asked: Training) -> Trainer:
    """A trainer, its student changed as asked, on text that can be learned: each token follows from the one before."""
    for switch in asked.student.pipeline:
        apply_switch(subject, switch)
    tokens = (np.arange(4000, dtype=np.int32) * 7) % 61 + 1
    return Trainer(Pupil(subject, None, asked), Windows(tokens, asked.pace.length, 1), torch.float32)
