"""Workers on small nets and batches of double precision, without settings or data sets."""

from __future__ import annotations

import torch

import dualprop as dp
from dualprop.engines.dyads.states import Nudge
from dualprop.training.workers.differences import Derivative, Finite
from dualprop.training.workers.pairs import Pairs
from dualprop.training.workers.worker import Part, Worker
from tests.oracles.builders import double_net, small_conv_net

SIZES = [5, 7, 6, 4, 3]
"""Four layers."""


class Lists:
    """The same batches in every epoch."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def epoch(self, epoch, start=0):
        return iter(self.batches[start:])


def net_of(activation="tanh", seed=0, sizes=SIZES, **kinds):
    return double_net(sizes, activation, seed=seed, **kinds)


def conv_net():
    return small_conv_net("relu")


def batches_of(count=6, size=4, shape=(5,), classes=3, seed=1, last=None):
    generator = torch.Generator().manual_seed(seed)
    sizes = [size] * (count - 1) + [last or size]
    return [
        (
            torch.randn(n, *shape, dtype=torch.float64, generator=generator),
            torch.randint(classes, (n,), generator=generator),
        )
        for n in sizes
    ]


def workers_of(net, batches, way, *, groups=None, loss="mse", alpha=0.5, beta=0.3, lr=0.05, rule="dp", opt=None):
    """A worker for each group of layers, by default for each layer."""
    depth = len(net)
    nudge = Nudge(alpha, (beta,) * depth if isinstance(beta, float) else tuple(beta))
    loss = dp.LOSSES[loss] if isinstance(loss, str) else loss
    opt = opt or (lambda parameters: torch.optim.SGD(parameters, lr=lr))
    made = []
    for first, last in groups or [(k, k) for k in range(1, depth + 1)]:
        part = Part(
            layers=net.stack[first - 1 : last],
            first=first,
            depth=depth,
            shapes=net.shapes(tuple(batches[0][0].shape[1:])),
            dtype=torch.float64,
            batch_size=len(batches[0][0]),
            samples=sum(len(x) for x, _ in batches),
            loss=loss,
            nudge=nudge,
            difference=Finite(loss, nudge) if rule == "dp" else Derivative(loss, depth),
            pairs=Pairs(Lists(batches)),
            optimizer=lambda k, parameters: opt(list(parameters)),
            rate=lambda epoch: lr,
        )
        made.append(Worker(part, way))
    return made


def weights(net):
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def same(net, other):
    return all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
