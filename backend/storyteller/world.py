"""The storyteller's world: who is where, who holds what, and what may happen next.

Every event names the place it happens in and the colour of what it is done with, so the answer to each question
stands in the latest sentence that mentions who or what is asked for. A small model can learn that well in a few
million tokens, and a model that was damaged by a technique falls from a high place: that is what the world is for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Felix")
PLACES = ("harbor", "market", "garden", "mill", "tower", "forest")
THINGS = ("lantern", "key", "book", "map", "bell", "coin")
COLOURS = ("red", "blue", "green", "white", "black", "yellow")
WALKS = ("went to", "walked to", "ran to")
MOODS = (
    "The sun was warm.",
    "It was a quiet day.",
    "The wind was cold.",
    "It began to rain.",
    "The birds were singing.",
    "The moon was bright.",
)


@dataclass
class Thing:
    """A thing with a colour that never changes; it is held by a person or lies in a place."""

    name: str
    colour: str
    place: str
    holder: str | None = None

    def __str__(self) -> str:
        return f"{self.colour} {self.name}"


@dataclass
class World:
    """Two or three people, one or two things, and the places between which they move."""

    rng: random.Random
    people: dict[str, str] = field(default_factory=dict)  # name -> place
    things: dict[str, Thing] = field(default_factory=dict)
    latest: set[str] = field(default_factory=set)  # names of whom and what the last event was about

    @classmethod
    def create(cls, rng: random.Random) -> World:
        """Draw the cast of one story."""
        world = cls(rng)
        for name in rng.sample(PEOPLE, rng.choice((2, 2, 3))):
            world.people[name] = rng.choice(PLACES)
        colours = rng.sample(COLOURS, 2)
        for name, colour in zip(rng.sample(THINGS, rng.choice((1, 2, 2))), colours, strict=False):
            world.things[name] = Thing(name, colour, rng.choice(PLACES))
        return world

    def held_by(self, person: str) -> Thing | None:
        """The one thing a person can hold, or None."""
        return next((thing for thing in self.things.values() if thing.holder == person), None)

    def introduce(self) -> list[str]:
        """The opening sentences, which place everyone and everything."""
        lines = [
            f"Once there was a {t.name} in the {t.place}. The {t.name} is {t.colour}." for t in self.things.values()
        ]
        return lines + [f"{name} was in the {place}." for name, place in self.people.items()]

    def step(self) -> str:
        """Let one thing happen and say it in one sentence."""
        rng = self.rng
        if rng.random() < 0.05:
            return rng.choice(MOODS)
        name = rng.choice(list(self.people))
        place, held = self.people[name], self.held_by(name)
        here = [t for t in self.things.values() if t.holder is None and t.place == place]
        if held is None and here and rng.random() < 0.7:
            return self._take(name, rng.choice(here))
        others = [p for p, where in self.people.items() if p != name and where == place and not self.held_by(p)]
        if held and others and rng.random() < 0.6:
            return self._give(name, held, rng.choice(others))
        if held and rng.random() < 0.25:
            held.holder, self.latest = None, {name, held.name}
            return f"{name} put down the {held} in the {place}."
        return self._move(name, held)

    def _take(self, name: str, thing: Thing) -> str:
        thing.holder, self.latest = name, {name, thing.name}
        verb = self.rng.choice(("took", "picked up"))
        return f"{name} {verb} the {thing} in the {thing.place}."

    def _give(self, name: str, thing: Thing, other: str) -> str:
        thing.holder, self.latest = other, {name, other, thing.name}
        return f"{name} gave the {thing} to {other} in the {thing.place}."

    def _move(self, name: str, held: Thing | None) -> str:
        # People like to go where somebody or something is: otherwise little would ever be taken or given.
        lures = [t.place for t in self.things.values() if t.holder is None] if held is None else []
        lures += [where for p, where in self.people.items() if p != name]
        lures = [place for place in lures if place != self.people[name]]
        anywhere = [place for place in PLACES if place != self.people[name]]
        place = self.rng.choice(lures) if lures and self.rng.random() < 0.6 else self.rng.choice(anywhere)
        self.people[name] = place
        self.latest = {name} if held is None else {name, held.name}
        if held is None:
            return f"{name} {self.rng.choice(WALKS)} the {place}."
        held.place = place
        return f"{name} carried the {held} to the {place}."
