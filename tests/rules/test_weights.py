"""What a weight is: a parameter, or made of parameters by a parametrization or mask, or used by several layers."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import dualprop as dp
from tests.oracles.builders import double_batch, double_net, gradient_of, image_batch, image_net, suited

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")


class Scaled(nn.Module):
    """A parametrization of one's own: s V, with s of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, weight):
        return self.scale * weight


def _mask(module):
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(module.weight.shape, generator=generator) > 0.4).double()
    prune.custom_from_mask(module, "weight", mask)


def _old(norm):
    def apply(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            norm(module)

    return apply


KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": lambda module: parametrize.register_parametrization(module, "weight", Scaled()),
    "bias": lambda module: parametrize.register_parametrization(module, "bias", Scaled()),
    "prune": _mask,
    "weight_norm by a hook": _old(nn.utils.weight_norm),
    "spectral_norm by a hook": _old(nn.utils.spectral_norm),
}
LAYERS = (0, 1, 2)


def dense(method):
    return double_net((6, 7, 5, 4), **suited(method, "tanh")), double_batch(5, 6, 4)


def conv(method):
    own = {"feedback": method.feedback}
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 3, 3, padding=1, pool=dp.POOLS[method.pool](2), **own),
        dp.Pooled(dp.Conv2d(3, 4, 2, **own), dp.AvgPool2d(1)),
        dp.Dense(4, 3, **own),
    ]
    return image_net(synapses, suited(method, "tanh")["activation"]), image_batch(3, (2, 4, 4))


def applied(net, kind, layers=LAYERS):
    """The net with its layers parametrised; those below keep their first one plain."""
    for k in layers:
        KINDS[kind](net.chain[k].synapse.core)
    return net.double()


def weights_of(net):
    """(W, b) of each layer as the next step will read them, with autograd's graph; moves no vectors of `net`."""
    read = copy.deepcopy(dict(net.named_buffers()))
    made = []
    for layer in net.chain:
        synapse = layer.synapse.core
        for hook in synapse._forward_pre_hooks.values():
            hook(synapse, ())
        made.append((synapse.weight, synapse.bias))
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if not torch.equal(buffer, read[name]):
                buffer.copy_(read[name])
    return made


def plain_twin(net, plain, made):
    with torch.no_grad():
        for layer, (weight, bias) in zip(plain.chain, made, strict=True):
            layer.synapse.core.weight.copy_(weight)
            layer.synapse.core.bias.copy_(bias)
    return plain


SYMMETRIC = [name for name, method in dp.RULES.items() if method.feedback == "symmetric"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("make", [dense, conv])
def test_the_gradient_goes_on_to_what_a_weight_is_made_of(make, name, kind):
    """∂/∂W of a net with the same W as plain parameters, times ∂W/∂(what it is made of) by autograd."""
    method = dp.RULES[name]
    net, (x, y) = make(method)
    plain = copy.deepcopy(net)
    applied(net, kind)
    made = weights_of(net)
    plain_twin(net, plain, made)
    by_weight = gradient_of(method(plain), x, y)
    pairs = [
        (weight, by_weight[f"{at}.{which}"])
        for k, own in enumerate(made)
        for at in [next(n for n in by_weight if n.startswith(f"layers.{k}.") and n.endswith("bias"))[:-5]]
        for which, weight in zip(("weight", "bias"), own, strict=True)
    ]
    named = {n: p for n, p in net.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(
        [weight for weight, _ in pairs], list(named.values()), [g for _, g in pairs], allow_unused=True
    )
    ours = gradient_of(method(net), x, y)
    assert set(ours) == set(named)
    for (n, _), theirs in zip(named.items(), expected, strict=True):
        torch.testing.assert_close(ours[n], theirs, rtol=1e-9, atol=1e-13, msg=n)
