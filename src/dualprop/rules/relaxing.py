"""What energy-based rules share: a free phase that predicts, phases with a target, a contrast that learns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.relaxation import ORDERS, Relaxation, Settled
from dualprop.engines.slots import Slots
from dualprop.engines.states import State
from dualprop.errors import DualpropError, at_least_one, not_negative, seeds
from dualprop.nets.counting import counting
from dualprop.nets.losses import Loss
from dualprop.nets.net import Layer, Net
from dualprop.nets.potentials import Box
from dualprop.nets.synapses import layout, product_dtype, standing_still
from dualprop.rules.base import Rule, Step


@dataclass(frozen=True)
class Contrast:
    """States whose energies are contrasted: the gradient is Σ_t w_t ∂E(z^t)/∂W.

    Args:
        copies: what the rows of the states are.
        weights: w_t of every copy, complex ones counted with their conjugates.
        states: z_1 .. z_M of all copies.
        readout: for a read-out that is no state, w_t β_t ∂ℓ/∂a_L at every copy.
        settled: how the phases with a target ended.
    """

    copies: Copies
    weights: Sequence[complex]
    states: Sequence[Tensor]
    readout: Tensor | None
    settled: Settled


@dataclass(frozen=True)
class Free:
    """The end of the free phase on one batch.

    Args:
        drive: A_1(x), None where no layer relaxes.
        states: z_1 .. z_M.
        output: what the net says.
        settled: how the phase ended.
    """

    drive: Tensor | None
    states: Sequence[Tensor]
    output: Tensor
    settled: Settled


class Relaxing(Rule):
    """A rule whose states relax: first freely, which is its prediction, then under the target's influence.

    The free phase starts at zero, or warm, where the batch before left the same slots (see `Slots`).

    Products follow autocast. What is learnt from are differences between nearby states, which shrink from layer to
    layer on the way down: in bfloat16 those of a deep net drown in rounding unless the nudge is strong.

    Args:
        net: the net to train.
        loss: a name in `LOSSES` or a `Loss`.
        T1: steps of the free phase, at least 1.
        T2: steps of each phase with a target, at least 1.
        order: of the updates in a step, a name in `ORDERS`.
        warm: whether the free phase starts where the batch before ended it.
        tolerance: a phase ends early once no state moves by more than this in a step; at 0 where none moves.
        seed: of whatever the rule draws.
    """

    gain = 1.0
    generator: torch.Generator
    free: Slots

    def __init__(
        self,
        net: Net,
        *,
        loss: Loss | str,
        T1: int,
        T2: int,
        order: str,
        warm: bool,
        tolerance: float,
        seed: int = 0,
    ) -> None:
        super().__init__(net, loss=loss)
        at_least_one(T1=T1, T2=T2)
        not_negative(tolerance=tolerance)
        seeds(seed=seed)
        if not isinstance(warm, bool):
            raise DualpropError(f"warm={warm!r}: must be true or false")
        self.T1, self.T2, self.warm, self.tolerance = T1, T2, warm, float(tolerance)
        self.loss.check(net.chain[-1].potential, 0.0)
        if self.loss.link is not None and net.chain[-1].potential != Box():
            raise DualpropError("net: the last layer reads out logits for this loss, so it must be linear")
        self.layers = self._relaxing()
        self.groups = ORDERS[order](len(self.layers))
        self.add_state("generator", torch.Generator().manual_seed(seed))
        if warm:
            self.add_state("free", Slots(self.layers, net.chain[len(self.layers) :]))

    @abstractmethod
    def _relaxing(self) -> Sequence[Layer]:
        """The layers whose states relax."""

    @abstractmethod
    def _output(self, x: Tensor, states: Sequence[Tensor]) -> Tensor:
        """What the net says in these states."""

    @abstractmethod
    def _contrast(self, x: Tensor, y: Tensor, free: Free) -> Contrast:
        """The states to contrast, given where the free phase ended."""

    def _scale(self, k: int) -> float:
        """A factor of layer k's gradient."""
        return 1.0

    def prediction(self, x: Tensor) -> Tensor:
        """The output at the end of the free phase, from zero; arguments as in `Rule.prediction`."""
        with self._still():
            return self._free(x, []).output

    def update(self, x: Tensor, y: Tensor) -> Step:
        """Both kinds of phases, and the contrast of where they end; arguments as in `Rule.update`."""
        with self._still(), counting(batch=len(x)) as counts:
            free = self._free(x, self._start(x))
            contrast = self._contrast(x, y, free)
        if self.warm:
            self.free.keep(free.states)
        with torch.autocast(x.device.type, enabled=False):  # the contrast of nearby states needs their precision
            self._learn(x, contrast)
        measures = {
            "free_steps": float(free.settled.steps),
            "free_residual": free.settled.residual,
            "nudged_steps": float(contrast.settled.steps),
            "nudged_residual": contrast.settled.residual,
        }
        loss = self.loss.value(free.output, y).mean()
        return Step(loss, free.output, counts.total.products, measures)

    def inference(self, x: Tensor, y: Tensor) -> State:
        """Two of the states that are contrasted, as plus and minus, at the end of their phases.

        A read-out outside the dynamics counts as layer L. Arguments as in `Rule.inference`.
        """
        with self._still():
            contrast = self._contrast(x, y, self._free(x, self._start(x)))
            plus, minus = (self._side(x, contrast, i) for i in self._pair())
        return State(plus, minus)

    def _pair(self) -> tuple[int, int]:
        """Which copies `infer` shows."""
        return 0, 1

    def _side(self, x: Tensor, contrast: Contrast, copy: int) -> tuple[Tensor, ...]:
        """The real parts of one copy's states."""
        rows = slice(copy * len(x), (copy + 1) * len(x))
        states = [z[rows] for z in contrast.states]
        outside = [self._output(x, states)] if len(states) < len(self.net) else []
        return (x, *states, *outside)

    def _still(self) -> Any:
        return standing_still(layer.synapse for layer in self.net.chain)

    def _free(self, x: Tensor, start: Sequence[Tensor]) -> Free:
        """The free phase on a batch, from these states, or from zero."""
        drive = self.layers[0].synapse(x.to(product_dtype(x))) if self.layers else None
        relaxation = self._relaxation(drive, start or self._zeros(x), Copies(len(x), 1))
        settled = relaxation.run(self.T1, self.tolerance, "free")
        states = relaxation.z
        return Free(drive, states, self._output(x, states).to(x.dtype), settled)

    def _relaxation(
        self,
        drive: Tensor | None,
        states: Sequence[Tensor],
        copies: Copies,
        *,
        force: Callable[[Tensor], Tensor] | None = None,
        noise: Callable[[Tensor], Tensor] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> Relaxation:
        """This rule's relaxation from these states, all free but for what is said here."""
        groups = self.groups if groups is None else groups
        return Relaxation(
            self.layers, drive, states, copies, groups=groups, gain=self.gain, force=force, noise=noise
        )

    def _shapes(self, x: Tensor) -> list[tuple[int, ...]]:
        """Those of a sample of z_1 .. z_M."""
        return self.net.shapes(tuple(x.shape[1:]))[1 : len(self.layers) + 1]

    def _start(self, x: Tensor) -> list[Tensor]:
        """What the batch before left in the slots of this one; nothing for a cold start."""
        return self.free.start(x) if self.warm else []

    def _zeros(self, x: Tensor) -> list[Tensor]:
        """z_1 .. z_M at zero."""
        zeros = [x.new_zeros(len(x), *shape) for shape in self._shapes(x)]
        return [z.contiguous(memory_format=layout(x)) if z.ndim == 4 else z for z in zeros]

    def _learn(self, x: Tensor, contrast: Contrast) -> None:
        """Add Σ_t w_t ∂E(z^t)/∂W, with ∂E/∂W_k = -z_k z_{k-1}^T, and the read-out's gradient, from the top down.

        The input is the same in all copies, so their sum learns from it in one product.
        """
        copies, below = contrast.copies, [x, *contrast.states]
        deltas = [
            copies.scaled(z, [-self._scale(k) * w / len(x) for w in contrast.weights])
            for k, z in enumerate(contrast.states, 1)
        ]
        if contrast.readout is not None:
            deltas.append(contrast.readout / len(x))
        for k in range(len(deltas), 0, -1):
            synapse = self.net.chain[k - 1].synapse
            if k == 1:
                synapse.add_grad(copies.total(deltas[0]), x)
            else:
                copies.on(synapse).learn(deltas[k - 1], below[k - 1])
