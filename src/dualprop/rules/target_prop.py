"""Difference target propagation with learned feedback maps.

References:
    Ernoult, Normandin, Moudgil, Spinney, Belilovsky, Rish, Richards, Bengio, *Towards Scaling Difference Target
    Propagation by Learning Backprop Targets*, ICML 2022. Lee, Zhang, Fischer, Bengio, *Difference Target
    Propagation*, ECML 2015.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Unpack

import torch
from torch import Tensor

from dualprop.arguments import CountOrZero, Fraction, In, PerLayer, Positive, Seed, checked, per_layer
from dualprop.engines.feedback_maps import FEEDBACK_LOSSES, Block, FeedbackMap
from dualprop.engines.states import State
from dualprop.errors import DivergenceError, DualpropError
from dualprop.nets.counting import counting
from dualprop.nets.devices.draws import Draws
from dualprop.nets.losses import LossOrName
from dualprop.nets.net import Net
from dualprop.nets.synapses import Weighted, frozen_weights, product_dtype
from dualprop.rules.base import Rule
from dualprop.rules.standing import Channels
from dualprop.rules.step import Step


class DifferenceTargetProp(Rule):
    """Difference target propagation: learned feedback maps carry targets down, and every layer learns its own.

    Each layer k = 2..L has a feedback map G_k(z) = B_k f_k(z), the layer reversed, from its state z_k to the
    operand p_{k-1} of its synapse: z_{k-1}, or that pooled. On each batch of states z_k = f_k(a_k):

    1. G_2 .. G_L learn, one after the other, K_k steps of SGD with momentum and fresh noise each, the weights of
       the net as they are (`dualprop.engines.feedback_maps`);
    2. t_L = z_L - β ∂ℓ/∂z_L, then t_{k-1} = z_{k-1} + P^T (G_k(t_k) - G_k(z_k)), P^T the transpose of the pool in
       front at its winners;
    3. the gradient of the batch mean of Σ_k ½‖z_k - t_k‖² by each layer's own weights, δ_k z_{k-1}^T with
       δ_k = f_k'(a_k) (z_k - t_k).

    As published, the gradient is not divided by β: for small β it is β times back-propagation's where the maps are
    the transposes of their blocks' Jacobians, which is what L-DRL makes of them. Feedback weights that a net has
    of its own ("kolen-pollack") get their gradient, as under every rule, and nothing is sent through them.

    In the published code a block ends with its max-pool, and G unpools: at the winners of the noisy pass in
    G(F(p + dx)), at the clean ones elsewhere. So it does here where a net has pools behind its maps (`Pooled`); a
    max-pool whose winner moves under the noise keeps the maps from the exact transposes, however small the noise.
    A pool in front belongs to the synapse above, whose target comes down through it: losers are noisy too.

    Args:
        net: the net to train, of `Dense` and `Conv2d` synapses.
        loss: a name in `LOSSES` or a `Loss`.
        beta: β, how far the output's target is from the output; positive.
        K: steps of the feedback maps on each batch, at least 0, where the maps stay as they are: one number, or
            one for each layer 2..L.
        sigma: σ, the noise by which they learn, positive: one number, or one for each layer 2..L.
        feedback_lr: their learning rate, positive: one number, or one for each layer 2..L; None for 10⁻³/(σ² P) at
            a layer of P places (the pixels of its map, 1 where it is dense), for the loss is of curvature 2 σ² P.
            The published rates, for their pooled maps, are within a factor of 4 of that.
        feedback_momentum: their momentum, in [0, 1).
        feedback: what they minimise, "l-drl" or "plain" (the reconstruction loss, with biases).
        seed: of their initial weights and of the noise.

    Raises:
        DualpropError: for a value out of range, a list of the wrong length, or a layer that no map is known for.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 6, 3], "tanh")
        >>> rule = dp.DifferenceTargetProp(net, beta=0.1, K=[2, 5], sigma=0.1, feedback_lr=0.05)
        >>> x, y = torch.randn(5, 4), torch.randint(3, (5,))
        >>> step = rule.backward(x, y)
        >>> targets = rule.infer(x, y).plus
        >>> targets[1].shape, sorted(step.measures)
        (torch.Size([5, 8]), ['feedback_loss'])
    """

    differentiates = True
    channelled = frozenset({"states", "drives", "weights"})  # nothing comes down through the net's own weights

    maps: list[FeedbackMap]
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: LossOrName = "mse",
        beta: Positive = 0.7,
        K: PerLayer[CountOrZero] = 5,
        sigma: PerLayer[Positive] = 0.1,
        feedback_lr: PerLayer[Positive] | None = None,
        feedback_momentum: Fraction = 0.9,
        feedback: Annotated[str, In(FEEDBACK_LOSSES)] = "l-drl",
        seed: Seed = 0,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, **channels)
        self.loss.check(net.chain[-1].potential, 0.0)
        reversed_layers = net.chain[1:]
        for k, layer in enumerate(reversed_layers, 2):
            if not isinstance(layer.synapse.core, Weighted):
                kind = type(layer.synapse.core).__name__
                raise DualpropError(f"net: layer {k} ({kind}) has no learned feedback map, only Dense and Conv2d")
        count = len(reversed_layers)
        self.beta = beta
        self.K = per_layer("K", K, count, "feedback maps")
        self.sigma = per_layer("sigma", sigma, count, "feedback maps")
        rates = per_layer("feedback_lr", feedback_lr, count, "feedback maps")
        self._own_rates = feedback_lr is None
        self.feedback = FEEDBACK_LOSSES[feedback]
        generator = torch.Generator().manual_seed(seed)
        maps = [FeedbackMap(layer, generator, biased=self.feedback.biased) for layer in reversed_layers]
        optimizers = [
            torch.optim.SGD(g.parameters(), lr=lr or 0.0, momentum=feedback_momentum)
            for g, lr in zip(maps, rates, strict=True)
        ]
        self.add_state("maps", maps)
        self.add_state("optimizers", optimizers)
        self.add_state("generator", generator)

    def inference(self, x: Tensor, y: Tensor) -> State:
        """The targets of the feedback maps as they are, in `plus`, and the feed-forward states, in `minus`.

        The next `backward` trains the maps before it asks them. The mean is the feed-forward state.

        Arguments as in `Rule.inference`.
        """
        self._follow(x)
        with frozen_weights(layer.synapse for layer in self.net.chain):
            blocks = self._feed_forward(x)
        targets = list(self._targets(blocks, y))
        states = [block.state for block in blocks]
        return State((x, *targets[::-1]), (x, *states), share=0.0)

    def update(self, x: Tensor, y: Tensor) -> Step:
        """Train the maps, then the layers towards their targets; arguments as in `Rule.update`."""
        self._follow(x)
        with frozen_weights(layer.synapse for layer in self.net.chain), counting() as counts:
            blocks = self._feed_forward(x)
            feedback_losses = self._train_maps(blocks)
        output = blocks[-1].state
        loss = self.loss.value(output, y).mean()
        targets = self._targets(blocks, y)
        for block in reversed(blocks):
            with counts:
                target = next(targets)
            block.learn(torch.sub(block.state, target).div_(len(x)))
        mean = {"feedback_loss": sum(feedback_losses) / len(feedback_losses)} if feedback_losses else {}
        return Step(loss, output, counts.total.products, mean)

    def _feed_forward(self, x: Tensor) -> list[Block]:
        """Layers 1..L in the feed-forward pass."""
        blocks: list[Block] = []
        for layer in self.net.chain:
            blocks.append(Block.of(layer, blocks[-1].state if blocks else x, product_dtype(x)))
        return blocks

    def _targets(self, blocks: Sequence[Block], y: Tensor) -> Iterator[Tensor]:
        """t_L .. t_1. Asks the feedback maps alone: a layer may learn as soon as its target is there."""
        output = blocks[-1].state
        target = torch.sub(output, self.loss.gradient(output, y), alpha=self.beta)
        yield target
        for k in range(len(blocks) - 1, 0, -1):
            target = self.maps[k - 1].difference(target, blocks[k]).add_(blocks[k - 1].state)
            yield target

    def _train_maps(self, blocks: Sequence[Block]) -> list[float]:
        """All steps of the feedback maps on one batch; the loss that the last step of each has seen.

        Raises:
            DivergenceError: if a map's loss is no longer finite.
        """
        if not any(self.K):
            return []
        device = blocks[0].a.device
        seed = int(torch.randint(2**62, (), generator=self.generator))  # so that what is kept is of no device
        generator = torch.Generator(device).manual_seed(seed)
        losses: list[Tensor] = []
        layers: list[int] = []
        for k, (g, optimizer) in enumerate(zip(self.maps, self.optimizers, strict=True), 2):
            block, steps = blocks[k - 1], self.K[k - 2]
            noise = Draws(generator, self.sigma[k - 2], in_memory=True)
            if self._own_rates:
                optimizer.param_groups[0]["lr"] = 1e-3 / (noise.sigma**2 * block.z.shape[2:].numel())
            for left in range(steps, 0, -1):
                loss = self.feedback.gradient(g, block, noise)
                if left == 1:
                    losses.append(loss())
                    layers.append(k)
                optimizer.step()
            optimizer.zero_grad()
        numbers: list[float] = torch.stack(losses).tolist()
        for k, number in zip(layers, numbers, strict=True):
            if not math.isfinite(number):
                raise DivergenceError(
                    f"layer {k}: the loss of its feedback map is {number} after {self.K[k - 2]} steps; "
                    "feedback_lr or sigma is too large"
                )
        return numbers

    def _follow(self, x: Tensor) -> None:
        """Bring the maps to the type and device of the net, which the batch has been checked against."""
        for g, optimizer in zip(self.maps, self.optimizers, strict=True):
            if g.weight.dtype != x.dtype or g.weight.device != x.device:
                g.to(x.device, x.dtype)
                optimizer.load_state_dict(optimizer.state_dict())  # its momenta follow their parameters
