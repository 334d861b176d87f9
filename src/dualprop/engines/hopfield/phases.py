"""The phases in which a Hopfield net settles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.relaxation import Force, Relaxation, Settled


@dataclass(frozen=True)
class Phase:
    """How long states relax, and in which order.

    Args:
        name: for errors.
        steps: at most.
        groups: the order of updates, from `ORDERS`; layers in no group stand still.
        tolerance: the phase ends early once no state moves by more than this in a step.
    """

    name: str
    steps: int
    groups: Sequence[Sequence[int]]
    tolerance: float

    def run(
        self,
        net: HopfieldNet,
        drives: Mapping[int, Tensor],
        start: Mapping[int, Tensor],
        copies: Copies,
        *,
        force: Force | None = None,
        noise: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[dict[int, Tensor], Settled]:
        """Relax.

        Args:
            net: whose states.
            drives: what its inputs drive, by layer, in the rows of the copies.
            start: the states to start from, by layer, which are not written over.
            copies: what the rows of the states are.
            force: what the losses add to the drives of the outputs; None for nothing.
            noise: what is added to every drive, a function of it; None for nothing.

        Returns:
            The states at the end of the phase, by layer, and how it ended.

        Raises:
            DivergenceError: if the states diverge.
        """
        relaxation = Relaxation(net, drives, start, copies, groups=self.groups, force=force, noise=noise)
        settled = relaxation.run(self.steps, self.tolerance, self.name)
        return relaxation.z, settled


@dataclass(frozen=True)
class Free:
    """The end of the free phase on one batch.

    Args:
        inputs: the batch, by the numbers of the inputs.
        drives: what they drive, by layer.
        states: of the layers that settle, by number.
        outputs: what the net says, by the outputs' numbers.
        settled: how the phase ended.
    """

    inputs: Mapping[int, Tensor]
    drives: Mapping[int, Tensor]
    states: Mapping[int, Tensor]
    outputs: Mapping[int, Tensor]
    settled: Settled
