"""Static int8: activation ranges fixed on calibration text."""

from __future__ import annotations

from backend.recipe.switches.activations import Int8Static
from backend.techniques.base import Effect, Subject
from backend.techniques.calibrate import calibration_text, kept
from backend.techniques.quantize.activations import note_text, observed_ranges, pack, ready, w8a8_effect
from backend.techniques.registry import technique


@technique(Int8Static)
class StaticLayers:
    """Observers of torch.ao over the text, then int8 layers of fbgemm."""

    def apply(self, subject: Subject, switch: Int8Static) -> None:
        """Calibrate, or take a calibration from the shelf; then replace every linear layer, the head too."""
        ready(subject, switch.kind)
        text = calibration_text(subject, switch)
        ranges, found = kept(
            subject, switch, text, lambda: observed_ranges(subject, text, switch.observer, switch.outside)
        )
        pack(subject, switch.kind, ranges)
        note_text(subject, switch, text, found)

    def read_back(self, subject: Subject, switch: Int8Static) -> Effect:
        """Count the layers whose activation range is fixed."""
        return w8a8_effect(subject, switch.kind, static=True)
