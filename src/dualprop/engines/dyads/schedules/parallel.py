"""All layers at once, tick by tick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from dualprop.arguments import NotNegative, checked
from dualprop.engines.dyads.schedules.base import Damping, Settling, Update, Updates
from dualprop.nets.wiring import Wiring


@checked
@dataclass(frozen=True, repr=False)
class Parallel(Settling):
    """`ticks` times all layers at once; the loss nudges layer L from tick L on, when activity has reached it.

    Activity goes up one layer a tick, and so the nudge goes down: layer k learns if there are 2L - k ticks.

    A lazy rule's ticks are counted on from batch to batch: activity has reached the output when every state of the
    batch has seen L - 1 ticks since it was at zero. From then on every tick is nudged, a batch's first one too. So
    one tick a sample is enough. Where a batch has more slots than any before, the new ones are at zero, and the
    batch waits for them.

    Args:
        ticks: number of ticks, at least 1; 2L - 1 by default, what it takes to go up and down once.
        tolerance: as of `Sweep`, by the change in a tick.
        damping: as of `Sweep`.
    """

    ticks: Updates | None = None
    tolerance: NotNegative = 0.0
    damping: Damping = 0.0

    def updates(self, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """All layers at every tick."""
        return self.updates_after(0, depth, generator)

    def updates_after(self, done: int, depth: int, generator: torch.Generator) -> Iterator[Update]:
        """All layers at every tick; nudged from the L-th on that the states have seen."""
        for tick in range(done + 1, done + (self.ticks or 2 * depth - 1) + 1):
            yield Update(tuple(range(1, depth + 1)), nudged=tick >= depth)

    def rounds(self, wiring: Wiring, generator: torch.Generator) -> Iterator[list[Update]]:
        """A round is a tick."""
        for update in self.on(wiring, generator):
            yield [update]

    def at_depth(self, depth: int) -> Parallel:
        """With its number of ticks."""
        return replace(self, ticks=self.ticks or 2 * depth - 1)
