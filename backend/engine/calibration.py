"""The calibration text of a lane: what comes after the part that quality is scored on, or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backend.engine.text import encode
from backend.journal import state_folder
from backend.modelref import ModelRef
from backend.techniques.base import CalibrationText, Subject
from backend.texts import held_out_text

CHARACTERS = 8  # of a text that are encoded for every token asked for


def text_reader(subject: Subject, ref: ModelRef, scored_characters: int) -> Callable[[str, int], CalibrationText]:
    """A reader of text for this model.

    Args:
        scored_characters: how much of the model's own text is scored; calibration begins behind it.
    """

    def read(file: str, tokens: int) -> CalibrationText:
        found = held_out_text(ref, Path(file) if file else None)
        begin = 0 if file else scored_characters
        ids = encode(subject, found.text[begin : begin + CHARACTERS * tokens])
        return CalibrationText(ids[:tokens], found.source)

    return read


def give_text(subject: Subject, ref: ModelRef, scored_characters: int) -> Callable[[str, int], CalibrationText]:
    """Let switches calibrate on a subject: its reader of text, and the shelf on which what they compute is kept."""
    subject.shelf = state_folder() / "calibrated"
    subject.read_text = read = text_reader(subject, ref, scored_characters)
    return read
