"""What an inference computes, keeps, frees and learns, and when: worked out once, from schedule and graph alone.

A plan is data, to be printed and tested; `dualprop.engines.dyads.inference` does what it says. A drive or a
feedback is computed anew only where something that it comes from has changed; a block update is left out where
nothing has; a layer's edges learn as soon as the layer and all below those edges have made their last update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dualprop.engines.dyads.schedules import Update
from dualprop.nets.wiring import Wiring


class Trait(NamedTuple):
    """What a plan must know of the synapse on an edge.

    Attributes:
        linear: whether its feedback is the same at every state below.
        eager: whether to linearise it is to compute its drive.
    """

    linear: bool = True
    eager: bool = False


class Block(NamedTuple):
    """The update of one layer.

    Attributes:
        layer: its number.
        nudged: whether a loss acts on it.
        drives: the edges into it that are driven anew.
        hold_drives: those into it whose drives will be asked for once more, apart from their sum.
        summed: whether the sum of the drives is made anew.
        fed: the edges out of it by which anything comes down.
        feedbacks: those of them whose feedback is computed anew.
        hold_feedbacks: those whose feedback will be asked for once more, apart from the sum.
        pulled: whether the sum of the feedbacks is made anew.
        spend: whether drive and feedback may be written over.
    """

    layer: int
    nudged: bool
    drives: tuple[int, ...]
    hold_drives: tuple[int, ...]
    summed: bool
    fed: tuple[int, ...]
    feedbacks: tuple[int, ...]
    hold_feedbacks: tuple[int, ...]
    pulled: bool
    spend: bool


class Learning(NamedTuple):
    """All edges into one layer learn, and what they alone still read is freed.

    Attributes:
        layer: the layer.
        frees: the layers and inputs whose means nobody reads any more.
    """

    layer: int
    frees: tuple[int, ...]


class Step(NamedTuple):
    """Blocks that are updated at once, all from the values before, and what learns afterwards."""

    blocks: tuple[Block, ...]
    learnings: tuple[Learning, ...] = ()


class Planner:
    """Follows what is fresh while it plans the updates of one inference.

    Args:
        wiring: the graph.
        traits: those of the synapse on each edge.
        different: for each layer k = 0..L whether z^+ is not z^- at first; nowhere by default.
        damped: whether an update keeps a part of the old state, so that none may be left out.
    """

    def __init__(
        self,
        wiring: Wiring,
        traits: Sequence[Trait],
        *,
        different: Sequence[bool] | None = None,
        damped: bool = False,
    ) -> None:
        self.wiring, self.traits, self.damped = wiring, traits, damped
        count, layers = len(wiring.edges), wiring.depth + 1
        self._driven = [False] * count  # the edge's drive is that of the state below
        self._sent = [False] * count  # its feedback is that of the difference above
        self._linearisation = [False] * count  # it is linearised at the state below
        self._summed, self._pulled = [False] * layers, [False] * layers
        self._different = list(different or [False] * layers)  # z^+ is not z^-
        self._settled: list[bool | None] = [None] * layers  # was the last update nudged; None: it would be another

    def plan(self, updates: Sequence[Update], *, learn: bool = False, more: bool = False) -> tuple[Step, ...]:
        """The steps of these updates, from where the ones before have left off.

        Args:
            updates: which layers, in which order.
            more: whether others follow, nobody knows which.
            learn: whether these are the last, and all edges learn.

        Returns:
            A step for each update, and one before them all, for layers that are not updated at all.
        """
        last = self._last(updates)
        steps = [self._updated(update) for update in updates]
        steps = self._holding(steps, more)
        if not learn:
            return tuple(steps)
        spending = [
            step._replace(blocks=tuple(b._replace(spend=self._spends(b.layer, n, last)) for b in step.blocks))
            for n, step in enumerate(steps)
        ]
        learnings = self._learnings(last)
        all_steps = [Step(()), *spending]
        return tuple(s._replace(learnings=tuple(learnings.get(n, ()))) for n, s in enumerate(all_steps, -1))

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
        drives = tuple(e for e in w.into[k] if not self._driven[e])
        summed = not self._summed[k]
        for e in drives:
            self._driven[e] = self._linearisation[e] = True
        self._summed[k] = True
        fed = tuple(e for e in w.out_of[k] if self._different[w.edges[e][1]])
        feedbacks = tuple(e for e in fed if not self._sent[e])
        pulled = not self._pulled[k]
        for e in feedbacks:
            self._sent[e] = True
            if self.traits[e].eager and not self._linearisation[e]:
                self._driven[e] = True
            self._linearisation[e] = True
        self._pulled[k] = True
        return Block(k, nudged, drives, (), summed, fed, feedbacks, (), pulled, False)

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
            if self._sent[e] and not self.traits[e].linear:
                self._stale_feedback(e)

    def _stale_feedback(self, e: int) -> None:
        source = self.wiring.edges[e][0]
        self._sent[e] = False
        if source > 0:
            self._pulled[source], self._settled[source] = False, None

    def _holding(self, steps: Sequence[Step], more: bool) -> list[Step]:
        """Which parts of a sum are to be held, because the sum will be made again with them as they are."""
        w, held = self.wiring, list(steps)
        drives, feedbacks = (
            [frozenset(edges[k]) if more and len(edges[k]) > 1 else frozenset() for k in range(w.depth + 1)]
            for edges in (w.into, w.out_of)
        )
        for n in range(len(steps) - 1, -1, -1):
            blocks = []
            for b in reversed(steps[n].blocks):
                holds = tuple(sorted(drives[b.layer])), tuple(sorted(feedbacks[b.layer]))
                blocks.append(b._replace(hold_drives=holds[0], hold_feedbacks=holds[1]))
                if b.summed:
                    drives[b.layer] = frozenset(w.into[b.layer]) - frozenset(b.drives)
                if b.pulled:
                    feedbacks[b.layer] = frozenset(b.fed) - frozenset(b.feedbacks)
            held[n] = steps[n]._replace(blocks=tuple(reversed(blocks)))
        return held

    def _spends(self, k: int, number: int, last: Sequence[int]) -> bool:
        """Whether nobody will read layer k's drive and feedback after this update, its last."""
        w = self.wiring
        targets = [w.edges[e][1] for e in w.out_of[k]]
        return k not in w.outputs and number == last[k] and all(last[t] < number for t in targets)

    def _learnings(self, last: Sequence[int]) -> dict[int, list[Learning]]:
        """What learns after each update (-1: before them all), from the top down."""
        w = self.wiring
        due = {
            k: max(last[k], *(last[w.edges[e][0]] for e in w.into[k] if w.edges[e][0] > 0), -1)
            for k in range(1, w.depth + 1)
        }
        order = sorted(due, key=lambda k: (due[k], -k))
        place = {k: n for n, k in enumerate(order)}
        readers = {j: [w.edges[e][1] for e in out] for j, out in w.out_of.items()}
        learnings: dict[int, list[Learning]] = {}
        for k in order:
            frees = tuple(j for j, all_of in readers.items() if all_of and max(all_of, key=place.__getitem__) == k)
            learnings.setdefault(due[k], []).append(Learning(k, frees))
        return learnings
