"""Lifted proximal operator machines: the dyadic objective at α = 1 or α = 0, minimised to a tolerance.

References:
    Li, Fang, Lin, *Lifted Proximal Operator Machines*, AAAI 2019. Zach, *Bilevel Programs Meet Deep Learning*,
    arXiv 2105.07231. Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from dualprop.arguments import Count, PerLayer, Portion, Positive, checked, per_layer
from dualprop.engines.dyads.states import Nudge
from dualprop.engines.lifted.descent import Descent, Minimum
from dualprop.engines.lifted.objective import Lifted
from dualprop.engines.states import State
from dualprop.errors import DualpropError
from dualprop.nets.counting import counting
from dualprop.nets.losses import LossOrName
from dualprop.nets.net import Net
from dualprop.nets.synapses import frozen_weights
from dualprop.rules.base import Rule, Step


class LiftedProximal(Rule):
    """A lifted net with Fenchel-Young penalties, solved by descent for every sample: slow iterative inference.

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
        loss: a name in `LOSSES` or a `Loss`.
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

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: LossOrName = "mse",
        alpha: Annotated[Portion, Field(multiple_of=1)] = 1.0,
        beta: PerLayer[Positive] = 0.1,
        tolerance: Positive = 1e-3,
        max_iterations: Count = 100,
    ) -> None:
        super().__init__(net, loss=loss)
        self.nudge = Nudge(alpha, per_layer("beta", beta, len(net)))
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.loss.check(net.chain[-1].potential, self.nudge.at(len(net))[1])
        if net.feedback != "symmetric":
            raise DualpropError(
                f"net: its feedback is {net.feedback}, but the descent needs the gradient: feedback='symmetric'"
            )
        for k, layer in enumerate(net.chain, 1):
            if not layer.potential.convex:
                raise DualpropError(f"net: layer {k}'s potential {layer.potential} is not convex")

    def inference(self, x: Tensor, y: Tensor) -> State:
        """The minimiser, or at α = 0 the maximiser, beside what the drives alone would make of every layer.

        The mean is that minimiser or maximiser. Arguments as in `Rule.inference`.
        """
        minimum, _ = self._solved(x, y)
        lifted = (x, *(level.state.to(x.dtype) for level in minimum.levels))
        plain = (x, *((level.state - level.rise).to(x.dtype) for level in minimum.levels))
        return State(*((lifted, plain) if self.nudge.alpha else (plain, lifted)), self.nudge.share)

    def update(self, x: Tensor, y: Tensor) -> Step:
        """One inference and its gradient; arguments as in `Rule.update`."""
        with counting() as counts:
            minimum, problem = self._solved(x, y)
        below = [x, *(level.state for level in minimum.levels)]
        for k in range(len(self.net), 0, -1):
            scale = -problem.sign / (self.nudge.beta[k - 1] * len(x))
            delta = (minimum.levels[k - 1].rise * scale).to(problem.product_dtype)
            self.net.chain[k - 1].synapse.add_grad(delta, below[k - 1].to(problem.product_dtype))
        output = minimum.output.to(x.dtype)
        measures = {
            "iterations": float(minimum.iterations.double().mean()),
            "most_iterations": float(minimum.iterations.max()),
            "objective": problem.sign * float(minimum.objective.mean()),
            "residual": float(minimum.residual.max()),
        }
        return Step(self.loss.value(output, y).mean(), output, counts.total.products, measures)

    def _solved(self, x: Tensor, y: Tensor) -> tuple[Minimum, Lifted]:
        sign = 1.0 if self.nudge.alpha else -1.0
        problem = Lifted(self.net, self.loss, sign, self.nudge.beta, x)
        with frozen_weights(layer.synapse for layer in self.net.chain):
            return Descent(problem, self.tolerance, self.max_iterations).run(x, y.to(problem.dtype)), problem
