"""Schedules: which layers are updated, in which order. They are data; the engine does the work.

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, algorithms 1 and 2 and the variants of section 4. Høier,
    Zach, *Two Tales of Single-Phase Contrastive Hebbian Learning*, ICML 2024 (forward, backward, even-odd and
    odd-even passes after a feed-forward one).
"""

from __future__ import annotations

from dualprop.engines.dyads.schedules.base import MOST, SCHEDULES, Schedule, Settling, Update, names
from dualprop.engines.dyads.schedules.drawn import Random
from dualprop.engines.dyads.schedules.parallel import Parallel
from dualprop.engines.dyads.schedules.passes import Backward, EvenOdd, Forward, OddEven, Order, Passes, Sweep
from dualprop.errors import DualpropError
from dualprop.files import parse_json

__all__ = [
    "MOST",
    "SCHEDULES",
    "Backward",
    "EvenOdd",
    "Forward",
    "OddEven",
    "Order",
    "Parallel",
    "Passes",
    "Random",
    "Schedule",
    "Settling",
    "Sweep",
    "Update",
    "parse",
]

SCHEDULES.update(
    {
        "sweep": Sweep,
        "forward": Forward,
        "backward": Backward,
        "even-odd": EvenOdd,
        "odd-even": OddEven,
        "order": Order,
        "parallel": Parallel,
        "random": Random,
    }
)


def parse(text: str) -> Schedule:
    """A schedule from a word: NAME, or NAME:N, for example "sweep:2", "forward:16" or "random:[2,1,3]".

    Further values follow further colons, as in "random:100:7" with its seed, or "sweep:50:1e-3:0.5" with tolerance
    and damping; each is JSON.

    Args:
        text: the word.

    Raises:
        DualpropError: for an unknown name or a value that the schedule does not take.

    Example:
        >>> parse("order:[2,[1,3]]:4")
        Order(order=(2, (1, 3)), n=4)
    """
    name, *words = text.split(":")
    kind = SCHEDULES[name]
    try:
        values = [parse_json(word) for word in words]
    except ValueError:
        raise DualpropError(
            f"schedule={names.repr(text)}: expected a word like sweep:2, forward:16, parallel:7, random:100 or "
            "random:[2,1,3]"
        ) from None
    return kind(*values)
