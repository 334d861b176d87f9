"""The dyads of a learner, bound to the weights as they lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dualprop.engines.dyads.circuit import Circuit
from dualprop.nets.net import Net
from dualprop.nets.shapes import Shape


class Dyads:
    """A circuit that is made anew, from the states that there were, where weights have been put elsewhere.

    Args:
        net: whose weights it is bound to.
        make: a circuit for frames of some shape, its states at zero.

    Attributes:
        shape: of one sample of a frame; None before the first.
    """

    def __init__(self, net: Net, make: Callable[[Shape, Tensor], Circuit]) -> None:
        self._make = make
        self._owned = [module._parameters for module in net.modules() if module._parameters]
        self.begin(None)

    def begin(self, shape: Shape | None, kept: dict[str, Any] | None = None) -> None:
        """Dyads for frames of this shape: as they were kept, otherwise at zero."""
        self.shape, self._kept = shape, kept
        self._bound: Circuit | None = None
        self._ground: list[Any] = []

    @property
    def circuit(self) -> Circuit:
        """The dyads, once there has been a frame."""
        ground = [
            None if p is None else (p.data_ptr(), p.requires_grad) for own in self._owned for p in own.values()
        ]
        if self._bound is None or ground != self._ground:
            self._bound, self._ground, self._kept = self._made(), ground, None
        return self._bound

    @property
    def like(self) -> Tensor:
        """A tensor of the parameters' type, where they are."""
        return next(p for own in self._owned for p in own.values() if p is not None)

    def states(self) -> dict[str, Any] | None:
        """What the dyads are to go on from."""
        return self._kept if self._bound is None else self._bound.memory.state_dict()

    def _made(self) -> Circuit:
        assert self.shape is not None
        kept, circuit = self.states(), self._make(self.shape, self.like)
        if kept is not None:
            circuit.memory.load_state_dict(kept)
            circuit.see()
        return circuit

    def __getstate__(self) -> dict[str, Any]:
        """Without calls that are bound to these tensors, for copies and pickles."""
        return {**vars(self), "_bound": None, "_ground": [], "_kept": self.states()}
