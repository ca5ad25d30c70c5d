"""What the training benchmark shares: a training by the command that a person gives, and what it found."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# At the beginning and at the end only, and beside the teacher whatever is learned from.
LOOKS = {"windows": 32, "questions": 400, "every": 1_000_000, "beside": True}


@dataclass(frozen=True)
class Taught:
    """One training that has ended."""

    name: str
    asked: dict[str, Any]
    found: dict[str, Any]

    @property
    def first(self) -> dict[str, Any]:
        """The look before the first step."""
        return dict(self.found["looks"][0])

    @property
    def last(self) -> dict[str, Any]:
        """The look after the last one."""
        return dict(self.found["looks"][-1])

    @property
    def teacher(self) -> dict[str, Any]:
        """The look at the teacher."""
        return dict(self.found["teacher"])

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return len(self.found["steps"]) * int(self.found["begun"]["step_tokens"])

    @property
    def minutes(self) -> float:
        """Spent on steps."""
        return float(sum(step["seconds"] for step in self.found["steps"]) / 60)

    @property
    def held_bytes(self) -> int:
        """Most that optimizer and gradients held together."""
        return max(step["memory"]["optimizer_bytes"] + step["memory"]["gradient_bytes"] for step in self.found["steps"])

    def closed(self, figure: str) -> float:
        """Share of what the change lost that came back: of KLD all of it, of others the gap to the teacher."""
        first, last, goal = (_figure(look, figure) for look in (self.first, self.last, self.teacher))
        return (first - last) / (first - goal)


def _figure(look: dict[str, Any], figure: str) -> float:
    """One figure of a look; a teacher has no KLD from itself."""
    if figure == "perplexity":
        return math.exp(look["loss"])
    return float(look.get(figure, 0.0))


class School:
    """A state folder in which trainings are made, with the fetched models of the person's own."""

    def __init__(self, home: Path, questions: int) -> None:
        self.home, self._questions = home, questions
        own = Path(os.environ.get("HEADWAY_HOME", Path.home() / ".cache" / "headway")) / "models"
        (home / "models").mkdir(parents=True, exist_ok=True)
        for model in own.glob("*"):
            place = home / "models" / model.name
            if not place.exists():
                place.symlink_to(model)

    def teach(self, name: str, seed: int = 1, **fields: Any) -> Taught:
        """Train under that name.

        Raises:
            RuntimeError: with the last words of a training that did not end well.
        """
        pace = {"tokens": 200_000, "rate": 1e-3} | fields.pop("pace", {}) | {"seed": seed}
        looks = LOOKS | {"questions": self._questions} | fields.pop("looks", {})
        asked = {"name": f"{name}-{seed}", "pace": pace, "looks": looks} | fields
        done = self.run("train", json.dumps(asked), "--json")
        return Taught(name, asked, done)

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes that work in it."""
        return os.environ | {"HEADWAY_HOME": str(self.home)}

    def run(self, *arguments: str) -> dict[str, Any]:
        """One command of Headway that prints JSON."""
        command = [sys.executable, "-m", "backend", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {done.stderr.splitlines()[-1][:500]}")
        return dict(json.loads(done.stdout))


def mean(taught: list[Taught], figure: str) -> tuple[float, float, float]:
    """Mean, lowest and highest share of a figure that came back, over seeds."""
    shares = [one.closed(figure) for one in taught]
    return sum(shares) / len(shares), min(shares), max(shares)
