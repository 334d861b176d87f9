"""On graphs whose edges are an energy's terms, EP, holomorphic EP and CHL take every step of the slow twin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dualprop as dp
from dualprop.rules.batch import in_order
from tests.oracles.builders import assert_same, gradient_of
from tests.oracles.graph_nets import ENERGIES, batch, drawn_weights, named_net, with_symmetric_loops
from tests.oracles.hopfield_graph_twin import HopfieldGraph
from tests.oracles.hopfield_twin import ORDERS

pytestmark = [
    pytest.mark.filterwarnings("ignore:layers"),  # not every drawn graph leads every layer to an output
    pytest.mark.filterwarnings("ignore:T1="),  # what a step computes, settled or not
]

Batch = tuple[dp.Net, object, object]
T1, T2 = 4, 3  # few steps: nothing has settled


def images() -> Batch:
    """A strided and a pooled convolution, a pooled skip, a transposed convolution back down, a loop."""
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Conv2d(2, 3, 3, padding=1)}, "tanh")
    i = g.layer("i", {h: dp.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)}, "tanh")
    g.connect(i, h, dp.Transposed(g.edge(h, i)))
    g.connect(i, i, dp.Conv2d(4, 4, 3, padding=1))
    skip = dp.Pooled(dp.Conv2d(3, 5, 3, padding=1, pool=dp.AvgPool2d(2)), dp.SoftmaxPool2d(2))
    j = g.layer("j", {i: dp.Conv2d(4, 5, 1, pool=dp.AvgPool2d(2)), h: skip}, "tanh")
    net = drawn_weights(g.net([g.layer("y", {j: dp.Dense(5, 3)}, "linear")]), scale=0.4)
    loop = net.synapses[[source == target for source, target in net.wiring.edges].index(True)]
    with torch.no_grad():
        turned = loop.weight.transpose(0, 1).flip(-1, -2)
        loop.weight.copy_((loop.weight + turned) / 2)
    generator = torch.Generator().manual_seed(3)
    return net, torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 2, 1])


def normed() -> Batch:
    """A layer norm and a module of two layers on edges, beside a skip."""
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Local(nn.Linear(4, 5))}, "tanh")
    i = g.layer("i", {h: dp.Local(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 5), nn.Tanh()))}, "tanh")
    j = g.layer("j", {i: dp.Local(nn.Identity()), h: dp.Identity()}, "tanh")
    net = drawn_weights(g.net([g.layer("y", {j: dp.Dense(5, 3)}, "linear")]))
    return net, *batch_of(4, 3)


def batch_of(features: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, features, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (3,), generator=generator)


def graph(name: str, scale: float = 0.6) -> Batch:
    if name in ("images", "normed"):
        return {"images": images, "normed": normed}[name]()
    net = named_net(name, scale=scale)
    return net, *batch(net)


GRAPHS = [*ENERGIES, "images", "normed"]
HOLOMORPHIC = ["skip", "merge", "two-inputs", "tied-skip", "tied-outputs", "autoencoder", "images"]  # no relu
CLAMPABLE = [name for name in GRAPHS if name not in ("two-outputs", "ring", "tied-outputs")]
RULES: dict[str, tuple[Callable[..., dp.Rule], Callable[..., dict[str, Tensor]]]] = {
    "positive": (
        lambda net, **s: dp.EquilibriumProp(net, beta=0.3, **s),
        lambda twin, free: twin.ep(free, T2, 0.3, 0.0),
    ),
    "centred": (
        lambda net, **s: dp.EquilibriumProp(net, variant="centred", beta=0.3, **s),
        lambda twin, free: twin.ep(free, T2, 0.3, -0.3),
    ),
    "hep": (
        lambda net, **s: dp.HolomorphicEP(net, beta=0.3, N=4, **s),
        lambda twin, free: twin.hep(free, T2, 0.3, 4),
    ),
    "chl": (
        lambda net, **s: dp.ContrastiveHebbian(net, gamma=0.4, beta=0.7, **s),
        lambda twin, free: twin.chl(free, T2, 0.7),
    ),
}


def twin_of(rule: str, net: dp.Net, x: object, y: object, losses: list[str], order: str) -> HopfieldGraph:
    sizes = [z.shape[1] for z in in_order(net_outputs(net, x))]
    targets = [torch.eye(n, dtype=torch.float64)[t] for n, t in zip(sizes, in_order(y), strict=True)]
    clamping = {"gamma": 0.4, "clamps": True} if rule == "chl" else {}
    return HopfieldGraph(net, in_order(x), targets, losses, order=order, **clamping)


def net_outputs(net: dp.Net, x: object) -> object:
    """Of the right shapes."""
    shapes = net.state_shapes([tuple(each.shape[1:]) for each in in_order(x)])
    return tuple(torch.zeros(1, *shapes[k]) for k in net.wiring.outputs)


def beside_twin(name: str, case: Batch, losses: list[str], order: str) -> None:
    net, x, y = case
    make, learn = RULES[name]
    rule = make(net, loss=losses, T1=T1, T2=T2, order=order)
    twin = twin_of(name, net, x, y, losses, order)
    free = twin.run(twin.zeros(), T1)
    assert_same(gradient_of(rule, x, y), learn(twin, free), rtol=1e-11)
    for ours, k in zip(in_order(rule.predict(x)), net.wiring.outputs, strict=True):
        torch.testing.assert_close(ours, twin.said(k, free).detach(), rtol=1e-12, atol=1e-12)


CASES = [
    (rule, name, loss)
    for rule, names in (("positive", GRAPHS), ("centred", GRAPHS), ("hep", HOLOMORPHIC), ("chl", CLAMPABLE))
    for name in names
    for loss in ("mse", "cross_entropy")
    if (name, loss) != ("outputs-out-of-order", "cross_entropy")  # one of them is not linear
]


def step_by_step(rule: str, name: str, loss: str, order: str) -> None:
    case = graph(name)
    beside_twin(rule, case, [loss] * len(case[0].wiring.outputs), order)


@pytest.mark.parametrize(
    ("rule", "name", "loss", "order"),
    [(*case, order) for case, order in zip(CASES, itertools.cycle(ORDERS), strict=False)],
)
def test_named_graphs_step_by_step(rule: str, name: str, loss: str, order: str) -> None:
    """One order each, in turn."""
    step_by_step(rule, name, loss, order)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("rule", "name", "loss"), CASES)
def test_named_graphs_in_every_order(rule: str, name: str, loss: str, order: str) -> None:
    step_by_step(rule, name, loss, order)


def test_a_loss_for_each_output() -> None:
    """One of states, one of logits: of three layers the second is a read-out, and the last a state."""
    case = graph("outputs-out-of-order")
    (net, x, y) = case
    with torch.no_grad():
        object.__setattr__(net.layers[1], "potential", dp.POTENTIALS["linear"])
    beside_twin("centred", case, ["mse", "cross_entropy"], "even-odd")
    rule = dp.EquilibriumProp(net, loss=["mse", "cross_entropy"], T1=T1, T2=T2, warm=True, beta=0.3)
    state = rule.infer(x, y)
    assert list(rule.hopfield.potentials) == [1, 3]
    torch.testing.assert_close(state.minus["o"], net.layers[1].synapse(state.minus["h"]).detach())
    rule.backward(x, y)
    assert [z.shape[1] for z in rule.state_dict()["free"]] == [5, 2]
    twin = twin_of("centred", net, x, y, ["mse", "cross_entropy"], "even-odd")
    again = twin.run(twin.run(twin.zeros(), T1), T1)
    torch.testing.assert_close(rule.infer(x, y).minus["y"], again[3], rtol=1e-12, atol=1e-12)


@st.composite
def energies(draw: st.DrawFn) -> dp.Net:
    """1 to 6 layers, 1 or 2 inputs, at most one edge between two layers or a tied pair, symmetric loops."""
    g, depth = dp.Graph(), draw(st.integers(1, 6))
    inputs = [g.input(f"x{i}") for i in range(draw(st.integers(1, 2)))]
    sizes = {node: draw(st.integers(1, 3)) for node in inputs}
    nodes = list(inputs)
    for k in range(depth):
        size = draw(st.integers(2, 3))
        below = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True)) if k else inputs
        edges: Mapping[object, dp.Synapse] = {
            j: dp.Identity()
            if j not in inputs and sizes[j] == size and draw(st.booleans())
            else dp.Dense(sizes[j], size, bias=draw(st.booleans()))
            for j in below
        }
        node = g.layer(f"h{k + 1}", edges, draw(st.sampled_from(["tanh", "sigmoid", "linear"])))
        for j, synapse in edges.items():
            if j not in inputs and draw(st.booleans()):
                tied = dp.Transposed(synapse) if isinstance(synapse, dp.Dense) else dp.Identity()
                g.connect(node, j, tied)
        if draw(st.booleans()):
            g.connect(node, node, dp.Dense(size, size, bias=draw(st.booleans())))
        nodes.append(node)
        sizes[node] = size
    layers = nodes[len(inputs) :]
    outputs = draw(st.lists(st.sampled_from(layers), min_size=1, max_size=3, unique=True))
    net = drawn_weights(g.net(outputs), seed=draw(st.integers(0, 99)), scale=0.5)
    return with_symmetric_loops(net)


@settings(max_examples=25)
@given(
    net=energies(),
    rule=st.sampled_from(["positive", "centred", "hep"]),
    order=st.sampled_from(list(ORDERS)),
    losses=st.lists(st.sampled_from(["mse", "cross_entropy"]), min_size=3, max_size=3),
)
def test_any_energy(net: dp.Net, rule: str, order: str, losses: list[str]) -> None:
    losses = losses[: len(net.wiring.outputs)]
    leads = {source for source, _ in net.wiring.edges}
    for n, k in enumerate(net.wiring.outputs):
        if k not in leads and net.layers[k - 1].potential != dp.POTENTIALS["linear"]:
            losses[n] = "mse"  # logits are read out of a linear layer
    beside_twin(rule, (net, *batch(net)), losses, order)
