"""What lies between a synapse and those who read it, during one step on hardware that is not ideal.

A net holds weights alone. A step of a rule may be made on devices: then its products cross them, the weights on
their way in, drives and feedback on their way out. `crossing` opens such a step in this thread; elsewhere products
are as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor


class Crossing(Protocol):
    """What the products of one step cross.

    Attributes:
        shared: what autograd's errors of a sample are divided by: the size of the batch, or 1.
    """

    shared: int

    def weight(self, synapse: object, name: str, value: Tensor, *, down: bool = False) -> Tensor:
        """A weight as the synapse's products read it, on the way up or down."""

    def drive(self, synapse: object, made: Tensor) -> Tensor:
        """What is heard of W p + b."""

    def feedback(self, synapse: object, made: Tensor) -> Tensor:
        """What is heard of W^T δ."""


OPEN: list[Crossing] = []
"""Those that are open in any thread: nearly always none, so that nobody has to ask further."""

_HERE: ContextVar[Crossing | None] = ContextVar("crossing", default=None)
_IMAGINARY: ContextVar[bool] = ContextVar("imaginary", default=False)


def here() -> Crossing | None:
    """The one that is open in this thread; torch.compile knows of none."""
    return None if torch.compiler.is_compiling() else _HERE.get()


@contextmanager
def crossing(what: Crossing | None) -> Iterator[None]:
    """Products made meanwhile in this thread cross this; None for nothing."""
    token = _HERE.set(what)
    if what is not None:
        OPEN.append(what)
    try:
        yield
    finally:
        if what is not None:
            OPEN.remove(what)
        _HERE.reset(token)


@contextmanager
def imaginary() -> Iterator[None]:
    """What crosses meanwhile in this thread are imaginary parts of complex numbers."""
    token = _IMAGINARY.set(True)
    try:
        yield
    finally:
        _IMAGINARY.reset(token)


def is_imaginary() -> bool:
    """Whether what crosses now is an imaginary part."""
    return _IMAGINARY.get()


def through(kind: str, synapse: object, made: Tensor) -> Tensor:
    """What is heard of a product, forward or feedback."""
    at = here()
    if at is None:
        return made
    return at.drive(synapse, made) if kind == "forward" else at.feedback(synapse, made)


def answered(synapse: object, p: Tensor) -> Tensor:
    """p itself; what autograd sends back to it through the synapse is heard as feedback, sample by sample."""
    at = here()
    if at is None or not p.requires_grad:
        return p
    heard: Tensor = _Answered.apply(p, at, synapse)
    return heard


class _Answered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, at: Crossing, synapse: object) -> Tensor:
        ctx.at, ctx.synapse = at, synapse
        return p.view_as(p)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        size = ctx.at.shared
        return ctx.at.feedback(ctx.synapse, gradient * size) / size, None, None
