"""Learners beside their twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import dualprop as dp
from tests.oracles.builders import double_net
from tests.oracles.stream_twin import StreamTwin

SIZES = (5, 7, 6, 4)


def pair(
    sizes=SIZES,
    f="tanh",
    *,
    delayed=True,
    late=0,
    step: Any = "normalised",
    lr=0.3,
    beta: Any = 0.1,
    alpha=0.5,
    seed=0,
    **settings,
):
    """A learner and its twin, of the same weights."""
    net = double_net(sizes, f, seed=seed)
    depth = len(net)
    betas = [beta] * depth if isinstance(beta, float) else beta
    twin = StreamTwin(
        [layer.synapse.weight.detach().numpy() for layer in net.chain],
        [layer.synapse.bias.detach().numpy() for layer in net.chain],
        f,
        alpha=alpha,
        beta=betas,
        lr=lr,
        delayed=delayed,
        late=late,
        step=step,
    )
    pairing = dp.stream.Delayed(late) if delayed else dp.stream.Present()
    if step == "torch":
        step, lr = torch.optim.SGD(net.parameters(), lr=lr), None
    learner = dp.stream.Learner(net, beta=beta, alpha=alpha, pairing=pairing, step=step, lr=lr, **settings)
    return learner, twin


def frames(n, features=SIZES[0], classes=SIZES[-1], seed=0):
    """n frames and their classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator).tolist()


def agree(learner, twin, tolerance=1e-12):
    """The weights of both are the same, and so are their outputs."""
    for k, layer in enumerate(learner.net.chain, 1):
        for own, theirs in ((layer.synapse.weight, twin.W[k]), (layer.synapse.bias, twin.b[k])):
            np.testing.assert_allclose(own.detach().numpy(), theirs[-1], rtol=tolerance, atol=tolerance)


def close(tensor, array, tolerance=1e-12):
    np.testing.assert_allclose(tensor.detach().numpy(), array, rtol=tolerance, atol=tolerance)
