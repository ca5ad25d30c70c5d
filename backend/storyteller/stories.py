"""Stories with questions in them, and the true answers that the generator knows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from backend.storyteller.world import World

KINDS = ("person", "holder", "thing", "colour")
NEAR = 0.75  # share of questions about the last event: they are learned first, and the way to the others
FIRST_HELD_OUT = 1000  # seeds below it are for training
END = "<|story|>"  # stands between stories: it opens one and closes the one before


@dataclass(frozen=True)
class Question:
    """A question about the present state of a world: `text` ends where the answer begins."""

    kind: str
    text: str
    answer: str


def ask(world: World, rng: random.Random) -> Question:
    """Ask one question, its kind drawn evenly; most are about the last event, the others about anything before it.

    'Nobody' is the answer for a thing that lies somewhere.
    """
    kind = rng.choice(KINDS)
    near = rng.random() < NEAR
    if kind == "person":
        name = rng.choice(_choices(list(world.people), world.latest, near))
        return Question(kind, f"Where is {name}? {name} is in the", f" {world.people[name]}")
    thing = world.things[rng.choice(_choices(list(world.things), world.latest, near))]
    if kind == "holder":
        return Question(kind, f"Who has the {thing.name}?", f" {thing.holder or 'Nobody'}")
    if kind == "thing":
        return Question(kind, f"Where is the {thing.name}? The {thing.name} is in the", f" {thing.place}")
    return Question(kind, f"What colour is the {thing.name}? The {thing.name} is", f" {thing.colour}")


def _choices(names: list[str], latest: set[str], near: bool) -> list[str]:
    """The names that the last event was about, where such are wanted and there are any; otherwise all."""
    return [name for name in names if name in latest] or names if near else names


def tell(rng: random.Random, events: int, question_rate: float = 0.5) -> str:
    """One story of `events` events with questions and their answers strewn in."""
    world = World.create(rng)
    parts = world.introduce()
    for _ in range(events):
        parts.append(world.step())
        while rng.random() < question_rate:
            question = ask(world, rng)
            parts.append(f"{question.text}{question.answer}.")
    return " ".join(parts)


def stories(seed: int) -> Iterator[str]:
    """Stories without end, three to eighteen events long. Seeds below `FIRST_HELD_OUT` are for training only."""
    rng = random.Random(seed)
    while True:
        yield tell(rng, events=int(rng.triangular(3, 18, 5)))


def exam(seed: int, count: int) -> list[tuple[str, Question]]:
    """`count` (story, question) pairs never seen in training, of all kinds in turn.

    Args:
        seed: at least `FIRST_HELD_OUT`, so that no story was trained on.
        count: how many pairs.
    Raises:
        ValueError: for a seed of the training range.
    """
    if seed < FIRST_HELD_OUT:
        raise ValueError(f"seed {seed} is for training; held-out seeds start at {FIRST_HELD_OUT}")
    rng = random.Random(seed)
    pairs: list[tuple[str, Question]] = []
    while len(pairs) < count:
        world = World.create(rng)
        parts = world.introduce() + [world.step() for _ in range(rng.randint(4, 10))]
        question = ask(world, rng)
        if question.kind == KINDS[len(pairs) % len(KINDS)]:
            pairs.append((" ".join(parts), question))
    return pairs


def held_out_text(seed: int, count: int) -> str:
    """`count` held-out stories, joined as they were in training: for perplexity."""
    if seed < FIRST_HELD_OUT:
        raise ValueError(f"seed {seed} is for training; held-out seeds start at {FIRST_HELD_OUT}")
    source = stories(seed)
    return "".join(END + next(source) for _ in range(count))
