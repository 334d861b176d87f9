"""Recurrent back-propagation: the gradient of the loss at the free equilibrium, by implicit differentiation.

References:
    Almeida, *A learning rule for asynchronous perceptrons with feedback in a combinatorial environment*, 1987.
    Pineda, *Generalization of back-propagation to recurrent neural networks*, Physical Review Letters 1987.
    Scellier, Bengio, *Equivalence of Equilibrium Propagation and Recurrent Backpropagation*, 2019.
"""

from __future__ import annotations

from typing import Any, Unpack

from dualprop.arguments import CountOrZero, Positive, checked
from dualprop.engines.equilibria import Equilibrium, Linearised, OfGraph, OfHopfield
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.states import State
from dualprop.errors import DualpropError
from dualprop.nets.devices.places import QUANTITIES
from dualprop.nets.net import Net
from dualprop.rules.backprop import Backprop
from dualprop.rules.base import AnyLoss, Rule
from dualprop.rules.batch import in_order
from dualprop.rules.standing import Channels
from dualprop.rules.step import Step


class RecurrentBackprop(Rule):
    """The gradient of the batch-mean loss at the free equilibrium z_k = F_k(z), by implicit differentiation.

    ∂ℓ/∂θ + Σ_k λ_k ∂F_k/∂θ, where the multipliers solve λ_k = ∂ℓ/∂z_k + Σ_m λ_m ∂F_m/∂z_k. They are swept down
    through the layers as the states are swept up, each time by vector-Jacobian products of F alone, so memory does
    not grow with the number of sweeps. On a net without cycles one sweep is back-propagation.

    F is that of the net as it is wired. What equilibrium propagation and its kin settle in, a chain with feedback
    through the same weights, is made by `of_hopfield`: their true gradient.

    Args:
        net: the net to train, with cycles or without.
        loss: a name in `LOSSES` or a `Loss`.
        steps: truncated after so many sweeps, 0 or more: with n of them the error turns upward along an edge at
            most n - 1 times, and without any it stays where the loss acts. Until it has settled, by default.
        tolerance: settled are the multipliers once none changes by more than this in a sweep, relatively; the
            states by the net's own.

    Raises:
        DualpropError: for a value out of range.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.RecurrentBackprop(dp.nets.hopfield_mlp([4, 8, 3]), loss="cross_entropy")
        >>> step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> step.output.shape, step.measures["adjoint_steps"] > 1
        (torch.Size([5, 3]), True)
    """

    differentiates = True
    averages = True
    channelled = frozenset(QUANTITIES) - {"feedback_weights"}  # autograd goes down through what it came up by

    graphs = True
    cycles = True

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss = "mse",
        steps: CountOrZero | None = None,
        tolerance: Positive = 1e-6,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, **channels)
        self.steps, self.tolerance = steps, tolerance
        self.equilibrium: Equilibrium = OfGraph(self.net)

    @classmethod
    def of_hopfield(
        cls,
        net: Net,
        hopfield: HopfieldNet,
        *,
        loss: AnyLoss = "mse",
        steps: CountOrZero | None = None,
        tolerance: Positive = 1e-6,
    ) -> RecurrentBackprop:
        """This rule for a chain that settles as a layered Hopfield net.

        Args:
            net: the chain, with symmetric weights.
            hopfield: which of its layers relax, how the output is read out, and the feedback's gain γ.
            loss: as for the class.
            steps: as for the class.
            tolerance: of the multipliers and of the states.

        Example:
            >>> import torch, dualprop as dp
            >>> ep = dp.EquilibriumProp(dp.nets.mlp([4, 8, 3], "sigmoid"), T1=200, T2=200, variant="centred")
            >>> rule = dp.RecurrentBackprop.of_hopfield(ep.net, ep.hopfield)
            >>> x = torch.randn(5, 4)
            >>> torch.allclose(rule.predict(x), ep.predict(x), atol=1e-4)
            True
        """
        rule = cls(net, loss=loss, steps=steps, tolerance=tolerance)
        if net.feedback != "symmetric":
            raise DualpropError(f"net: has {net.feedback} feedback, but a Hopfield net's weights are symmetric")
        rule.equilibrium = OfHopfield(hopfield, net.sweeps, rule.tolerance)
        return rule

    def update(self, x: Any, y: Any) -> Step:
        """The free equilibrium, the multipliers there and the gradient; arguments as in `Rule.update`."""
        z, targets = self.equilibrium.settled(x), in_order(y)
        outputs = self.equilibrium.outputs(z)
        there = Linearised(
            self.equilibrium,
            z,
            lambda said: self.value([o.to(t.dtype) for o, t in zip(said, targets, strict=True)], targets),
        )
        multipliers, steps = there.multipliers(self.steps, self.tolerance)
        there.learn(multipliers)
        return Step(there.loss.detach(), self.net.packed(outputs), measures={"adjoint_steps": float(steps)})

    def inference(self, x: Any, y: Any) -> State:
        """The free states, un-nudged; arguments as in `Rule.inference`."""
        states = self.equilibrium.by_layer(self.equilibrium.settled(x))
        return State(states, states)

    def prediction(self, x: Any) -> Any:
        """The outputs at the free equilibrium; arguments as in `Rule.prediction`."""
        return self.net.packed(self.equilibrium.outputs(self.equilibrium.settled(x)))

    def reference(self) -> Rule:
        """This rule with as many terms as it takes."""
        if isinstance(self.equilibrium, OfHopfield):
            return self.of_hopfield(
                self.net, self.equilibrium.hopfield, loss=self.losses, tolerance=self.tolerance
            )
        return of_net(self.net, self.losses)


def of_net(net: Net, loss: AnyLoss) -> Rule:
    """What gives the gradient of the loss at what `net(x)` says: bp, and rbp on a net with cycles.

    Args:
        net: any.
        loss: as for a rule.

    Example:
        >>> import dualprop as dp
        >>> of_net(dp.nets.mlp([4, 3]), "mse"), of_net(dp.nets.hopfield_mlp([4, 8, 3]), "mse")
        (Backprop(), RecurrentBackprop())
    """
    return RecurrentBackprop(net, loss=loss) if net.wiring.cyclic else Backprop(net, loss=loss)
