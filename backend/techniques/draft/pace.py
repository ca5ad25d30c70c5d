"""How many tokens to guess: as many as pay, by the costs measured so far and the acceptance seen lately.

Leviathan et al. 2023, section 3.3: with alpha the chance that a guess is kept, a round of g guesses gives
1 + alpha + ... + alpha^g tokens for g draft calls and one verifying call. Here all of it is measured while decoding.
"""

from __future__ import annotations

from collections import deque
from statistics import median

FIRST_STEPS = 3  # one-token steps before the first guess: without their cost nothing can be compared
REMEASURE = 48  # rounds of guesses, after which a one-token step is measured anew
LOSS = 0.02  # share of the time that tries may lose where guesses do not pay
KEEP = 9  # costs that a median is over
MEMORY = 0.9  # weight of what was seen, a judged guess later
PRIOR = (1.2, 2.0)  # accepted of judged, before anything was


class Costs:
    """Seconds of what was done lately; a hiccup of the machine does not move their median."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=KEEP)

    def note(self, seconds: float) -> None:
        """Hear of one more."""
        self._seen.append(seconds)

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def usual(self) -> float:
        """The median; 0 where nothing was seen."""
        return median(self._seen) if self._seen else 0.0


class Pace:
    """Guesses while it pays. Where it does not, it tries again now and then, for at most 2% of the time.

    What a try loses is owed, and is paid back by plain steps at 2% of their time; the next try waits until nothing is
    owed. So however bad the guesses, the loss stays near that share. It goes on learning from request to request.
    """

    def __init__(self) -> None:
        self.plain = Costs()
        self._guess = Costs()  # a guess
        self._verify: dict[int, Costs] = {}  # a verifying call, by its guesses in a row
        self._kept, self._judged = PRIOR
        self._owed_s = 0.0
        self._since_plain = 0

    @property
    def alpha(self) -> float:
        """The chance that a guess is kept once its place is reached, the latest counting most."""
        return self._kept / self._judged

    def choose(self, most: int) -> int:
        """How many tokens to guess in a row, 0 to `most`."""
        if len(self.plain) < FIRST_STEPS or self._since_plain >= REMEASURE:
            return 0
        best = max(range(1, most + 1), key=self.rate)
        return best if self.rate(best) * self.plain.usual > 1 or self._owed_s <= 0 else 0

    def note_plain(self, seconds: float, looking_s: float) -> None:
        """Hear of a one-token step, and of what it cost to find no guess for it."""
        self.plain.note(seconds)
        self._since_plain = 0
        self._owed_s = max(0.0, self._owed_s + looking_s - LOSS * seconds)

    def note_round(self, guess_s: float, verify_s: float, length: int, accepted: int, tried: int) -> None:
        """Hear of a round: guesses in a row, how many were kept, and how many places were judged."""
        self._guess.note(guess_s / length)
        self._verify.setdefault(length, Costs()).note(verify_s)
        faded = MEMORY**tried
        self._kept = faded * self._kept + accepted
        self._judged = faded * self._judged + tried
        self._owed_s = max(0.0, self._owed_s + guess_s + verify_s - (accepted + 1) * self.plain.usual)
        self._since_plain += 1

    def rate(self, length: int) -> float:
        """Tokens a second that rounds of so many guesses should give."""
        tokens = sum(self.alpha**place for place in range(length + 1))
        return tokens / max(length * self._guess.usual + self.verify_s(length), 1e-9)

    def verify_s(self, length: int) -> float:
        """What verifying so many guesses costs: as measured, or on a line through the lengths that were."""
        known = {0: self.plain.usual} | {k: costs.usual for k, costs in self._verify.items()}
        if length in known:
            return known[length]
        below = max(k for k in known if k < length)
        above = min((k for k in known if k > length), default=None)
        if above is None:
            slope = (known[below] - known[0]) / below if below else 0.0
            return known[below] + max(0.0, slope) * (length - below)
        share = (length - below) / (above - below)
        return known[below] * (1 - share) + known[above] * share
