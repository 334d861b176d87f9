"""What an inference computes and learns, and when: worked out once, from schedule and graph alone.

A plan is data, to be printed and tested; `program.py` says what is freed in between. A drive or a feedback is
computed anew only where something that it comes from has changed; a block update is left out where nothing has; a
layer's edges learn as soon as the layer and all below those edges have made their last update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dualprop.engines.dyads.schedules import Update
from dualprop.nets.wiring import Wiring


class Block(NamedTuple):
    """The update of one layer.

    Attributes:
        layer: its number.
        nudged: whether a loss acts on it.
        seen: the edges into it and out of it that are linearised anew.
        drives: the edges into it that are driven anew.
        summed: whether the sum of the drives is made anew.
        fed: the edges out of it by which anything comes down.
        feedbacks: those whose feedback is computed anew.
        collected: whether the sum of the feedbacks is made anew.
    """

    layer: int
    nudged: bool
    seen: tuple[int, ...]
    drives: tuple[int, ...]
    summed: bool
    fed: tuple[int, ...]
    feedbacks: tuple[int, ...]
    collected: bool


class Learning(NamedTuple):
    """All edges into one layer learn.

    Attributes:
        layer: the layer.
        says: whether it is an output that has never been updated, and is asked for what it says first.
    """

    layer: int
    says: bool = False


class Step(NamedTuple):
    """Blocks that are updated at once, all from the values before, and what learns afterwards."""

    blocks: tuple[Block, ...]
    learnings: tuple[Learning, ...] = ()


class Plan(tuple[Step, ...]):
    """The steps of an inference, which print as lines: what is driven up, sent down and learnt in each.

    Example:
        >>> from dualprop.engines.dyads.schedules import Update
        >>> wiring = Wiring.chain(2)
        >>> Planner(wiring, [True] * 2).plan([Update((k,)) for k in (1, 2, 1)], learn=True)
        0  -
        1  layer1 (up x -> layer1)
        2  layer2 nudged (up layer1 -> layer2)
        3  layer1 (down layer1 -> layer2); learn layer2, layer1
    """

    wiring: Wiring

    @classmethod
    def of(cls, steps: Iterable[Step], wiring: Wiring) -> Plan:
        """These steps, whose layers and edges have their names there."""
        plan = cls(steps)
        plan.wiring = wiring
        return plan

    def __str__(self) -> str:
        width = len(str(len(self) - 1))
        return "\n".join(f"{n:>{width}}  {self._words(step)}" for n, step in enumerate(self))

    __repr__ = __str__

    def _words(self, step: Step) -> str:
        name, arrow = self.wiring.name, self.wiring.arrow
        parts = []
        for block in step.blocks:
            moves = [f"up {arrow(e)}" for e in block.drives] + [f"down {arrow(e)}" for e in block.feedbacks]
            nudged = " nudged" if block.nudged else ""
            parts.append(f"{name(block.layer)}{nudged} ({', '.join(moves) or 'drives as they were'})")
        words = ["; ".join(parts)] if parts else []
        if step.learnings:
            words.append(f"learn {', '.join(name(learning.layer) for learning in step.learnings)}")
        return "; ".join(words) or "-"


class Planner:
    """Follows what is fresh while it plans the updates of one inference.

    Args:
        wiring: the graph.
        linear: whether the synapse on each edge sends the same down at every state below.
        different: for each layer k = 0..L whether z^+ is not z^- at first; nowhere by default.
        damped: whether an update keeps a part of the old state, so that none may be left out.
    """

    def __init__(
        self,
        wiring: Wiring,
        linear: Sequence[bool],
        *,
        different: Sequence[bool] | None = None,
        damped: bool = False,
    ) -> None:
        self.wiring, self.linear, self.damped = wiring, linear, damped
        count, layers = len(wiring.edges), wiring.depth + 1
        self._driven = [False] * count  # the edge's drive is that of the state below
        self._sent = [False] * count  # its feedback is that of the difference above
        self._linearisation = [False] * count  # it is linearised at the state below
        self._summed, self._collected = [False] * layers, [False] * layers
        self._silent = set(wiring.outputs)  # those that have not been updated
        self._different = list(different or [False] * layers)  # z^+ is not z^-
        self._settled: list[bool | None] = [None] * layers  # was the last update nudged; None: it would be another

    def plan(self, updates: Sequence[Update], *, learn: bool = False) -> Plan:
        """The steps of these updates, from where the ones before have left off.

        Args:
            updates: which layers, in which order.
            learn: whether these are the last, and all edges learn.

        Returns:
            A step for each update; if edges learn one before them all, for layers that are not updated at all.
        """
        steps = [self._updated(update) for update in updates]
        if not learn:
            return Plan.of(steps, self.wiring)
        learnings = self._learnings(self._last(updates))
        learning = (
            step._replace(learnings=tuple(learnings.get(n, ()))) for n, step in enumerate([Step(()), *steps], -1)
        )
        return Plan.of(learning, self.wiring)

    def _last(self, updates: Sequence[Update]) -> list[int]:
        """The number of each layer's last update, -1 for none."""
        last = [-1] * (self.wiring.depth + 1)
        for number, update in enumerate(updates):
            for k in update.layers:
                last[k] = number
        return last

    def _updated(self, update: Update) -> Step:
        blocks = []
        for k in update.layers:
            nudged = update.nudged and k in self.wiring.outputs
            if self.damped or self._settled[k] is not nudged:
                blocks.append(self._block(k, nudged))
                self._settled[k] = nudged
        for block in blocks:
            self._commit(block)
        return Step(tuple(blocks))

    def _block(self, k: int, nudged: bool) -> Block:
        w = self.wiring
        self._silent.discard(k)
        drives = tuple(e for e in w.into[k] if not self._driven[e])
        summed = not self._summed[k]
        fed = tuple(e for e in w.out_of[k] if self._different[w.edges[e][1]])
        feedbacks = tuple(e for e in fed if not self._sent[e])
        seen = tuple(e for e in dict.fromkeys(drives + feedbacks) if not self._linearisation[e])
        collected = not self._collected[k]
        for flags, edges in ((self._driven, drives), (self._linearisation, seen), (self._sent, feedbacks)):
            for e in edges:
                flags[e] = True
        self._summed[k] = self._collected[k] = True
        return Block(k, nudged, seen, drives, summed, fed, feedbacks, collected)

    def _commit(self, block: Block) -> None:
        """Which neighbours' inputs have changed."""
        w, k = self.wiring, block.layer
        before, self._different[k] = self._different[k], block.nudged or bool(block.fed)
        if before or self._different[k]:  # zero as before is no news to the layers below
            for e in w.into[k]:
                self._stale_feedback(e)
        for e in w.out_of[k]:
            target = w.edges[e][1]
            self._driven[e] = self._linearisation[e] = self._summed[target] = False
            self._settled[target] = None
            if self._sent[e] and not self.linear[e]:
                self._stale_feedback(e)

    def _stale_feedback(self, e: int) -> None:
        source = self.wiring.edges[e][0]
        self._sent[e] = False
        if source > 0:
            self._collected[source], self._settled[source] = False, None

    def _learnings(self, last: Sequence[int]) -> dict[int, list[Learning]]:
        """What learns after each update (-1: before them all), from the top down."""
        w = self.wiring
        due = {
            k: max(last[k], *(last[w.edges[e][0]] for e in w.into[k] if w.edges[e][0] > 0), -1)
            for k in range(1, w.depth + 1)
        }
        learnings: dict[int, list[Learning]] = {}
        for k in sorted(due, key=lambda k: (due[k], -k)):
            learnings.setdefault(due[k], []).append(Learning(k, k in self._silent))
        return learnings
