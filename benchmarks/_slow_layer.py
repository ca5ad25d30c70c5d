"""A switch of the benchmarks' own that makes one decoder layer slow, so that finding it can be tested."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from pydantic import Field

from backend.recipe.switch import Group, Switch
from backend.techniques.base import Effect, Subject, decoder_layers
from backend.techniques.registry import technique


class SlowLayer(Switch):
    """One decoder layer takes several times its own time in every call."""

    kind: ClassVar[str] = "slow_layer"
    group: ClassVar[Group] = Group.RUNTIME
    order: ClassVar[int] = 691
    title: ClassVar[str] = "Slow layer"
    summary: ClassVar[str] = "Makes one decoder layer several times slower."
    layer: int = Field(1, ge=0, description="number of the decoder layer")
    times: float = Field(8.0, ge=1.0, le=100.0, description="its own time that the layer then takes")


@technique(SlowLayer)
class Slow:
    """Puts a wait behind one layer's forward."""

    def apply(self, subject: Subject, switch: SlowLayer) -> None:
        """Stand in for the layer's forward."""
        layer = decoder_layers(subject.model)[switch.layer]
        forward = layer.forward

        def slow(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            out = forward(*args, **kwargs)
            until = began + switch.times * (time.perf_counter() - began)
            while time.perf_counter() < until:
                pass
            return out

        layer.forward = slow  # type: ignore[method-assign]

    def read_back(self, subject: Subject, switch: SlowLayer) -> Effect:
        """The stand-in is there or is not."""
        forward = decoder_layers(subject.model)[switch.layer].forward
        there = getattr(forward, "__name__", "") == "slow"
        return Effect(switch.kind, there, f"layer {switch.layer} takes {switch.times:g} times its time")
