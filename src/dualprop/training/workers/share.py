"""How much of every batch a worker takes on, so that one that is slow holds up nobody but itself."""

from __future__ import annotations

from dualprop.training.workers.message import Kind

SLOW = 4.0
"""Times that a batch may take as long as with others, by the work that each has."""
MEMORY = 32
"""Batches over which times are averaged, and before which nothing is concluded from them."""
LONGEST = 2**32 - 1
"""Microseconds, as messages have room for them."""


class Share:
    """The part of a batch that a worker takes on: its first samples, which are drawn at random as the others are.

    Every message says how long a batch takes the slowest worker on the side that it comes from. A worker that
    takes more than `SLOW` times as long as the slowest of all others, once the work that each has is reckoned
    with, takes on so few samples, and learns from so few batches, that it takes no longer. So what is slow is its
    own learning: its neighbours make as many updates as before, from fewer samples each.

    Args:
        lead: its work beside that of whoever has most of it among the others, at least 1.

    Attributes:
        part: of the samples and of the updates, in (0, 1].

    Example:
        >>> share = Share(1.0)
        >>> share.hear(Kind.MEAN, 2_000)
        >>> for _ in range(50):
        ...     taken = share.rows(100) / 100
        ...     share.begin(taken)
        ...     share.spend(0.02 * taken)
        >>> round(share.part, 3), share.rows(100)
        (0.1, 10)
    """

    def __init__(self, lead: float) -> None:
        self._lead, self.part = lead, 1.0
        self._heard = {Kind.MEAN: 0.0, Kind.FEEDBACK: 0.0}
        self._begun, self._usual, self._owed = 0, 0.0, 0.0
        self._spent, self._taken = 0.0, 1.0  # on the last batch, and how much of it

    def spend(self, seconds: float) -> None:
        """It has worked for so long."""
        self._spent += seconds

    def begin(self, taken: float) -> None:
        """It takes on so much of another batch; what it has spent since the last one was that one's."""
        if self._begun > 1:  # at the first one everything is made for the first time
            self._usual += (self._spent / self._taken - self._usual) / min(self._begun - 1, MEMORY)
        self._begun, self._spent, self._taken = self._begun + 1, 0.0, taken
        others = self._lead * max(self._heard.values())
        slow = 0 < SLOW * others < self._usual and self._begun > MEMORY
        self.part = others / self._usual if slow else 1.0

    def rows(self, size: int) -> int:
        """How many of a batch's samples it takes on."""
        return max(1, round(self.part * size))

    def learns(self) -> bool:
        """Whether it learns from the batch that has come back."""
        self._owed += self.part
        if self._owed < 1:
            return False
        self._owed -= 1
        return True

    def hear(self, kind: Kind, microseconds: int) -> None:
        """What a message says of those on the side that it comes from."""
        self._heard[kind] = microseconds / 1e6

    def say(self, kind: Kind) -> int:
        """What a message says of this worker, and of all beyond it, in microseconds."""
        return min(round(1e6 * max(self._usual, self._heard[kind])), LONGEST)
