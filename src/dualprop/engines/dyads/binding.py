"""A program bound to layers and links: each of its instructions becomes a call, used for every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial

from dualprop.engines.dyads.blocks import Blocks, Call
from dualprop.engines.dyads.neurons import Link, Neurons
from dualprop.engines.dyads.plan import Step
from dualprop.engines.dyads.program import Do, Instruction, Program, Register, assembled
from dualprop.nets.counting import counting
from dualprop.nets.wiring import Wiring


class Bound:
    """A program as a function: a line for each instruction, and for each register that is freed.

    Args:
        program: the program.
        calls: what does each instruction.
        owners: the links and the layers whose attributes the registers are, by the names that they have here.
        name: says which of these a register's is.

    Attributes:
        program: the program.
        needs: the registers that must be there before.
        products: how many the inference makes, without those that edges learn from; None until it has been done.
    """

    products: int | None

    def __init__(
        self,
        program: Program,
        calls: Sequence[Call],
        owners: Mapping[str, object],
        name: Callable[[Register], str],
    ) -> None:
        self.program, self.needs, self.products = program, program.needs, None
        self._calls = calls
        self._frees = [[(owners[name(r)], r.name) for r in each.frees] for each in program.instructions]
        lines = [
            f"    call{n}()" + "".join(f"; {name(r)}.{r.name} = None" for r in each.frees)
            for n, each in enumerate(program.instructions)
        ]
        scope = {**owners, **{f"call{n}": call for n, call in enumerate(calls)}}
        exec("\n".join(["def run():", *lines, "    pass"]), scope)
        self._run: Call = scope["run"]  # type: ignore[assignment]

    def __call__(self) -> int:
        """Do it, and say how many products the inference has made; the same at every call."""
        if self.products is None:
            self.products = self._count()
        else:
            self._run()
        return self.products

    def _count(self) -> int:
        """Do it, and count the products that are not what edges learn from."""
        counts = counting()
        for instruction, call, frees in zip(self.program.instructions, self._calls, self._frees, strict=True):
            with nullcontext() if instruction.do is Do.LEARN else counts:
                call()
            for owner, name in frees:
                setattr(owner, name, None)
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
        self._owners: dict[str, Link | Neurons] = {f"link{e}": link for e, link in enumerate(links)}
        self._owners |= {self._layer(k): n for k, n in neurons.items()}
        self.again = lru_cache(maxsize=64)(self.bind)

    def bind(self, steps: Sequence[Step], keep: frozenset[Register]) -> Bound:
        """The calls for a plan.

        Args:
            steps: the plan.
            keep: the registers that will be read after it.
        """
        program = assembled(steps, self._wiring, keep, damped=self._damped)
        return Bound(program, [self._call(each) for each in program.instructions], self._owners, self._name)

    def freeing(self, registers: Iterable[Register]) -> Call:
        """What empties registers."""
        places = [(self._owners[self._name(register)], register.name) for register in registers]

        def free() -> None:
            for owner, name in places:
                setattr(owner, name, None)

        return free

    def _name(self, register: Register) -> str:
        return f"link{register.number}" if register.of_edge else self._layer(register.number)

    @staticmethod
    def _layer(k: int) -> str:
        return f"layer{k}" if k > 0 else f"input{-k}"

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
