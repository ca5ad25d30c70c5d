"""The pace on a simulated machine: it pays where guesses are good, and loses a few percent at most where they fail."""

from __future__ import annotations

from random import Random

import pytest

from backend.techniques.draft.pace import Costs, Pace


class Machine:
    """Steps of 1 second; a guess and a verifying call cost what the test says, and are kept with a fixed chance."""

    def __init__(self, alpha: float, guess: float, verify: float, seed: int = 1) -> None:
        self.alpha, self.guess, self.verify = alpha, guess, verify
        self.random = Random(seed)
        self.seconds = 0.0
        self.tokens = 0
        self.lengths: list[int] = []

    def run(self, pace: Pace, rounds: int, most: int = 4) -> float:
        """Tokens a second over plain steps' one."""
        for _ in range(rounds):
            length = pace.choose(most)
            self.lengths.append(length)
            if length == 0:
                pace.note_plain(1.0, 0.0)
                self.seconds += 1.0
                self.tokens += 1
                continue
            kept = 0
            while kept < length and self.random.random() < self.alpha:
                kept += 1
            guess_s, verify_s = length * self.guess, 1 + self.verify * length
            pace.note_round(guess_s, verify_s, length, kept, min(kept + 1, length))
            self.seconds += guess_s + verify_s
            self.tokens += kept + 1
        return self.tokens / self.seconds


def test_good_cheap_guesses_are_made_as_long_as_there_can_be() -> None:
    machine = Machine(alpha=0.9, guess=0.05, verify=0.02)
    assert machine.run(Pace(), 400) > 2.5
    assert machine.lengths[-20:].count(4) > 15


def test_poor_guesses_are_kept_short() -> None:
    machine = Machine(alpha=0.45, guess=0.15, verify=0.05)
    assert machine.run(Pace(), 600, most=8) > 1.0
    assert 1 <= sorted(machine.lengths[100:])[250] <= 2


@pytest.mark.parametrize("guess", [0.2, 0.8, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_where_guesses_fail_the_loss_is_small_and_it_tries_again(guess: float, seed: int) -> None:
    machine = Machine(alpha=0.02, guess=guess, verify=0.1, seed=seed)
    pace = Pace()
    machine.run(pace, 40)  # what the first tries cost
    machine.seconds = machine.tokens = 0
    assert machine.run(pace, 3000) > 0.95
    assert sum(length > 0 for length in machine.lengths[-1500:]) > 2


def test_it_comes_back_when_guesses_become_good() -> None:
    machine = Machine(alpha=0.0, guess=0.05, verify=0.02)
    pace = Pace()
    machine.run(pace, 300)
    assert machine.lengths[-100:].count(0) >= 75
    machine.alpha = 0.95
    machine.run(pace, 300)
    assert machine.lengths[-50:].count(0) < 10


def test_nothing_is_guessed_before_plain_steps_are_known() -> None:
    pace = Pace()
    assert pace.choose(4) == 0
    for _ in range(3):
        pace.note_plain(1.0, 0.0)
    assert pace.choose(4) > 0


def test_a_hiccup_does_not_move_the_usual_cost() -> None:
    costs = Costs()
    assert costs.usual == 0.0
    for seconds in (1.0, 1.1, 0.9, 60.0, 1.0):
        costs.note(seconds)
    assert costs.usual == 1.0


def test_unmeasured_lengths_lie_on_a_line_through_the_measured() -> None:
    pace = Pace()
    pace.note_plain(1.0, 0.0)
    assert pace.verify_s(3) == 1.0
    pace.note_round(0.1, 1.4, 4, 0, 1)
    assert pace.verify_s(2) == pytest.approx(1.2)
    assert pace.verify_s(4) == 1.4
    assert pace.verify_s(8) == pytest.approx(1.8)
