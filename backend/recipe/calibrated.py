"""What every switch that looks at text before it quantizes asks for."""

from __future__ import annotations

from pydantic import Field

from backend.recipe.switch import Switch


class Calibrated(Switch):
    """A switch whose technique runs text through the model first."""

    tokens: int = Field(2048, ge=256, le=65536, description="tokens of calibration text: more is slower and steadier")
    text: str = Field("", max_length=1000, description="a text file to calibrate on; empty: text of the model's kind")
