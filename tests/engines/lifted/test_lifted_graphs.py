"""The lifted objective on graphs, edge by edge: its stationary point, the gradient there, the limit."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dualprop as dp
from dualprop.rules.batch import in_order
from tests.oracles.builders import assert_same, relative_error, slope
from tests.oracles.graph_nets import CYCLIC, batch, drawn_weights, named_net
from tests.oracles.refused import refused

GRAPHS = (
    "diamond",
    "skip",
    "merge",
    "double-edge",
    "shared-weights",
    "two-inputs",
    "two-outputs",
    "identity-alone",
)
TIGHT = {"tolerance": 1e-9, "max_iterations": 2000}
SLOW = pytest.mark.slow
CONJUGATES = {
    "tanh": lambda z, a: (torch.xlogy(1 + z, 1 + z) + torch.xlogy(1 - z, 1 - z)) / 2 + torch.log(torch.cosh(a)),
    "linear": lambda z, a: (z * z + a * a) / 2,
}


def smooth(name: str) -> tuple[dp.Net, object, object]:
    """With tanh for relu."""
    net = named_net(name)
    for layer in net.stack:
        if layer.potential == dp.POTENTIALS["relu"]:
            layer.potential = dp.POTENTIALS["tanh"]
    return net, *batch(net)


def normed() -> tuple[dp.Net, object, object]:
    """A layer norm and a module on edges, beside a skip."""
    g = dp.Graph()
    x = g.input("x")
    h = g.layer("h", {x: dp.Dense(4, 5)}, "tanh")
    i = g.layer("i", {h: dp.Local(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 5))), x: dp.Dense(4, 5)}, "tanh")
    net = drawn_weights(g.net([g.layer("y", {i: dp.Dense(5, 3), h: dp.Dense(5, 3)}, "linear")]))
    generator = torch.Generator().manual_seed(2)
    return net, torch.randn(3, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 2, 1])


def lifted(net: dp.Net, z: Mapping[int, Tensor], y: object, loss: str, beta: list[float], sign: float) -> Tensor:
    """E = s Σ ℓ + Σ_k (1/β_k) (G_k(z_k) + G_k*(a_k) - z_k·a_k), the batch mean."""
    total = 0
    for k, target in zip(net.wiring.outputs, in_order(y), strict=True):
        if loss == "cross_entropy":
            total = total + sign * F.cross_entropy(z[k], target, reduction="sum")
        else:
            total = total + sign * 0.5 * (z[k] - F.one_hot(target, z[k].shape[1])).square().sum()
    for k, layer in enumerate(net.stack, 1):
        edges = zip(net.wiring.edges, net.synapses, strict=True)
        a = sum(synapse(z[source]) for (source, target), synapse in edges if target == k)
        name = next(name for name, p in dp.POTENTIALS.items() if p == layer.potential)
        total = total + (CONJUGATES[name](z[k], a) - z[k] * a).sum() / beta[k - 1]
    return total / len(z[0])


@pytest.mark.parametrize(
    ("loss", "alpha"),
    [
        ("mse", 1),
        ("cross_entropy", 0),
        pytest.param("mse", 0, marks=SLOW),
        pytest.param("cross_entropy", 1, marks=SLOW),
    ],
)
@pytest.mark.parametrize("name", [*GRAPHS, "normed"])
def test_it_learns_the_gradient_of_the_objective_at_its_stationary_point(name: str, loss: str, alpha: int) -> None:
    net, x, y = normed() if name == "normed" else smooth(name)
    beta = [0.15, 0.2, 0.1, 0.25, 0.3][: len(net)]
    rule, sign = dp.LiftedProximal(net, loss=loss, alpha=alpha, beta=beta, **TIGHT), 1.0 if alpha else -1.0
    state = rule.infer(x, y)
    side = state.plus if alpha else state.minus
    inputs = net.inputs(x)
    z = {**inputs, **{k: side[k].clone().requires_grad_() for k in range(1, len(net) + 1)}}
    value = lifted(net, z, y, loss, beta, sign)
    named = dict(net.named_parameters())
    slopes = torch.autograd.grad(value, [*(z[k] for k in range(1, len(net) + 1)), *named.values()])
    states, parameters = slopes[: len(net)], slopes[len(net) :]
    assert max(float(each.abs().max()) for each in states) < 1e-6
    gradient = rule.gradients(x, y)
    assert_same(gradient, {n: sign * g for n, g in zip(named, parameters, strict=True)}, rtol=1e-5)
    step = rule.backward(x, y)
    assert step.measures["objective"] == pytest.approx(sign * float(value.detach()), abs=1e-9)
    assert (step.measures["objective"] <= float(step.loss)) if alpha else (step.measures["objective"] >= step.loss)


@pytest.mark.parametrize("name", ["skip", "two-outputs", "two-inputs"])
def test_its_error_against_back_propagation_is_of_first_order(name: str) -> None:
    net, x, y = smooth(name)
    true, betas = dp.Backprop(net, loss="cross_entropy").gradients(x, y), (0.02, 0.01, 0.005)
    errors = [
        relative_error(dp.LiftedProximal(net, loss="cross_entropy", beta=b, **TIGHT).gradients(x, y), true)
        for b in betas
    ]
    assert slope(betas, errors) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", CYCLIC)
def test_cycles_are_refused(name: str) -> None:
    with refused("^net: edge [a-z]+ -> [a-z]+ closes a cycle, on which LiftedProximal cannot run"):
        dp.LiftedProximal(named_net(name))
