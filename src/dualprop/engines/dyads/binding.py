"""A program bound to layers and links: each of its instructions becomes a call, used for every batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial

from dualprop.engines.dyads.blocks import Blocks, Call
from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.plan import Step
from dualprop.engines.dyads.program import Do, Instruction, Program, Register, assembled
from dualprop.nets.counting import counting
from dualprop.nets.wiring import Wiring


class Bound:
    """The calls that do what a program says.

    Args:
        program: the program.
        calls: one for each instruction, with whether its products are of the inference, not of what edges learn.
    """

    def __init__(self, program: Program, calls: Sequence[tuple[Call, bool]]) -> None:
        self.needs = program.needs
        self.calls = [call for call, _ in calls]
        self._counted = calls
        self._products: int | None = None

    def __call__(self) -> int:
        """Do it, and say how many products the inference has made; the same at every call."""
        if self._products is None:
            self._products = self._count()
        else:
            for call in self.calls:
                call()
        return self._products

    def _count(self) -> int:
        counts = counting()
        for call, counted in self._counted:
            with counts if counted else nullcontext():
                call()
        return counts.total.products


class Binding:
    """Binds plans to the layers and the links of a net.

    Args:
        wiring: the graph.
        neurons: its layers and inputs by their numbers.
        links: its edges.
        blocks: how layers are updated.
        damped: whether an update reads the states before it.
    """

    def __init__(
        self,
        wiring: Wiring,
        neurons: Mapping[int, Neurons],
        links: Sequence[Link],
        blocks: Blocks,
        *,
        damped: bool = False,
    ) -> None:
        self._wiring, self._neurons, self._links, self._blocks = wiring, neurons, links, blocks
        self._damped = damped
        self.again = lru_cache(maxsize=64)(self.bind)

    def bind(self, steps: Sequence[Step], keep: frozenset[Register]) -> Bound:
        """The calls for a plan.

        Args:
            steps: the plan.
            keep: the registers that will be read after it.
        """
        program = assembled(steps, self._wiring, keep, damped=self._damped)
        calls: list[tuple[Call, bool]] = []
        for instruction in program.instructions:
            calls.append((self._call(instruction), instruction.do is not Do.LEARN))
            if instruction.frees:
                calls.append((self.freeing(instruction.frees), False))
        return Bound(program, calls)

    def freeing(self, registers: Iterable[Register]) -> Call:
        """What empties registers."""
        places = [(self._links[r.number] if r.of_edge else self._neurons[r.number], r.name) for r in registers]

        def free() -> None:
            for owner, name in places:
                setattr(owner, name, None)

        return free

    def _call(self, instruction: Instruction) -> Call:
        """What does it."""
        number, edges = instruction.number, [self._links[e] for e in instruction.edges]
        match instruction.do:
            case Do.DRIVE:
                return self._links[number].drive
            case Do.SEE:
                return self._links[number].see
            case Do.SEND:
                return self._links[number].send
            case Do.LEARN:
                return self._links[number].learn
            case Do.GATHER:
                return self._neurons[number].gather
            case Do.COLLECT:
                return partial(self._neurons[number].collect, edges)
            case Do.SAY:
                return self._blocks.saying(self._neurons[number])
            case Do.SCALE:
                return self._blocks.scaling(self._neurons[number], instruction.spend)
            case Do.UPDATE:
                return self._updating(instruction)

    def _updating(self, update: Instruction) -> Call:
        return self._blocks.updating(self._neurons[update.number], update)
