"""What energy-based rules share: a free phase that predicts, phases with a target, a contrast that learns."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from dualprop.arguments import Count, In, NotNegative, Seed, checked
from dualprop.engines.hopfield.contrasts import Contrasting
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.phases import Free, HopfieldNet, Phase
from dualprop.engines.hopfield.relaxation import ORDERS
from dualprop.engines.slots import Slots
from dualprop.engines.states import State
from dualprop.errors import DualpropError
from dualprop.nets.counting import counting
from dualprop.nets.losses import LossOrName
from dualprop.nets.net import Net
from dualprop.nets.potentials import Linear
from dualprop.nets.synapses import frozen_weights
from dualprop.rules.base import Rule, Step
from dualprop.rules.recurrent_backprop import RecurrentBackprop

Order = Annotated[str, In(ORDERS)]
"""Of the updates in a step, by name."""


class Relaxing(Rule):
    """A rule whose states relax: first freely, which is its prediction, then under the target's influence.

    Which net relaxes, and which of its settled states are contrasted, are values that a method is composed of (see
    `compose`).

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

    generator: torch.Generator
    free: Slots

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: LossOrName,
        T1: Count,
        T2: Count,
        order: Order,
        warm: bool,
        tolerance: NotNegative,
        seed: Seed = 0,
    ) -> None:
        super().__init__(net, loss=loss)
        self.T1, self.T2, self.warm, self.tolerance = T1, T2, warm, tolerance
        self.loss.check(net.chain[-1].potential, 0.0)
        self.order = order
        self.add_state("generator", torch.Generator().manual_seed(seed))

    def compose(self, hopfield: HopfieldNet, contrast: Contrasting) -> None:
        """Say what the method is made of: the last line of its constructor.

        Args:
            hopfield: the net as it relaxes.
            contrast: makes the settled states that it learns from.

        Raises:
            DualpropError: for a read-out that is not linear.
        """
        chain = self.net.chain
        if hopfield.readout is not None and chain[-1].potential != Linear():
            raise DualpropError("net: the last layer reads out logits for this loss, so it must be linear")
        self.hopfield, self.contrast = hopfield, contrast
        self.free_phase = self.phase("free", self.T1, len(hopfield.layers))
        if self.warm:
            self.add_state("free", Slots(self.net, len(hopfield.layers)))

    def reference(self) -> Rule | None:
        """Recurrent back-propagation through the free equilibrium; None with feedback weights other than Wᵀ."""
        if self.net.feedback != "symmetric":
            return None
        return RecurrentBackprop.of_hopfield(self.net, self.hopfield, loss=self.losses)

    def phase(self, name: str, steps: int, depth: int) -> Phase:
        """A phase of layers 1..M = `depth` in this rule's order, to its tolerance."""
        return Phase(name, steps, ORDERS[self.order](depth), self.tolerance)

    def prediction(self, x: Tensor) -> Tensor:
        """The output at the end of the free phase, from zero; arguments as in `Rule.prediction`."""
        with self._still():
            return self._settled(x, warm=False).output

    def update(self, x: Tensor, y: Tensor) -> Step:
        """Both kinds of phases, and the contrast of where they end; arguments as in `Rule.update`."""
        with self._still(), counting(batch=len(x)) as counts:
            free = self._settled(x, self.warm)
            contrast = self.contrast(x, y, free, self.generator)
        if self.warm:
            self.free.keep(free.states)
        with torch.autocast(x.device.type, enabled=False):  # the contrast of nearby states needs their precision
            contrast.learn(self.hopfield, x)
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
            contrast = self.contrast(x, y, self._settled(x, self.warm), self.generator)
            plus, minus = (contrast.side(self.hopfield, x, copy) for copy in contrast.shown)
        return State(plus, minus)

    def _still(self) -> Any:
        return frozen_weights(layer.synapse for layer in self.net.chain)

    def _settled(self, x: Tensor, warm: bool) -> Free:
        """The free phase on a batch, from zero or warm, from where the batch before ended it."""
        hopfield, drive = self.hopfield, self.hopfield.drive(x)
        start = self.free.start(x) if warm else []
        states, settled = self.free_phase.run(hopfield, drive, start or hopfield.zeros(x), Copies(len(x), 1))
        return Free(drive, states, hopfield.output(x, states), settled)
