"""Products with weights, counted as the synapses make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from dualprop.nets import crossing

Kind = Literal["forward", "feedback", "gradient"]
Work = Mapping[Kind, int]
"""Multiply-adds of one product of each kind."""


@dataclass
class Tally:
    """How many products.

    Attributes:
        products: their number.
        rows: samples in all of them together; several copies of a batch side by side are as many rows.
        multiply_adds: in all of them together, without biases.
    """

    products: int = 0
    rows: int = 0
    multiply_adds: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.products + other.products, self.rows + other.rows, self.multiply_adds + other.multiply_adds
        )


class counting:
    """A context in which every product is counted that a synapse makes, of any net, in this thread.

    A product is W p for all rows p at once, W^T δ, or δ p^T summed over the rows; of a module as a synapse it is a
    whole pass, forward or back. Those that autograd makes on the way back from a drive count too; those of a
    compiled net do not. Contexts nest: each counts what is made inside it. Entering one again goes on counting.

    Args:
        batch: samples in a batch: a product with several copies of it side by side counts as several, and one with
            fewer rows as none. None: every product counts once.

    Attributes:
        forward: W p.
        feedback: W^T δ, or B^T δ where a synapse has feedback weights B of its own.
        gradient: δ p^T.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.DualProp(dp.nets.mlp([4, 8, 3]))
        >>> with counting() as counts:
        ...     step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> counts.forward.products, counts.feedback.products, counts.gradient.products
        (2, 1, 2)
        >>> counts.feedback.multiply_adds == 5 * 8 * 3
        True
    """

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch
        self.forward, self.feedback, self.gradient = Tally(), Tally(), Tally()
        self._tokens: list[Token[tuple[counting, ...]]] = []

    @property
    def total(self) -> Tally:
        """Products of all kinds."""
        return self.forward + self.feedback + self.gradient

    def __repr__(self) -> str:
        kinds = (f"{kind} {getattr(self, kind).products}" for kind in ("forward", "feedback", "gradient"))
        return f"{type(self).__name__}(products: {', '.join(kinds)})"

    def __enter__(self) -> counting:
        others = _OPEN.get()
        self._tokens.append(_OPEN.set(others if self in others else (*others, self)))
        return self

    def __exit__(self, *exception: object) -> None:
        _OPEN.reset(self._tokens.pop())

    def see(self, kind: Kind, synapse: object, operand: Tensor, multiply_adds: int) -> None:
        """Look at one product of a synapse with weights as it is made; here nothing is to be seen.

        Args:
            kind: of it.
            synapse: whose.
            operand: what it is made of: the rows p, or δ.
            multiply_adds: in it.
        """

    def add(self, kind: Kind, rows: int, multiply_adds: int) -> None:
        """Count one product of all these rows."""
        tally: Tally = getattr(self, kind)
        tally.products += 1 if self.batch is None else rows // self.batch
        tally.rows += rows
        tally.multiply_adds += multiply_adds


_OPEN: ContextVar[tuple[counting, ...]] = ContextVar("open", default=())
_LEARNING: ContextVar[bool] = ContextVar("learning", default=True)


def listeners() -> tuple[counting, ...]:
    """The contexts that are open here; none while torch.compile looks."""
    return () if torch.compiler.is_compiling() else _OPEN.get()


def report(kind: Kind, rows: int, multiply_adds: int) -> None:
    """Tell the open contexts of one product."""
    for counts in listeners():
        counts.add(kind, rows, multiply_adds)


def _show(kind: Kind, synapse: object, operand: Tensor, multiply_adds: int) -> None:
    for counts in listeners():
        counts.see(kind, synapse, operand, multiply_adds)


def reporting(kind: Kind, rows: int, multiply_adds: int, product: Callable[..., object]) -> Callable[..., object]:
    """A bound product that tells the open contexts of itself each time that it is made."""

    def call(*args: float) -> None:
        product(*args)
        if _OPEN.get():
            report(kind, rows, multiply_adds)

    return call


@contextmanager
def by_states_alone() -> Iterator[None]:
    """What is made here is differentiated by states, not by weights: no weight gradients are counted of it."""
    token = _LEARNING.set(False)
    try:
        yield
    finally:
        _LEARNING.reset(token)


def report_forward(drive: Tensor, p: Tensor, work: Work, *, learns: bool, synapse: object | None = None) -> None:
    """Tell the open contexts of the product that made a drive, and of those that autograd makes of its gradient.

    Args:
        drive: what was made.
        p: what it was made of.
        work: the multiply-adds of each.
        learns: whether autograd makes a weight gradient.
        synapse: whose products autograd's are, where it has weights; see `counting.see`.
    """
    rows, counts = len(drive), listeners()
    report("forward", rows, work["forward"])
    if not counts or not drive.requires_grad:
        return
    kinds: list[tuple[Kind, bool]] = [("gradient", learns and _LEARNING.get()), ("feedback", p.requires_grad)]
    made = [kind for kind, asked in kinds if asked]

    def backward(delta: Tensor) -> None:
        for one in counts:  # autograd may run in another thread
            for kind in made:
                if synapse is not None:
                    one.see(kind, synapse, delta, work[kind])
                one.add(kind, rows, work[kind])

    drive.register_hook(backward)  # type: ignore[no-untyped-call]


class _Weighted(Protocol):
    @property
    def fan_in(self) -> int:
        """The numbers of W[0]."""

    def read(self, name: str) -> Tensor:
        """W by its name."""


_S = TypeVar("_S", bound=_Weighted)
_P = ParamSpec("_P")
_Product = Callable[Concatenate[_S, Tensor, _P], Tensor]


def counted(kind: Kind) -> Callable[[_Product[_S, _P]], _Product[_S, _P]]:
    """Report what a method of a synapse with weights W makes, one product, and read it as devices have it.

    Its first argument is p for a forward product, δ for others. The multiply-adds are the numbers of the drive or
    of δ times those of W[0].
    """

    def decorate(method: _Product[_S, _P]) -> _Product[_S, _P]:
        @wraps(method)
        def call(synapse: _S, first: Tensor, /, *others: _P.args, **named: _P.kwargs) -> Tensor:
            if crossing.OPEN and kind != "gradient":  # which is made where it is kept
                crossed = crossing.answered(synapse, first) if kind == "forward" else first
                made = crossing.through(kind, synapse, method(synapse, crossed, *others, **named))
            else:
                made = method(synapse, first, *others, **named)
            if not _OPEN.get() or torch.compiler.is_compiling():
                return made
            fan_in = synapse.fan_in
            if kind == "forward":
                work = made.numel() * fan_in
                _show(kind, synapse, first, work)
                each: Work = {"forward": work, "feedback": work, "gradient": work}
                learns = synapse.read("weight").requires_grad
                report_forward(made, first, each, learns=learns, synapse=synapse)
            else:
                _show(kind, synapse, first, first.numel() * fan_in)
                report(kind, len(first), first.numel() * fan_in)
            return made

        return call

    return decorate
