"""Learned feedback maps, from the states of a layer back to what its synapse reads, and what they learn from.

A block k is z_k = f_k(A_k(p)), p the state below or that pooled. Its map is the block reversed: the activation,
then the transposed synapse with weights of its own, G_k(z) = B_k f_k(z) or B_k f_k(z) + c_k. It learns from noise
at both ends of its block, one layer at a time.

References:
    Ernoult, Normandin, Moudgil, Spinney, Belilovsky, Rish, Richards, Bengio, *Towards Scaling Difference Target
    Propagation by Learning Backprop Targets*, ICML 2022 (L-DRL). Lee, Zhang, Fischer, Bengio, *Difference Target
    Propagation*, ECML 2015 (reconstruction).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from dualprop.net import Layer
from dualprop.potentials import Potential
from dualprop.registry import Registry
from dualprop.synapses import Seen, Synapse, Weighted, layout


@dataclass(frozen=True)
class Block:
    """One layer in the feed-forward pass, with all that its feedback map and its weights learn from.

    Args:
        synapse: A_k.
        potential: that of its neurons.
        p: what the affine map has read, in the type of the products.
        seen: what the synapse remembers of the state below.
        a: the drive A_k(p), a leaf of autograd.
        z: the state f_k(a), with a graph that spans this activation alone.
    """

    synapse: Synapse
    potential: Potential
    p: Tensor
    seen: Seen
    a: Tensor
    z: Tensor

    @classmethod
    def of(cls, layer: Layer, below: Tensor, dtype: torch.dtype) -> Block:
        """The block of a layer that reads the state `below`, its product made in a type."""
        synapse = layer.synapse
        p, seen = synapse.see(below)
        p = p.to(dtype)
        a = synapse.affine(p).to(below.dtype)
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            z = layer.potential(a)
        return cls(synapse, layer.potential, p, seen, a, z)

    @property
    def state(self) -> Tensor:
        """z without its graph."""
        return self.z.detach()

    def pulled_back(self, error: Tensor) -> Tensor:
        """f_k'(a) error, the transposed derivative of the activation; of the shape of z. It can be asked once."""
        (delta,) = torch.autograd.grad(self.z, self.a, error)
        return delta

    @cached_property
    def read(self) -> Tensor:
        """f_k(z), what the weights of the map read of the state; z itself where f_k is a projection."""
        return self.state if self.potential.projects else self.potential(self.state)

    def read_of(self, p: Tensor) -> Tensor:
        """f_k(f_k(A_k(p))), what they would read had the synapse read p; in new memory."""
        f = self.potential
        z = f.over(self.synapse.affine(p.to(self.p.dtype)).to(self.a.dtype))
        return z if f.projects else f.over(z)


class FeedbackMap(nn.Module):
    """G(z) = B f(z) + c, from the state z of a layer to what its synapse reads.

    Args:
        layer: whose synapse has a tensor of weights W.
        generator: where B comes from, as W did; c is zero at first.
        biased: whether there is a c, one number for each neuron or channel that the synapse reads.

    Attributes:
        synapse: the layer's with weights B in place of W, and no bias: its transpose is the map's linear part.
        bias: c, or None.
    """

    bias: nn.Parameter | None

    def __init__(self, layer: Layer, generator: torch.Generator, *, biased: bool) -> None:
        super().__init__()
        assert isinstance(layer.synapse, Weighted), "the rule has let in nothing else"
        self.synapse = layer.synapse.redrawn(generator)
        width = layer.synapse.width_below
        self.register_parameter("bias", nn.Parameter(self.weight.new_zeros(width)) if biased else None)

    @property
    def weight(self) -> nn.Parameter:
        """B, of the shape of W."""
        return self.synapse.weight

    def linear(self, u: Tensor, block: Block) -> Tensor:
        """B u, of the shape of the block's operand, in the type of the products."""
        return self.synapse.transposed(u.to(block.p.dtype), block.seen.operand)

    def difference(self, t: Tensor, block: Block) -> Tensor:
        """G(t) - G(z) of the block's state z, sent on through the pool in front to the state below: a product."""
        change = (block.potential(t) - block.read).to(block.p.dtype)
        return self.synapse.send_down(change, block.seen).to(t.dtype)

    def shifted(self, p: Tensor) -> Tensor:
        """p + c."""
        if self.bias is None:
            return p
        shifted: Tensor = p.reshape(len(p), len(self.bias), -1) + self.bias[:, None]
        return shifted.view(p.shape)

    def set_grad(self, weight: Tensor, scale: float, error: Tensor | None = None) -> None:
        """Make `scale` times these the gradients of B and, summed over the batch and all places, of c."""
        self.weight.grad = weight.to(self.weight.dtype).mul_(scale)
        if self.bias is not None and error is not None:
            total = error.reshape(len(error), len(self.bias), -1).sum((0, 2))
            self.bias.grad = total.to(self.bias.dtype).mul_(scale)


class Noise:
    """Normal noise from a generator, drawn in float32 whatever the precision, so that all of them see the same.

    Args:
        generator: on the device of the noise.
        sigma: σ, its standard deviation.
    """

    def __init__(self, generator: torch.Generator, sigma: float) -> None:
        self.generator, self.sigma = generator, sigma

    def like(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """σ N(0, I) of the shape and layout of z, in a type."""
        last = layout(z) == torch.channels_last  # drawn as it lies in memory: ten times as fast
        shape = z.permute(0, 2, 3, 1).shape if last else z.shape
        noise = torch.empty(shape, device=self.generator.device)
        noise = noise.normal_(0, self.sigma, generator=self.generator).to(dtype)
        return noise.permute(0, 3, 1, 2) if last else noise


class FeedbackLoss(ABC):
    """What a feedback map minimises, by steps that see fresh noise each.

    Attributes:
        biased: whether its maps have a bias c.
        products: matrix products of a step.
    """

    biased: bool
    products: int

    @abstractmethod
    def gradient(self, g: FeedbackMap, block: Block, noise: Noise) -> Callable[[], Tensor]:
        """Draw noise and put the gradient of the batch's mean loss into the `.grad` of the map's parameters.

        Args:
            g: the map.
            block: its block, whose weights stand still.
            noise: σ N(0, I).

        Returns:
            What computes that mean loss, a tensor without dimensions, as long as g has not been stepped.
        """


class LDRL(FeedbackLoss):
    """The local difference reconstruction loss, L = -2 <dx, G(F(p + dx)) - G(z)> + |G(z + dy) - G(z)|².

    dx and dy are σ N(0, I) of the shapes of p and z. For small σ it is least where G' = F'^T, so that difference
    targets are those of back-propagation [Ernoult et al. 2022]. As G is affine after the activation,
    L = -2 <dx, B u> + |B v|² with u = f(F(p + dx)) - f(z) and v = f(z + dy) - f(z), and its gradient by B is
    2 (B v) v^T - 2 dx u^T: four products.
    """

    biased = False
    products = 4

    def gradient(self, g: FeedbackMap, block: Block, noise: Noise) -> Callable[[], Tensor]:
        """See `FeedbackLoss.gradient`."""
        z, dtype = block.state, block.p.dtype
        dx, dy = noise.like(block.p, z.dtype), noise.like(z, z.dtype)
        u = block.read_of(block.p + dx).sub_(block.read).to(dtype)
        v = block.potential.over(dy.add_(z)).sub_(block.read).to(dtype)
        sent = g.linear(v, block)
        outer = g.synapse.outer
        g.set_grad(outer(v, sent).to(g.weight.dtype).sub_(outer(u, dx.to(dtype))), 2 / len(z))

        def value() -> Tensor:
            assert g.weight.grad is not None
            return (g.weight.grad * g.weight).sum() - sent.to(z.dtype).square().sum() / len(z)

        return value


class Reconstruction(FeedbackLoss):
    """The reconstruction loss of plain difference target propagation, L = |p + dx - G(F(p + dx))|².

    dx is σ N(0, I) of the shape of p [Lee et al. 2015]. With r = p + dx - G(F(p + dx)) its gradient
    by B is -2 r f(F(p + dx))^T and that by c is -2 r: three products.
    """

    biased = True
    products = 3

    def gradient(self, g: FeedbackMap, block: Block, noise: Noise) -> Callable[[], Tensor]:
        """See `FeedbackLoss.gradient`."""
        dtype, count = block.p.dtype, len(block.p)
        noisy = noise.like(block.p, block.a.dtype).add_(block.p)
        u = block.read_of(noisy).to(dtype)
        r = noisy.sub_(g.shifted(g.linear(u, block).to(noisy.dtype)))
        g.set_grad(g.synapse.outer(u, r.to(dtype)), -2 / count, r)
        return lambda: r.square().sum() / count


FEEDBACK_LOSSES: Registry[FeedbackLoss] = Registry("feedback", {"l-drl": LDRL(), "plain": Reconstruction()})
