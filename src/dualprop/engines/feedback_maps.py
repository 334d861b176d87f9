"""Learned feedback maps, from the states of a layer back to what its synapse reads, and what they learn from.

A block k is z_k = f_k(A_k(p)), p the state below or that pooled. Its map is the block reversed: the activation,
unpooling if there is a pool behind the synapse, then the transposed synapse with weights of its own,
G_k(z) = B_k f_k(z) or B_k f_k(z) + c_k. It learns from noise at both ends of its block, one layer at a time.

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
from typing_extensions import override

from dualprop.nets.devices.draws import Draws
from dualprop.nets.net import Layer
from dualprop.nets.potentials import Potential
from dualprop.nets.synapses import AffineMap, Linearisation, Pool, Weighted
from dualprop.registry import Registry


@dataclass(frozen=True)
class Block:
    """One layer in the feed-forward pass, with all that its feedback map and its weights learn from.

    Args:
        synapse: A_k, without the pooling behind it.
        potential: that of its neurons.
        p: what the affine map has read, in the type of the products.
        linearised: what the synapse remembers of the state below.
        behind: the pooling behind the map, if there is any.
        won: what that remembers of the map's drive.
        a: the layer's drive, a leaf of autograd.
        z: the state f_k(a), with a graph that spans this activation alone.
    """

    synapse: AffineMap
    potential: Potential
    p: Tensor
    linearised: Linearisation
    behind: Pool | None
    won: Linearisation | None
    a: Tensor
    z: Tensor

    @classmethod
    def of(cls, layer: Layer, below: Tensor, dtype: torch.dtype) -> Block:
        """The block of a layer that reads the state `below`, its product made in a type."""
        synapse, behind = layer.synapse.core, layer.synapse.behind
        p, linearised = synapse.linearise(below)
        p = p.to(dtype)
        a, won = _pooled(synapse.affine(p), behind)
        a = a.to(below.dtype)
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            z = layer.potential(a)
        return cls(synapse, layer.potential, p, linearised, behind, won, a, z)

    @property
    def state(self) -> Tensor:
        """z without its graph."""
        return self.z.detach()

    def learn(self, error: Tensor) -> None:
        """Add the gradient of Σ_batch <error, z> by the synapse's parameters to their `.grad`; once.

        That is δ p^T with δ = f_k'(a) error, sent through the pooling behind the map.
        """
        (delta,) = torch.autograd.grad(self.z, self.a, error)
        self.synapse.hebbian(self.unpooled(delta, self.won).to(self.p.dtype), self.p)

    def unpooled(self, u: Tensor, won: Linearisation | None) -> Tensor:
        """u from the layer's neurons to where the pooling behind the map has found them."""
        if self.behind is None or won is None:
            return u
        return self.behind.adjoint(u.contiguous(memory_format=won.layout), won)

    @cached_property
    def image(self) -> Tensor:
        """f_k(z), z itself where f_k is a projection."""
        return self.state if self.potential.projects else self.potential(self.state)

    def change(self, t: Tensor, spend: bool = False) -> Tensor:
        """f_k(t) - f_k(z) as the weights of the map read it, in the type of the products.

        Args:
            t: another state of the layer.
            spend: whether it may be written over.
        """
        image = self.potential.over(t) if spend else self.potential(t)
        image = torch.sub(image, self.image, out=image if spend else None)
        return self.unpooled(image, self.won).to(self.p.dtype)

    @cached_property
    def _read(self) -> Tensor:
        return self.unpooled(self.image, self.won)

    def read_of(self, p: Tensor) -> Tensor:
        """What the weights of the map would read had the synapse read p: f_k(f_k(A_k(p))), in new memory."""
        f = self.potential
        a, won = _pooled(self.synapse.affine(p.to(self.p.dtype)), self.behind)
        z = f.over(a.to(self.a.dtype))
        return self.unpooled(z if f.projects else f.over(z), won)

    def change_of(self, p: Tensor) -> Tensor:
        """The same less what they read of the state itself, in the type of the products."""
        return self.read_of(p).sub_(self._read).to(self.p.dtype)


def _pooled(drive: Tensor, pool: Pool | None) -> tuple[Tensor, Linearisation | None]:
    return (drive, None) if pool is None else pool.linearise(drive)


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
        assert isinstance(layer.synapse.core, Weighted), "the rule has let in nothing else"
        self.synapse = layer.synapse.core.redrawn(generator)
        width = self.synapse.width_below
        self.register_parameter("bias", nn.Parameter(self.weight.new_zeros(width)) if biased else None)

    @property
    def weight(self) -> nn.Parameter:
        """B, of the shape of W."""
        return self.synapse.weight

    def linear(self, u: Tensor, block: Block) -> Tensor:
        """B u, of the shape of the block's operand; u in the type of the products."""
        return self.synapse.transposed(u, block.linearised.operand)

    def difference(self, t: Tensor, block: Block) -> Tensor:
        """G(t) - G(z) of the block's state z, sent on through the pool in front to the state below: a product."""
        return self.synapse.adjoint_at(block.change(t), block.linearised).to(t.dtype)

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


class FeedbackLoss(ABC):
    """What a feedback map minimises, by steps that see fresh noise each.

    Attributes:
        biased: whether its maps have a bias c.
    """

    biased: bool

    @abstractmethod
    def gradient(self, g: FeedbackMap, block: Block, noise: Draws) -> Callable[[], Tensor]:
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

    @override
    def gradient(self, g: FeedbackMap, block: Block, noise: Draws) -> Callable[[], Tensor]:
        z, dtype = block.state, block.p.dtype
        dx, dy = noise.like(block.p, z.dtype), noise.like(z, z.dtype)
        u, v = block.change_of(block.p + dx), block.change(dy.add_(z), spend=True)
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

    @override
    def gradient(self, g: FeedbackMap, block: Block, noise: Draws) -> Callable[[], Tensor]:
        dtype, count = block.p.dtype, len(block.p)
        noisy = noise.like(block.p, block.a.dtype).add_(block.p)
        u = block.read_of(noisy).to(dtype)
        r = noisy.sub_(g.shifted(g.linear(u, block).to(noisy.dtype)))
        g.set_grad(g.synapse.outer(u, r.to(dtype)), -2 / count, r)
        return lambda: r.square().sum() / count


FEEDBACK_LOSSES: Registry[FeedbackLoss] = Registry("feedback loss", {"l-drl": LDRL(), "plain": Reconstruction()})
