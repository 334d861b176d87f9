"""What energy-based rules share: a free phase that predicts, phases with a target, a contrast that learns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Unpack

import torch
from torch import Tensor

from dualprop.arguments import Count, In, NotNegative, Seed, checked
from dualprop.engines.hopfield.contrasts import Contrasting
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.phases import Free, Phase
from dualprop.engines.hopfield.relaxation import ORDERS
from dualprop.engines.slots import Slots
from dualprop.engines.states import ByLayer, State
from dualprop.errors import DualpropError
from dualprop.nets.counting import counting
from dualprop.nets.losses import Loss
from dualprop.nets.net import Net
from dualprop.nets.potentials import Linear
from dualprop.nets.synapses import Local, frozen_weights
from dualprop.rules.base import AnyLoss, Rule
from dualprop.rules.batch import in_order
from dualprop.rules.recurrent_backprop import RecurrentBackprop
from dualprop.rules.standing import Channels
from dualprop.rules.step import Step

Order = Annotated[str, In(ORDERS)]
"""Of the updates in a step, by name."""


class Relaxing(Rule):
    """A rule whose states relax: first freely, which is its prediction, then under the target's influence.

    Which net relaxes, and which of its settled states are contrasted, are values that a method is composed of (see
    `compose`). Every edge is a term of the net's energy, felt at both ends (see `HopfieldNet`).

    The free phase starts at zero, or warm, where the batch before left the same slots (see `Slots`).

    Products follow autocast. What is learnt from are differences between nearby states, which shrink from layer to
    layer on the way down: in bfloat16 those of a deep net drown in rounding unless the nudge is strong.

    Args:
        net: the net to train.
        loss: a name in `LOSSES` or a `Loss`, or one for each output.
        T1: steps of the free phase, at least 1.
        T2: steps of each phase with a target, at least 1.
        order: of the updates in a step, a name in `ORDERS`.
        warm: whether the free phase starts where the batch before ended it.
        tolerance: a phase ends early once no state moves by more than this in a step; at 0 where none moves.
        seed: of whatever the rule draws.
    """

    graphs = True
    cycles = True

    still = 0.1
    """The most that a state may move by in the last step of a free phase and not be warned of."""
    remedy = "more steps"
    _moved = False

    generator: torch.Generator
    free: Slots

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss,
        T1: Count,
        T2: Count,
        order: Order,
        warm: bool,
        tolerance: NotNegative,
        seed: Seed = 0,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, **channels)
        self.T1, self.T2, self.warm, self.tolerance = T1, T2, warm, tolerance
        for k, each in self.by_output.items():
            each.check(net.stack[k - 1].potential, 0.0)
        self.order = order
        self.add_state("generator", torch.Generator().manual_seed(seed))

    @property
    def by_output(self) -> dict[int, Loss]:
        """The losses, by the outputs' numbers."""
        return dict(zip(self.net.wiring.outputs, self.losses, strict=True))

    @property
    def logits(self) -> frozenset[int]:
        """The outputs that a loss takes the drives of: those that drive nothing, with a loss of logits.

        A layer that drives others is a state for every loss.

        Raises:
            DualpropError: if one is not linear.
        """
        net, out_of = self.net, self.net.wiring.out_of
        logits = [k for k, each in self.by_output.items() if each.link is not None and not out_of[k]]
        for k in logits:
            if net.stack[k - 1].potential != Linear():
                raise DualpropError(
                    f"net: the last layer reads out logits for this loss, so {net.wiring.name(k)} must be linear"
                )
        return frozenset(logits)

    def compose(self, hopfield: HopfieldNet, contrast: Contrasting) -> None:
        """Say what the method is made of: the last line of its constructor.

        Args:
            hopfield: the net as it relaxes.
            contrast: makes the settled states that it learns from.
        """
        self.hopfield, self.contrast = hopfield, contrast
        self.free_phase = self.phase("free", self.T1, hopfield)
        if self.warm:
            self.add_state("free", Slots(self.net, list(hopfield.potentials)))

    def reference(self) -> Rule | None:
        """Recurrent back-propagation through the free equilibrium; None with feedback weights other than Wᵀ."""
        if self.net.feedback != "symmetric":
            return None
        return RecurrentBackprop.of_hopfield(self.net, self.hopfield, loss=self.losses)

    def phase(self, name: str, steps: int, hopfield: HopfieldNet) -> Phase:
        """A phase of this net in this rule's order, to its tolerance."""
        return Phase(name, steps, ORDERS[self.order](hopfield.neighbours), self.tolerance)

    def prediction(self, x: Any) -> Any:
        """The output at the end of the free phase, from zero; arguments as in `Rule.prediction`."""
        with frozen_weights(self.net.synapses):
            return self._packed(self._settled(x, warm=False))

    def update(self, x: Any, y: Any) -> Step:
        """Both kinds of phases, and the contrast of where they end; arguments as in `Rule.update`."""
        with frozen_weights(self.net.synapses), counting(batch=len(in_order(x)[0])) as counts:
            free = self._settled(x, self.warm)
            contrast = self.contrast(self._targets(y), free, self.generator)
        if self.warm:
            self.free.keep(list(free.states.values()))
        self._warn_of_motion(free.settled.residual)
        with torch.autocast(free.inputs[0].device.type, enabled=False):  # a contrast of nearby states: in full
            contrast.learn(self.hopfield, free.inputs)
        measures = {
            "free_steps": float(free.settled.steps),
            "free_residual": free.settled.residual,
            "nudged_steps": float(contrast.settled.steps),
            "nudged_residual": contrast.settled.residual,
        }
        loss = self.value(list(free.outputs.values()), in_order(y))
        return Step(loss, self._packed(free), counts.total.products, measures)

    def inference(self, x: Any, y: Any) -> State:
        """Two of the states that are contrasted, as plus and minus, at the end of their phases.

        A read-out outside the dynamics has a state here, too: what it says. Arguments as in `Rule.inference`.
        """
        with frozen_weights(self.net.synapses):
            free = self._settled(x, self.warm)
            contrast = self.contrast(self._targets(y), free, self.generator)
            plus, minus = (contrast.side(self.hopfield, free.inputs, copy) for copy in contrast.shown)
        return State(ByLayer.of(self.net.wiring, plus), ByLayer.of(self.net.wiring, minus))

    def _warn_of_motion(self, residual: float) -> None:
        """Say, the first time, that a free phase has not settled, and what may be the reason."""
        if self._moved or residual <= self.still:
            return
        self._moved = True
        net = self.net
        bent = (net.wiring.arrow(e) for e, synapse in enumerate(net.synapses) if isinstance(synapse, Local))
        why = next(
            (f"; where an edge is no affine map, as {arrow}, it need not settle at all" for arrow in bent), ""
        )
        warnings.warn(
            f"T1={self.T1}: the free phase has not settled, its states still move by {residual:.2g} in a step, "
            f"which spoils the gradient; give it {self.remedy}{why}",
            stacklevel=2,
        )

    def _targets(self, y: Any) -> Mapping[int, Tensor]:
        return dict(zip(self.net.wiring.outputs, in_order(y), strict=True))

    def _packed(self, free: Free) -> Any:
        return self.net.packed(list(free.outputs.values()))

    def _settled(self, x: Any, warm: bool) -> Free:
        """The free phase on a batch, from zero or warm, from where the batch before ended it."""
        hopfield, inputs = self.hopfield, self.net.inputs(x)
        hopfield.check_parts()
        drives, start = hopfield.drives(inputs), hopfield.zeros(inputs)
        kept = self.free.start(*inputs.values()) if warm else []
        if kept:
            start = dict(zip(start, kept, strict=True))
        states, settled = self.free_phase.run(hopfield, drives, start, Copies(len(inputs[0]), 1))
        said = hopfield.says({**inputs, **states})
        return Free(inputs, drives, states, dict(zip(self.net.wiring.outputs, said, strict=True)), settled)
