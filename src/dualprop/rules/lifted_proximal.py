"""Lifted proximal operator machines: the dyadic objective at α = 1 or α = 0, minimised to a tolerance.

References:
    Li, Fang, Lin, *Lifted Proximal Operator Machines*, AAAI 2019. Zach, *Bilevel Programs Meet Deep Learning*,
    arXiv 2105.07231. Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

from pydantic import Field
from torch import Tensor

from dualprop.arguments import Count, PerLayer, Portion, Positive, checked, per_layer
from dualprop.engines.dyads.states import Nudge
from dualprop.engines.lifted.descent import Descent, Minimum
from dualprop.engines.lifted.objective import Lifted
from dualprop.engines.states import ByLayer, State
from dualprop.errors import DualpropError
from dualprop.nets.counting import counting
from dualprop.nets.net import Net
from dualprop.nets.synapses import frozen_weights
from dualprop.rules.base import AnyLoss, Rule
from dualprop.rules.batch import in_order
from dualprop.rules.standing import Channels
from dualprop.rules.step import Step


class LiftedProximal(Rule):
    """A lifted net with Fenchel-Young penalties, solved by descent for every sample: slow iterative inference.

    On a graph without cycles a_k = Σ_{j→k} A_jk(z_j), and ℓ is the sum of the outputs' losses.

    With D_k(z, a) = G_k(z) + G_k*(a) - z·a >= 0, zero where z = f_k(a), and a_k = A_k(z_{k-1}), inference solves

        α = 1:  L_1 = min_z ℓ(z_L) + Σ_k (1/β_k) D_k(z_k, a_k)   <= the feed-forward loss
        α = 0:  L_0 = max_z ℓ(z_L) - Σ_k (1/β_k) D_k(z_k, a_k)   >= the feed-forward loss

    and by the envelope theorem the gradient of L_α is dual propagation's local rule
    (1/β_k)(z_k^- - z_k^+) z̄_{k-1}^T: at α = 1 with z^+ = z̄ = z and z^- = f_k(a_k), at α = 0 with z^- = z̄ = z and
    z^+ = f_k(a_k). Its error against back-propagation is first order in β. The loss is taken as it is, not
    linearised. See `Descent` for the method.

    Behind max-pools the minimum often has two neurons of a window tie, where the descent rests with its residual
    above the tolerance: on images other pools need far fewer iterations.

    At α = 0 the loss is maximised against the penalties. Squared error on a linear output has no maximum where
    β_L >= 1, which is refused, nor where the layers below can raise it faster than their penalties grow, which the
    descent finds. Cross-entropy, and every other loss that grows at most linearly, has a maximum for every β: the
    penalties grow with the square of z_k - f_k(a_k), since every f here is Lipschitz.

    Args:
        net: the net to train, with symmetric feedback and convex potentials.
        loss: a name in `LOSSES` or a `Loss`, or one for each output.
        alpha: 1 or 0.
        beta: the strength of the nudges, positive: one number, or one for each layer 1..L.
        tolerance: a sample is done when in every layer another update would move z_k by no more than this part of
            z_k - f_k(a_k), which is what the layer learns from: about the gradient's relative error.
        max_iterations: steps tried for a sample, at most.

    Raises:
        DualpropError: for a value out of range, or a net or loss that does not fit.
        DivergenceError: on a batch for which the objective at α = 0 is unbounded.

    Example:
        >>> import torch, dualprop as dp
        >>> rule = dp.LiftedProximal(dp.nets.mlp([4, 8, 3]), loss="mse", beta=0.1)
        >>> step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> step.measures["residual"] <= 1e-3, step.measures["objective"] <= step.loss
        (True, tensor(True))
    """

    differentiates = True
    channelled = frozenset({"states", "weights"})  # its descent asks for drives as often as it likes

    graphs = True

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss = "mse",
        alpha: Annotated[Portion, Field(multiple_of=1)] = 1.0,
        beta: PerLayer[Positive] = 0.1,
        tolerance: Positive = 1e-3,
        max_iterations: Count = 100,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, **channels)
        self.nudge = Nudge(alpha, per_layer("beta", beta, len(net)))
        self.tolerance, self.max_iterations = tolerance, max_iterations
        for k, each in zip(net.wiring.outputs, self.losses, strict=True):
            each.check(net.stack[k - 1].potential, self.nudge.at(k)[1])
        if net.feedback != "symmetric":
            raise DualpropError(
                f"net: its feedback is {net.feedback}, but the descent needs the gradient: feedback='symmetric'"
            )
        for k, layer in enumerate(net.stack, 1):
            if not layer.potential.convex:
                raise DualpropError(f"net: layer {k}'s potential {layer.potential} is not convex")

    def inference(self, x: Any, y: Any) -> State:
        """The minimiser, or at α = 0 the maximiser, beside what the drives alone would make of every layer.

        The mean is that minimiser or maximiser. Arguments as in `Rule.inference`.
        """
        inputs = self.net.inputs(x)
        minimum, _ = self._solved(inputs, y)
        states = [(level.state, level.state - level.rise) for level in minimum.levels]
        lifted, plain = (
            ByLayer.of(
                self.net.wiring, {**inputs, **{k: pair[n].to(inputs[0].dtype) for k, pair in enumerate(states, 1)}}
            )
            for n in (0, 1)
        )
        return State(*((lifted, plain) if self.nudge.alpha else (plain, lifted)), self.nudge.share)

    def update(self, x: Any, y: Any) -> Step:
        """One inference and its gradient; arguments as in `Rule.update`."""
        inputs, wiring, synapses = self.net.inputs(x), self.net.wiring, self.net.synapses
        with counting() as counts:
            minimum, problem = self._solved(inputs, y)
        states = {**inputs, **{k: level.state for k, level in enumerate(minimum.levels, 1)}}
        for k in range(len(self.net), 0, -1):
            scale = -problem.sign / (self.nudge.beta[k - 1] * len(inputs[0]))
            delta = (minimum.levels[k - 1].rise * scale).to(problem.product_dtype)
            for e in wiring.into[k]:
                synapses[e].add_grad(delta, states[wiring.edges[e][0]].to(problem.product_dtype))
        outputs = [output.to(inputs[0].dtype) for output in minimum.outputs]
        measures = {
            "iterations": float(minimum.iterations.double().mean()),
            "most_iterations": float(minimum.iterations.max()),
            "objective": problem.sign * float(minimum.objective.mean()),
            "residual": float(minimum.residual.max()),
        }
        loss = self.value(outputs, in_order(y))
        return Step(loss, self.net.packed(outputs), counts.total.products, measures)

    def _solved(self, inputs: Mapping[int, Tensor], y: Any) -> tuple[Minimum, Lifted]:
        sign = 1.0 if self.nudge.alpha else -1.0
        problem = Lifted(self.net, self.losses, sign, self.nudge.beta, inputs[0])
        targets = [each.to(problem.dtype) for each in in_order(y)]
        with frozen_weights(self.net.synapses):
            return Descent(problem, self.tolerance, self.max_iterations).run(inputs, targets), problem
