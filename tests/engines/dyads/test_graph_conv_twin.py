"""Convolutions, pools and feedback weights on edges of graphs: the engine equals the slow twin in every order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dualprop as dp
from dualprop.nets.graph import Node
from tests.engines.dyads.test_graph_twin import BETA, SCHEDULES, SETTINGS, compare, one_hot
from tests.oracles.graph_conv_twin import read_images
from tests.oracles.graph_nets import drawn_weights
from tests.slow import but_slow

pytestmark = pytest.mark.filterwarnings("ignore:schedule")  # not every order here lets every layer learn


def _convolutions(g: dp.Graph, own: dict[str, str]) -> Node:
    """A strided convolution beside one behind a max-pool; an average-pool in front of the last, a skip from h."""
    h = g.layer("h", {g.input("x"): dp.Conv2d(1, 2, 3, padding=1)}, "tanh")
    i = g.layer("i", {h: dp.Conv2d(2, 2, 2, stride=2, **own)}, "relu")
    skip = dp.Conv2d(2, 2, 1, pool=dp.MaxPool2d(2), bias=False, **own)
    j = g.layer("j", {i: dp.Conv2d(2, 2, 3, padding=1, **own), h: skip}, "tanh")
    return g.layer("y", {j: dp.Dense(2, 3, pool=dp.AvgPool2d(2), **own), h: dp.Dense(32, 3, **own)}, "linear")


def _pools(g: dp.Graph, own: dict[str, str]) -> Node:
    """Pools in front of an identity, in front of a map and behind it."""
    x = g.input("x")
    h = g.layer("h", {x: dp.Pooled(dp.Conv2d(1, 2, 2), dp.AvgPool2d(2, stride=1))}, "tanh")
    down = dp.Pooled(dp.Conv2d(2, 2, 2, padding=1, pool=dp.AvgPool2d(2), **own), dp.MaxPool2d(2))
    i = g.layer("i", {h: down, x: dp.Conv2d(1, 2, 4)}, "tanh")
    j = g.layer("j", {i: dp.Identity(), h: dp.Identity(dp.MaxPool2d(2))}, "relu")
    return g.layer("y", {j: dp.Dense(2, 3, **own)}, "linear")


def _dense(g: dp.Graph, own: dict[str, str]) -> Node:
    """Two edges out of h and two into y, an edge that closes a cycle, each with a B."""
    h = g.layer("h", {g.input("x"): dp.Dense(16, 4)}, "tanh")
    i = g.layer("i", {h: dp.Dense(4, 3, **own)}, "tanh")
    g.connect(i, h, dp.Dense(3, 4, bias=False, **own))
    return g.layer("y", {i: dp.Dense(3, 3, **own), h: dp.Dense(4, 3, **own)}, "linear")


def _tied(g: dp.Graph, own: dict[str, str]) -> Node:
    """Back down through the same strided convolution."""
    h = g.layer("h", {g.input("x"): dp.Conv2d(1, 2, 3, padding=1)}, "tanh")
    i = g.layer("i", {h: dp.Conv2d(2, 2, 3, stride=2, padding=1)}, "tanh")
    g.connect(i, h, dp.Transposed(g.edge(h, i), scale=-0.7))
    return g.layer("y", {i: dp.Dense(8, 3, **own)}, "linear")


GRAPHS: dict[str, Callable[[dp.Graph, dict[str, str]], Node]] = {
    "convolutions": _convolutions,
    "pools": _pools,
    "dense": _dense,
    "tied": _tied,
}


def made(graph: str, feedback: str) -> tuple[dp.Net, Tensor, Tensor]:
    g = dp.Graph()
    net = drawn_weights(g.net([GRAPHS[graph](g, {"feedback": feedback})]), scale=0.7)
    generator = torch.Generator().manual_seed(5)
    return net, torch.randn(2, 1, 4, 4, generator=generator, dtype=torch.float64), torch.tensor([2, 0])


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
@pytest.mark.parametrize("schedule", but_slow(SCHEDULES, "damped-3", "rounds-3", "parallel-rounds", "climbing"))
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_order(graph: str, schedule: str, feedback: str) -> None:
    """At a third of α and both means, the exact step; at the other α and cross-entropy in one sweep."""
    make, infer = SCHEDULES[schedule]
    net, x, y = made(graph, feedback)
    cases = [("mse", 1 / 3, False), ("mse", 1 / 3, True)]
    if schedule == "sweep-1":
        cases += [("cross_entropy", *settings) for settings in SETTINGS]
    for loss, alpha, transpose in cases:
        settings = {"alpha": alpha, "transpose": transpose, "beta": BETA[: len(net)]}
        rule = dp.DualProp(net, loss=loss, schedule=make(len(net)), **settings)
        twin = read_images(rule, [(1, 4, 4)], [loss], rule.schedule.damping)
        twin.start([x.flatten(1).numpy()])
        infer(twin, one_hot(twin, y))
        compare(rule, twin, x, y)


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
@pytest.mark.parametrize("ticks", [None, 2])
@pytest.mark.parametrize("graph", GRAPHS)
def test_lazy_over_batches(graph: str, ticks: int | None, feedback: str) -> None:
    net, x, y = made(graph, feedback)
    schedule = dp.Parallel(ticks) if ticks else dp.Sweep()
    rule = dp.DualProp(net, loss="mse", schedule=schedule, lazy=True, alpha=0.25, beta=BETA[: len(net)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    twin = read_images(rule, [(1, 4, 4)], ["mse"])
    for number in range(4):
        each = x.roll(number, 0) + number / 10
        twin.parameters = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
        again = twin.again if number else twin.start
        again([each.flatten(1).numpy()])
        if ticks:
            twin.ticks(ticks, one_hot(twin, y), done=number * ticks)
        else:
            twin.sweeps(1, one_hot(twin, y))
        compare(rule, twin, each, y)
        optimizer.step()
