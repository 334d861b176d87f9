"""Which frame of a stream each state is of."""

from __future__ import annotations

from collections.abc import Sequence

from dualprop.engines.dyads.schedules import Update
from dualprop.nets.wiring import Wiring


def ages(updates: Sequence[Update], wiring: Wiring) -> list[dict[int, int]]:
    """After each update of a tick, how many ticks ago the frame came in that each state is of.

    A layer that reads several is as old as the oldest of them, the one that came the longest way. Edges that close
    a cycle do not count.

    Args:
        updates: those of every tick.
        wiring: the graph.

    Example:
        >>> ages([Update((1, 2, 3))], Wiring.chain(3))
        [{0: 0, 1: 0, 2: 1, 3: 2}]
        >>> ages([Update((1,)), Update((2,))], Wiring.chain(2))
        [{0: 0, 1: 0, 2: 1}, {0: 0, 1: 0, 2: 0}]
    """
    below = {
        k: [j for j, _ in map(wiring.edges.__getitem__, wiring.into[k]) if j < k]
        for k in range(1, wiring.depth + 1)
    }
    frame = dict.fromkeys(wiring.out_of, 0)
    found: list[dict[int, int]] = []
    for tick in range(wiring.depth + 1):  # after so many there is a frame everywhere
        frame[0], found = tick, []
        for update in updates:
            before = dict(frame)
            frame |= {k: min(before[j] for j in below[k]) for k in update.layers}
            found.append({k: tick - each for k, each in sorted(frame.items())})
    return found


def arrivals(updates: Sequence[Update], wiring: Wiring) -> dict[int, int]:
    """How many ticks ago the frame came in that is at the output, by the number of each update that nudges it.

    Example:
        >>> arrivals([Update((1, 2, 3))], Wiring.chain(3))
        {0: 2}
        >>> arrivals([Update((1,)), Update((2,)), Update((3,))], Wiring.chain(3))
        {2: 0}
    """
    (output,) = wiring.outputs
    found = enumerate(zip(updates, ages(updates, wiring), strict=True))
    return {number: age[output] for number, (update, age) in found if update.nudged and output in update.layers}
