"""The device: where a lane's weights lie and its operations run."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import torch

from backend.recipe.base import RecipeError
from backend.recipe.switches.runtime import Device
from backend.techniques.base import Effect, Subject
from backend.techniques.registry import technique


@technique(Device)
class DeviceChoice:
    """Moves the model before any other switch touches it."""

    def apply(self, subject: Subject, switch: Device) -> None:
        """Move the model and tell the subject.

        Raises:
            RecipeError: when torch finds no such device, or it has no memory for the model.
        """
        field = f"switches.{switch.kind}.name"
        if switch.name not in available():
            raise RecipeError(field, switch.name, ", ".join(available()), "Choose a device of this machine.")
        try:
            subject.model.to(torch.device(switch.name))  # type: ignore[arg-type]
        except torch.OutOfMemoryError:
            allowed = "a device with enough free memory"
            raise RecipeError(field, switch.name, allowed, "Choose a smaller model or the cpu.") from None
        subject.device = torch.device(switch.name)

    def read_back(self, subject: Subject, switch: Device) -> Effect:
        """Ask every tensor of the model where it lies."""
        model = subject.model
        places = Counter(tensor.device.type for tensor in chain(model.parameters(), model.buffers()))
        there = ", ".join(f"{count} tensors on {place}" for place, count in places.items())
        return Effect(
            kind=switch.kind,
            took_effect=set(places) == {switch.name} and subject.device.type == switch.name,
            summary=f"runs on {', '.join(places)}",
            facts={"device": str(subject.device), "tensors": there},
        )


def available() -> list[str]:
    """The device types that torch finds here, the cpu last."""
    found = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
    return [name for name, here in found if here]
