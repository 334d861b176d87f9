"""A plan as a flat list of instructions on registers, each freed as soon as nobody will read it again.

A register is what a layer or an edge holds at a time: a state, a drive, a feedback. Which instruction reads it
last follows from the list alone, read from its end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from dualprop.engines.dyads.plan import Learning, Step
from dualprop.nets.wiring import Wiring


class Register(NamedTuple):
    """What an edge or a layer holds.

    Attributes:
        name: the attribute of `Link` or `Neurons` that it is.
        number: the edge or the layer.
    """

    name: str
    number: int

    @property
    def of_edge(self) -> bool:
        """Whether it is an edge's."""
        return self.name in _OF_EDGES

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


_OF_EDGES = ("operand", "linearisation", "driven", "sent")
_OF_LAYERS = ("mean", "difference", "states", "total", "pull", "delta", "output")


class Do(Enum):
    """What is done; edges see, drive, send and learn, layers all else."""

    SEE = "see"
    DRIVE = "drive"
    SEND = "send"
    GATHER = "gather"
    COLLECT = "collect"
    UPDATE = "update"
    SAY = "say"
    SCALE = "scale"
    LEARN = "learn"


_WRITES = {
    Do.SEE: ("operand", "linearisation"),
    Do.DRIVE: ("driven",),
    Do.SEND: ("sent",),
    Do.GATHER: ("total",),
    Do.COLLECT: ("pull",),
    Do.UPDATE: ("mean", "difference", "states", "output"),
    Do.SAY: ("output",),
    Do.SCALE: ("delta",),
    Do.LEARN: (),
}


class Instruction(NamedTuple):
    """One thing to do.

    Attributes:
        do: what.
        number: the edge or the layer.
        edges: those whose drives or feedbacks are summed.
        fed: of an update: whether anything comes down to the layer.
        nudged: of an update: whether a loss acts on the layer.
        spend: of an update: whether drive and feedback may be written over; of a scaling: whether the difference.
        frees: the registers that nobody reads afterwards.
    """

    do: Do
    number: int
    edges: tuple[int, ...] = ()
    fed: bool = False
    nudged: bool = False
    spend: bool = False
    frees: tuple[Register, ...] = ()

    @property
    def summed(self) -> set[Register]:
        """What an update reads: the sum of the drives, and that of the feedbacks if any come down."""
        names = ("total", "pull") if self.fed else ("total",)
        return {Register(name, self.number) for name in names}

    def spends(self, wiring: Wiring, alive: Collection[Register]) -> bool:
        """Whether nobody reads afterwards what an update or a scaling may write over.

        A sum of one part is that part.

        Args:
            wiring: the graph.
            alive: the registers that will be read after it.
        """
        k = self.number
        if self.do is Do.SCALE:
            return Register("difference", k) not in alive
        if self.do is not Do.UPDATE or k in wiring.outputs:
            return False
        parts = [("driven", e) for e in wiring.into[k]] + [("sent", e) for e in wiring.out_of[k]]
        return not any(register in alive for register in (*self.summed, *(Register(*part) for part in parts)))

    def reads(self, wiring: Wiring, *, damped: bool = False) -> set[Register]:
        """The registers that it reads.

        Args:
            wiring: the graph.
            damped: whether an update reads the states before it.
        """
        number = self.number
        match self.do:
            case Do.SEE:
                return {Register("mean", wiring.edges[number][0])}
            case Do.DRIVE:
                return {Register("operand", number)}
            case Do.SEND:
                return {Register("linearisation", number), Register("difference", wiring.edges[number][1])}
            case Do.GATHER:
                return {Register("driven", e) for e in self.edges}
            case Do.COLLECT:
                return {Register("sent", e) for e in self.edges}
            case Do.UPDATE:
                return self.summed | ({Register("states", number)} if damped else set())
            case Do.SAY:
                return {Register("total", number)}
            case Do.SCALE:
                return {Register("difference", number)}
            case Do.LEARN:
                source, target = wiring.edges[number]
                return {Register("delta", target), Register("mean", source)}

    @property
    def writes(self) -> set[Register]:
        """The registers that it writes."""
        return {Register(name, self.number) for name in _WRITES[self.do]}

    def __str__(self) -> str:
        words = [self.do.value, str(self.number), *(["nudged"] if self.nudged else [])]
        return " ".join(words) + (f" (frees {', '.join(map(str, self.frees))})" if self.frees else "")


class Program(NamedTuple):
    """A list of instructions.

    Attributes:
        instructions: in their order.
        needs: the registers that must be there before.
    """

    instructions: tuple[Instruction, ...]
    needs: frozenset[Register]

    def __str__(self) -> str:
        return "\n".join(map(str, self.instructions))


def every_register(wiring: Wiring) -> frozenset[Register]:
    """All that a net's layers, inputs and edges have."""
    edges = {Register(name, e) for name in _OF_EDGES for e in range(len(wiring.edges))}
    return frozenset(edges | {Register(name, k) for name in _OF_LAYERS for k in wiring.out_of})


def assembled(
    steps: Sequence[Step], wiring: Wiring, keep: Collection[Register], *, damped: bool = False
) -> Program:
    """The program of a plan.

    Args:
        steps: the plan.
        wiring: its graph.
        keep: the registers that will be read after it.
        damped: whether an update reads the states before it.
    """
    instructions = [each for step in steps for each in listed(step, wiring)]
    alive, done = set(keep), list[Instruction]()
    for each in reversed(instructions):
        reads, writes = each.reads(wiring, damped=damped), each.writes
        frees = tuple(sorted((reads | writes) - alive))
        done.append(each._replace(spend=each.spends(wiring, alive), frees=frees))
        alive = (alive - writes) | reads
    return Program(tuple(reversed(done)), frozenset(alive))


def listed(step: Step, wiring: Wiring) -> Iterator[Instruction]:
    """The instructions of a step; all that its blocks read is read before one of them is updated."""
    for block in step.blocks:
        for e in block.drives:
            yield from [Instruction(Do.SEE, e)] if e in block.seen else []
            yield Instruction(Do.DRIVE, e)
        if block.summed:
            yield Instruction(Do.GATHER, block.layer, wiring.into[block.layer])
        for e in block.feedbacks:
            yield from [Instruction(Do.SEE, e)] if e in block.seen and e not in block.drives else []
            yield Instruction(Do.SEND, e)
        if block.fed and block.collected:
            yield Instruction(Do.COLLECT, block.layer, block.fed)
    for block in step.blocks:
        yield Instruction(Do.UPDATE, block.layer, fed=bool(block.fed), nudged=block.nudged)
    for learning in step.learnings:
        yield from _learning(learning, wiring.into[learning.layer])


def _learning(learning: Learning, into: tuple[int, ...]) -> Iterator[Instruction]:
    if learning.says:
        yield from (Instruction(do, e) for e in into for do in (Do.SEE, Do.DRIVE))
        yield Instruction(Do.GATHER, learning.layer, into)
        yield Instruction(Do.SAY, learning.layer)
    yield Instruction(Do.SCALE, learning.layer)
    yield from (Instruction(Do.LEARN, e) for e in into)
