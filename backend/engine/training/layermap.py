"""Which layer of a teacher a layer of the student is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.techniques.base import Subject

ORIGIN = "layers_of_original"  # a note on a subject: which layers of the original it still has


@dataclass(frozen=True)
class LayerMap:
    """By layer of the student: the teacher's layer whose output it is to give, and the one whose attention is its."""

    states: tuple[int, ...]
    maps: tuple[int, ...]


def layer_map(student: Subject, teacher: Subject, layers: int, of_teacher: int) -> LayerMap:
    """The map of a pair with so many layers each."""
    ours, theirs = student.notes.get(ORIGIN), teacher.notes.get(ORIGIN)
    if ours is not None and theirs is not None and set(ours) <= set(theirs) and len(ours) == layers:
        return cut_map([theirs.index(layer) for layer in ours], of_teacher)
    return even_map(layers, of_teacher)


def cut_map(kept: Sequence[int], of_teacher: int) -> LayerMap:
    """Of a student that kept these layers: each bridges what was dropped behind it, and attends as it did.

    What layer k gives is what the next kept layer was trained to read, so that layer's input is the aim; the last
    gives what the teacher's last gives.
    """
    return LayerMap(tuple(after - 1 for after in [*kept[1:], of_teacher]), tuple(kept))


def even_map(layers: int, of_teacher: int) -> LayerMap:
    """The last of equal shares of the teacher's layers: Jiao et al. 2020 (TinyBERT), section 4.1, uniform."""
    places = tuple(max(0, round((layer + 1) * of_teacher / layers) - 1) for layer in range(layers))
    return LayerMap(places, places)


def note_origin(subject: Subject, before: Sequence[int]) -> None:
    """After layers were dropped: write down which of the original's are left."""
    dropped = subject.notes.get("drop_layers", {}).get("dropped", [])
    subject.notes[ORIGIN] = [layer for place, layer in enumerate(before) if place not in dropped]
