"""Difference target propagation written down literally, with autograd, for one block and for a whole net."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

import dualprop as dp


class Winners(NamedTuple):
    """How a drive was pooled behind the map: the pool, and the drive itself."""

    pool: dp.MaxPool2d | dp.AvgPool2d | None
    drive: Tensor


class TwinBlock:
    """F(p) = f(pool(W p + b)) and G(z) = B unpool(f(z)) + c, by PyTorch's own functions.

    Args:
        layer: what is written down.
        weight: B, of the shape of W.
        bias: c.
    """

    def __init__(self, layer: dp.Layer, weight: Tensor, bias: Tensor | None = None) -> None:
        self.synapse, self.behind, self.f = layer.synapse.core, layer.synapse.behind, layer.potential
        self.weight, self.bias = weight, bias

    def forward(self, p: Tensor) -> tuple[Tensor, Winners]:
        s = self.synapse
        if isinstance(s, dp.Dense):
            a = F.linear(p.flatten(1), s.weight, s.bias)
        else:
            a = F.conv2d(p, s.weight, s.bias, *s.geometry)
        z = self.f(a if self.behind is None else self.behind(a))
        return z, Winners(self.behind, a)

    def backward(self, z: Tensor, winners: Winners, shape: Iterable[int]) -> Tensor:
        """G(z), unpooled at these winners; `shape` is p's."""
        u = self.f(z)
        if isinstance(winners.pool, dp.MaxPool2d):
            pool = winners.pool
            _, where = F.max_pool2d(winners.drive, pool.size, pool.stride, return_indices=True)
            u = F.max_unpool2d(u, where, pool.size, pool.stride, output_size=winners.drive.shape)
        elif winners.pool is not None:
            pool = winners.pool
            u = u.repeat_interleave(pool.size, 2).repeat_interleave(pool.size, 3) / pool.size**2
            assert u.shape == winners.drive.shape
        if isinstance(self.synapse, dp.Dense):
            p = F.linear(u.flatten(1), self.weight.t(), self.bias)
            return p.view(tuple(shape))
        g = self.synapse.geometry
        _, _, height, width = shape
        for rest in range(g.stride):  # the one that gives back the operand's size
            p = F.conv_transpose2d(u, self.weight, self.bias, g.stride, g.padding, rest, g.groups, g.dilation)
            if p.shape[2:] == (height, width):
                return p
        raise AssertionError("no padding of the output fits")


def ldrl(block: TwinBlock, p: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """mean_batch -2 <dx, G(F(p+dx)) - G(F(p))> + |G(F(p)+dy) - G(F(p))|²."""
    z, clean = block.forward(p)
    noisy, wins = block.forward(p + dx)
    r = block.backward(z, clean, p.shape)
    r_x, r_y = block.backward(noisy, wins, p.shape), block.backward(z + dy, clean, p.shape)
    return (-2 * (dx * (r_x - r)).flatten(1).sum(1) + (r_y - r).square().flatten(1).sum(1)).mean()


def reconstruction(block: TwinBlock, p: Tensor, dx: Tensor, _: Tensor) -> Tensor:
    """mean_batch |p + dx - G(F(p+dx))|²."""
    noisy, wins = block.forward(p + dx)
    return (p + dx - block.backward(noisy, wins, p.shape)).square().flatten(1).sum(1).mean()


LOSSES: dict[str, Callable[[TwinBlock, Tensor, Tensor, Tensor], Tensor]] = {
    "l-drl": ldrl,
    "plain": reconstruction,
}


def operand(layer: dp.Layer, z: Tensor) -> Tensor:
    """What the affine map reads of z."""
    pool = layer.synapse.core.pool
    return z if pool is None else pool(z)


def twin_targets(rule: dp.DifferenceTargetProp, x: Tensor, y: Tensor) -> list[Tensor]:
    """t_1 .. t_L by the definition, with the feedback maps as they are."""
    chain = rule.net.chain
    states = [x]
    for layer in chain:
        states.append(layer(states[-1]).detach())
    z = states[-1].clone().requires_grad_()
    loss = rule.loss.value(z, rule.loss.encode(y, z.shape, z.dtype)).sum()
    targets = [states[-1] - rule.beta * torch.autograd.grad(loss, z)[0]]
    for k in range(len(chain), 1, -1):
        layer, g = chain[k - 1], rule.maps[k - 2]
        block = TwinBlock(layer, g.weight.detach(), None if g.bias is None else g.bias.detach())
        below = states[k - 1].clone().requires_grad_()
        p = operand(layer, below)
        winners = block.forward(p.detach())[1]
        change = block.backward(targets[0], winners, p.shape) - block.backward(states[k], winners, p.shape)
        (down,) = torch.autograd.grad(p, below, change) if p.requires_grad else (change,)
        targets.insert(0, states[k - 1] + down.detach())
    return targets


def twin_gradient(rule: dp.DifferenceTargetProp, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of mean_batch Σ_k ½|z_k - t_k|², by each layer's own parameters: what lies below is held."""
    named = {n: p for n, p in rule.net.named_parameters() if not n.endswith("feedback")}
    total, z = x.new_zeros(()), x
    for layer, t in zip(rule.net.chain, twin_targets(rule, x, y), strict=True):
        z = layer(z.detach())
        total = total + 0.5 * (z - t).square().flatten(1).sum(1).mean()
    return dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))
