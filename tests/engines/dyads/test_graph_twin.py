"""On graphs the engine equals the slow twin of MATHS §8: states and gradients, in every order of updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dualprop as dp
from dualprop.rules.batch import in_order
from tests.oracles.beside_twin import drawn
from tests.oracles.builders import gradient_twice
from tests.oracles.graph_nets import GRAPHS, batch, drawn_weights, named_net
from tests.oracles.graph_twin import GraphTwin, read
from tests.slow import but_slow

pytestmark = [
    pytest.mark.filterwarnings("ignore:schedule"),  # not every order here lets every layer learn
    pytest.mark.filterwarnings("ignore:layers"),  # nor does every drawn graph lead every layer to an output
]

BETA = (0.7, 0.9, 0.5, 0.8, 0.6, 0.95)  # no two ratios alike, and ᾱβ < 1 at every output
SETTINGS = [(alpha, transpose) for alpha in (0.0, 0.5, 1.0) for transpose in (False, True)]
NEVER = 1e-300  # a tolerance that nothing reaches: the same updates, planned in rounds


def listed(depth: int) -> list[int]:
    """An order with every layer in it, some twice in a row."""
    return [*range(depth, 0, -1), *range(1, depth + 1), *(k for k in range(depth, 0, -1) for _ in (0, 1))]


def climbing(depth: int) -> list[int]:
    """All layers upwards, and all but the last once more: the last update of each is after those below it."""
    return [*range(1, depth + 1), *range(1, depth)]


Infer = Callable[[GraphTwin, Mapping[int, np.ndarray]], None]
SCHEDULES: dict[str, tuple[Callable[[int], dp.Schedule], Infer]] = {
    "sweep-1": (lambda depth: dp.Sweep(), lambda twin, y: twin.sweeps(1, y)),
    "sweep-3": (lambda depth: dp.Sweep(3), lambda twin, y: twin.sweeps(3, y)),
    "rounds-3": (lambda depth: dp.Sweep(3, tolerance=NEVER), lambda twin, y: twin.sweeps(3, y)),
    "damped-3": (lambda depth: dp.Sweep(3, damping=0.3), lambda twin, y: twin.sweeps(3, y)),
    "damped-rounds": (lambda depth: dp.Sweep(2, NEVER, 0.3), lambda twin, y: twin.sweeps(2, y)),
    "parallel": (lambda depth: dp.Parallel(), lambda twin, y: twin.ticks(2 * twin.L - 1, y)),
    "parallel-rounds": (lambda depth: dp.Parallel(7, NEVER), lambda twin, y: twin.ticks(7, y)),
    "parallel-damped": (lambda depth: dp.Parallel(8, damping=0.3), lambda twin, y: twin.ticks(8, y)),
    "random": (lambda depth: dp.Random(30, seed=3), lambda twin, y: twin.in_order(drawn(30, twin.L, 3), y)),
    "climbing": (lambda depth: dp.Random(climbing(depth)), lambda twin, y: twin.in_order(climbing(twin.L), y)),
    "listed": (lambda depth: dp.Random(listed(depth)), lambda twin, y: twin.in_order(listed(twin.L), y)),
}


def rule_of(net: dp.Net, schedule: dp.Schedule, losses: Sequence[str], **settings: object) -> dp.DualProp:
    return dp.DualProp(net, loss=losses, schedule=schedule, beta=BETA[: len(net)], **settings)


def one_hot(twin: GraphTwin, y: object) -> dict[int, np.ndarray]:
    """Targets by the number of the output."""
    return {k: np.eye(twin.sizes[k])[t.numpy()] for k, t in zip(twin.losses, in_order(y), strict=True)}


def compare(rule: dp.DualProp, twin: GraphTwin, x: object, y: object) -> None:
    """States and gradients to 1e-10, measured against the largest number: cycles may let them grow."""
    state = rule.infer(x, y)
    net, scale = rule.net, max(1.0, *(float(np.abs(z).max()) for z in twin.plus.values()))
    for number in net.wiring.out_of:
        name = net.wiring.name(number)
        for ours, theirs in (
            (state.plus, twin.plus[number]),
            (state.minus, twin.minus[number]),
            (state.mean, twin.mean(number)),
            (state.difference, twin.difference(number)),
        ):
            seen = ours[name].flatten(1).numpy()
            np.testing.assert_allclose(seen, theirs, rtol=1e-10, atol=1e-10 * scale, err_msg=name)
    gradient, expected = gradient_twice(rule, x, y), twin.gradient()
    assert set(gradient) == set(expected)
    for name, value in expected.items():
        atol = 1e-10 * scale * max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(gradient[name].numpy(), value, rtol=1e-10, atol=atol, err_msg=name)


def beside_twin(net: dp.Net, schedule: str, loss: str, alpha: float, transpose: bool) -> None:
    """One batch from zero."""
    make, infer = SCHEDULES[schedule]
    losses = [loss] * len(net.wiring.outputs)
    rule = rule_of(net, make(len(net)), losses, alpha=alpha, transpose=transpose)
    twin = read(rule, losses, rule.schedule.damping)
    x, y = batch(net)
    twin.start([each.numpy() for each in in_order(x)])
    infer(twin, one_hot(twin, y))
    compare(rule, twin, x, y)


OFTEN = ("sweep-1", "sweep-3", "rounds-3", "damped-3", "parallel", "random")


@pytest.mark.parametrize("schedule", but_slow(SCHEDULES, *set(SCHEDULES) - set(OFTEN)))
@pytest.mark.parametrize("graph", GRAPHS)
def test_named_graphs_in_every_order(graph: str, schedule: str) -> None:
    for loss in ("mse", "cross_entropy"):
        for alpha, transpose in SETTINGS:
            beside_twin(named_net(graph), schedule, loss, alpha, transpose)


@pytest.mark.parametrize("schedule", ["sweep-1", "sweep-3"])
def test_a_loss_for_each_output(schedule: str) -> None:
    """One exact, one linearised, in the order in which the outputs are named."""
    net, losses = named_net("outputs-out-of-order"), ["cross_entropy", "mse-linearised"]
    make, infer = SCHEDULES[schedule]
    rule = rule_of(net, make(len(net)), losses, alpha=0.25)
    twin, (x, y) = read(rule, losses), batch(net)
    twin.start([x.numpy()])
    infer(twin, one_hot(twin, y))
    compare(rule, twin, x, y)


@pytest.mark.parametrize("ticks", [None, 1, 2, 5])
@pytest.mark.parametrize("graph", GRAPHS)
def test_lazy_over_batches(graph: str, ticks: int | None) -> None:
    """States persist, and so do the ticks that they have seen; the weights learn in between."""
    net = named_net(graph)
    losses = ["mse"] * len(net.wiring.outputs)
    rule = rule_of(net, dp.Parallel(ticks) if ticks else dp.Sweep(), losses, lazy=True, alpha=0.25)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    twin = read(rule, losses)
    for seed in range(6):
        x, y = batch(net, seed=seed)
        inputs = [each.numpy() for each in in_order(x)]
        twin.parameters = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
        twin.again(inputs) if seed else twin.start(inputs)
        if ticks:
            twin.ticks(ticks, one_hot(twin, y), done=seed * ticks)
        else:
            twin.sweeps(1, one_hot(twin, y))
        compare(rule, twin, x, y)
        optimizer.step()


@st.composite
def graphs(draw: st.DrawFn) -> dp.Net:
    """1 to 6 layers, 1 or 2 inputs, any edges, some of them identities or tied, any outputs."""
    g, depth = dp.Graph(), draw(st.integers(1, 6))
    inputs = [g.input(f"x{i}") for i in range(draw(st.integers(1, 2)))]
    sizes = {node: draw(st.integers(1, 3)) for node in inputs}
    nodes = list(inputs)
    for k in range(depth):
        size = draw(st.integers(2, 3))
        below = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        if k == 0:  # every input is read, by a dense edge first
            below = inputs
        edges = {j: dp.Dense(sizes[j], size, bias=draw(st.booleans())) for j in below}
        node = g.layer(f"h{k + 1}", edges, draw(st.sampled_from(["tanh", "relu", "linear"])))
        nodes.append(node)
        sizes[node] = size
    layers = nodes[len(inputs) :]
    for _ in range(draw(st.integers(0, 5))):  # up, down, beside, to itself
        source, target = draw(st.sampled_from(nodes)), draw(st.sampled_from(layers))
        kind = draw(st.sampled_from(["dense", "identity", "tied", "skew"]))
        if kind in ("tied", "skew"):
            try:
                other = g.edge(target, source)
            except dp.DualpropError:
                kind = "dense"
            else:
                if isinstance(other.synapse, dp.Dense):
                    g.connect(source, target, dp.Transposed(other, scale=1.0 if kind == "tied" else -1.0))
                    continue
                kind = "dense"
        same = kind == "identity" and sizes[source] == sizes[target] and source not in inputs
        g.connect(source, target, dp.Identity() if same else dp.Dense(sizes[source], sizes[target], bias=False))
    outputs = draw(st.lists(st.sampled_from(layers), min_size=1, max_size=3, unique=True))
    return drawn_weights(g.net(outputs), seed=draw(st.integers(0, 99)), scale=0.7)


@given(
    net=graphs(),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    loss=st.sampled_from(["mse", "cross_entropy"]),
    settings=st.sampled_from(SETTINGS),
)
def test_any_graph(net: dp.Net, schedule: str, loss: str, settings: tuple[float, bool]) -> None:
    beside_twin(net, schedule, loss, *settings)
