"""The facts of MATHS §8, orders measured as slopes in double precision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dualprop as dp
from dualprop.nets.graph import Node
from tests.oracles.builders import (
    assert_same,
    autograd_gradient,
    double_batch,
    double_net,
    flat,
    gradient_of,
    relative_error,
    slope,
)
from tests.oracles.finite_difference import nudged
from tests.oracles.graph_nets import ACYCLIC, batch, drawn_weights, named_net

SIZES = (6, 9, 8, 4)


class Attention(nn.Module):
    """One head over the tokens of a sample, behind a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(z)).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


def residual() -> tuple[dp.Net, Tensor]:
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Dense(6, 9)}, "tanh")
    i = g.layer("i", {h: dp.Dense(9, 9)}, "tanh")
    j = g.layer("j", {i: dp.Dense(9, 9), h: dp.Identity()}, "tanh")
    net = g.net([g.layer("y", {j: dp.Dense(9, 4)}, "linear")])
    return drawn_weights(net, scale=0.7), double_batch(5, 6, 4)[0]


def reading_its_own_output() -> tuple[dp.Net, Tensor]:
    """A module whose backward pass reads what it has made, which nobody may have written over."""
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Dense(6, 9)}, "tanh")
    i = g.layer("i", {h: dp.Local(nn.Sequential(nn.Linear(9, 9), nn.Tanh()))}, "linear")
    net = g.net([g.layer("y", {i: dp.Local(nn.Sequential(nn.Linear(9, 4), nn.Sigmoid()))}, "linear")])
    return drawn_weights(net, scale=0.7), double_batch(5, 6, 4)[0]


def attention() -> tuple[dp.Net, Tensor]:
    """A pre-norm transformer block of one head on three tokens."""
    g = dp.Graph()
    e = g.layer("e", {g.input("x"): dp.Local(nn.Linear(6, 8))}, "linear")
    t = g.layer("t", {e: dp.Identity()}, "linear")
    g.connect(e, t, dp.Local(Attention(8)))
    m = g.layer("m", {t: dp.Local(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12)))}, "tanh")
    u = g.layer("u", {m: dp.Local(nn.Linear(12, 8)), t: dp.Identity()}, "linear")
    net = g.net([g.layer("y", {u: dp.Dense(24, 4)}, "linear")])
    x = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return drawn_weights(net, scale=0.7), x


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("schedule", [dp.Sweep(), dp.Sweep(3), dp.Parallel()], ids=str)
@pytest.mark.parametrize("build", [residual, reading_its_own_output, attention])
def test_the_error_against_autograd_is_of_second_order(
    build: Callable[[], tuple[dp.Net, Tensor]], schedule: dp.Schedule, loss: str
) -> None:
    net, x = build()
    y, betas = torch.tensor([0, 3, 1, 2, 1]), (0.1, 0.03, 0.01)
    truth = autograd_gradient(net, loss, x, y)
    errors = [
        relative_error(gradient_of(dp.DualProp(net, loss=loss, beta=b, schedule=schedule), x, y), truth)
        for b in betas
    ]
    assert slope(betas, errors) == pytest.approx(2.0, abs=0.05)
    assert errors[-1] < 1e-4


@pytest.mark.parametrize("graph", ["two-outputs", "two-inputs", "double-edge", "shared-weights"])
def test_so_it_is_with_several_inputs_and_outputs(graph: str) -> None:
    """A middle output is nudged by its own loss and by what comes down to it."""
    net, betas = named_net(graph), (0.1, 0.03, 0.01)
    x, y = batch(net, 5)
    truth = dp.Backprop(net, loss="cross_entropy").gradients(x, y)
    assert_same(truth, summed_autograd(net, x, y))
    errors = [relative_error(dp.DualProp(net, loss="cross_entropy", beta=b).gradients(x, y), truth) for b in betas]
    assert slope(betas, errors) == pytest.approx(2.0, abs=0.05)


def summed_autograd(net: dp.Net, x: object, y: object) -> dict[str, Tensor]:
    """The gradient of the outputs' cross-entropies together."""
    outputs, targets = (each if isinstance(each, tuple) else (each,) for each in (net(x), y))
    value = sum(F.cross_entropy(o, t) for o, t in zip(outputs, targets, strict=True))
    named = dict(net.named_parameters())
    return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


def reverse_mode(net: dp.Net, x: object, y: object, alpha: float, beta: float) -> dict[int, Tensor]:
    """z⁺ - z⁻ of every layer by differentiating -β Σ ℓ in reverse mode, a finite difference at every layer."""
    states: dict[int, Tensor] = {}
    drives: dict[int, Tensor] = {}
    for number, each in enumerate(x if isinstance(x, tuple) else (x,)):
        states[-number] = each
    for k, layer in enumerate(net.layers, 1):
        parts = [
            synapse(states[source])
            for (source, target), synapse in zip(net.wiring.edges, net.synapses, strict=True)
            if target == k
        ]
        drives[k] = sum(parts[1:], parts[0]) * 1.0
        drives[k].retain_grad()
        states[k] = nudged(drives[k], layer.potential, alpha, 1 - alpha)
    targets = y if isinstance(y, tuple) else (y,)
    losses = [
        F.cross_entropy(states[k], t, reduction="sum") for k, t in zip(net.wiring.outputs, targets, strict=True)
    ]
    (-beta * sum(losses)).backward()
    net.zero_grad()
    return {k: a.grad for k, a in drives.items()}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("graph", [*ACYCLIC, "residual", "attention"])
def test_one_sweep_is_reverse_mode_with_finite_differences(graph: str, alpha: float) -> None:
    if graph in ACYCLIC:
        net = named_net(graph)
        x, y = batch(net)
    else:
        (net, x), y = {"residual": residual, "attention": attention}[graph](), torch.tensor([0, 3, 1, 2, 1])
    differences = dp.DualProp(net, loss="cross_entropy", alpha=alpha, beta=0.8).infer(x, y).difference
    for k, expected in reverse_mode(net, x, y, alpha, 0.8).items():
        torch.testing.assert_close(differences[k], expected, rtol=1e-11, atol=1e-14)


def layered(kind: str) -> dp.Net:
    """6-9-8-4 with top-down weights T: none, zero, tied to A (symmetric, skew-symmetric), or free."""
    g = dp.Graph()
    nodes: list[Node] = [g.input("x")]
    for k, (below, above) in enumerate(itertools.pairwise(SIZES), 1):
        nodes.append(g.layer(f"h{k}", {nodes[-1]: dp.Dense(below, above)}, "tanh" if k < 3 else "linear"))
    for below, above in ((nodes[1], nodes[2]), (nodes[2], nodes[3])) if kind != "none" else ():
        if kind in ("symmetric", "skew"):
            up = g.edge(below, above)
            g.connect(above, below, dp.Transposed(up, scale=1 if kind == "symmetric" else -1))
        else:
            sizes = SIZES[above.number], SIZES[below.number]
            g.connect(above, below, dp.Dense(*sizes, bias=False))
    net = g.net([nodes[-1]], tolerance=1e-13, damping=0.5 if kind == "skew" else 0.0)
    drawn_weights(net, scale=0.35, seed=1)
    if kind == "zero":
        with torch.no_grad():
            for layer in net.layers:
                for synapse in layer.also.values():
                    synapse.weight.zero_()
    return net


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("alpha", [0.5, 0.25])
def test_without_top_down_weights_it_is_dp_on_the_chain(alpha: float, loss: str) -> None:
    net, chain = layered("zero"), double_net(SIZES)
    chain.load_state_dict({name: p for name, p in net.state_dict().items() if "also" not in name})
    x, y = double_batch(5, 6, 4)
    settings = {"loss": loss, "alpha": alpha, "beta": (0.7, 0.9, 0.5), "schedule": dp.Sweep(4)}
    ours, theirs = dp.DualProp(net, **settings), dp.DualProp(chain, **settings)
    for k in range(1, 4):
        for which in ("plus", "minus"):
            z, expected = (getattr(rule.infer(x, y), which)[k] for rule in (ours, theirs))
            torch.testing.assert_close(z, expected, rtol=1e-14, atol=1e-15)
    gradient, expected = gradient_of(ours, x, y), gradient_of(theirs, x, y)
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=1e-13, atol=1e-15)
    top_down = {name: value for name, value in gradient.items() if name not in expected}
    assert len(top_down) == 2
    assert all(float(value.abs().max()) > 1e-3 for value in top_down.values())  # they learn all the same


def test_tied_pairs_are_centred_equilibrium_propagation_at_half_the_nudge() -> None:
    """Both settled, with the exact step, for which the loss acts at z⁺ and z⁻ each."""
    net, chain = layered("symmetric"), double_net(SIZES)
    chain.load_state_dict({name: p for name, p in net.state_dict().items() if "also" not in name})
    x, y = double_batch(5, 6, 4)
    ours = dp.DualProp(net, loss="mse", beta=0.2, schedule=dp.Sweep(500, tolerance=1e-15))
    steps = {"T1": 500, "T2": 500, "order": "forward", "tolerance": 1e-16}
    theirs = dp.EquilibriumProp(chain, loss="mse", variant="centred", beta=0.1, **steps)
    state, expected = ours.infer(x, y), theirs.infer(x, y)
    for k in range(1, 4):
        torch.testing.assert_close(state.plus[k], expected.plus[k], rtol=0, atol=1e-12)
        torch.testing.assert_close(state.minus[k], expected.minus[k], rtol=0, atol=1e-12)
    gradient, truth = gradient_of(ours, x, y), gradient_of(theirs, x, y)
    assert set(gradient) == set(truth)
    for name, value in truth.items():
        torch.testing.assert_close(gradient[name], value, rtol=0, atol=1e-12)
    torch.testing.assert_close(net(x), ours.predict(x))
    torch.testing.assert_close(net(x), theirs.predict(x), rtol=0, atol=1e-10)


def implicit(net: dp.Net, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean squared error of the fixed point z = F(z), by solving (I - F_zᵀ) λ = ℓ_z."""
    sizes = SIZES[1:]

    def once(z: Tensor, x: Tensor) -> Tensor:
        """All layers at once, from the flat states of the whole batch."""
        states = dict(zip((1, 2, 3), z.split(sizes, 1), strict=True)) | {0: x}
        return torch.cat(
            [
                layer(*(states[source] for source, target in net.wiring.edges if target == k))
                for k, layer in enumerate(net.layers, 1)
            ],
            1,
        )

    z = torch.cat([net.states(x)[k] for k in (1, 2, 3)], 1).detach()
    torch.testing.assert_close(once(z, x), z, rtol=0, atol=1e-11)
    force = torch.zeros_like(z)
    force[:, -sizes[-1] :] = z[:, -sizes[-1] :] - F.one_hot(y, sizes[-1])
    rows = []
    for n in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda s, n=n: once(s[None], x[n : n + 1])[0], z[n])
        rows.append(torch.linalg.solve((torch.eye(len(z[n])).to(z) - jacobian).T, force[n]))
    value = (once(z, x) * torch.stack(rows)).sum() / len(x)
    named = dict(net.named_parameters())
    return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


@pytest.mark.parametrize("loss", ["mse", "mse-linearised"])
@pytest.mark.parametrize("kind", ["none", "symmetric", "skew", "free"])
def test_on_settled_nets_the_error_against_implicit_differentiation_is_of_second_order(
    kind: str, loss: str
) -> None:
    net, betas = layered(kind), (0.4, 0.2, 0.1, 0.05)
    x, y = double_batch(3, 6, 4)
    truth = implicit(net, x, y)
    schedule = dp.Sweep(500, tolerance=1e-12, damping=0.5 if kind == "skew" else 0.0)
    errors = []
    for beta in betas:
        rule = dp.DualProp(net, loss=loss, beta=beta, schedule=schedule)
        errors.append(relative_error(rule.gradients(x, y), truth))
        measures: Mapping[str, float] = rule.backward(x, y).measures
        assert measures["residual"] <= 1e-12
        assert measures["steps"] < 500
    assert slope(betas, errors) == pytest.approx(2.0, abs=0.1)
    assert errors[-1] < 2e-3


def test_the_feedback_of_a_net_that_settles_is_not_that_of_its_feed_forward_edges_alone() -> None:
    """What the second order above would not see in a nearly feed-forward net: T matters here."""
    x, y = double_batch(3, 6, 4)
    net, chain = layered("symmetric"), double_net(SIZES)
    chain.load_state_dict({name: p for name, p in net.state_dict().items() if "also" not in name})
    truth = implicit(net, x, y)
    assert float((flat(autograd_gradient(chain, "mse", x, y)) - flat(truth)).norm() / flat(truth).norm()) > 0.1
