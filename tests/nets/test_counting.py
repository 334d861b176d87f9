"""Products are counted as they are made: against the operators that PyTorch sees, and by hand."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import dualprop as dp
from dualprop.nets.counting import Tally
from tests.oracles.builders import double_batch, double_net, image_batch, image_net, small_conv_net, suited
from tests.oracles.products import Products

SIZES = (5, 4, 3)


def dense(activation: str, feedback: str, pool: str) -> dp.Net:
    return double_net((72, 7, 5, 3), activation, feedback=feedback)


def conv(activation: str, feedback: str, pool: str) -> dp.Net:
    return small_conv_net(activation, feedback, pool=pool)


def pools_behind(activation: str, feedback: str, pool: str) -> dp.Net:
    synapses = [
        dp.Pooled(dp.Conv2d(2, 4, 3, padding=1), dp.POOLS[pool](2)),
        dp.Pooled(dp.Conv2d(4, 4, 2, groups=2, padding=1, feedback=feedback), dp.POOLS[pool](2)),
        dp.Dense(16, 3, feedback=feedback),
    ]
    return image_net(synapses, activation)


def any_affine(activation: str, feedback: str, pool: str) -> dp.Net:
    synapses = [
        dp.Affine(nn.Conv2d(2, 3, 3, stride=2)),
        dp.Affine(nn.ConvTranspose2d(3, 2, 2), feedback=feedback),
        dp.Dense(18, 3, feedback=feedback),
    ]
    return image_net(synapses, activation)


NETS = {net.__name__: net for net in (dense, conv, pools_behind, any_affine)}
# dtp has no feedback maps for an affine module
PAIRS = [(name, net) for name in dp.RULES for net in NETS if (name, net) != ("dtp", "any_affine")]


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("name", "net"), PAIRS)
def test_every_rule_s_products_are_those_that_pytorch_makes(name, net, loss):
    method = dp.RULES[name]
    short = {"T1": 5, "T2": 4, "max_iterations": 5}
    settings = {key: value for key, value in short.items() if key in method.known_settings}
    rule = method(NETS[net](**suited(method, "tanh"), pool=method.pool), loss=loss, **settings)
    x, y = image_batch(4)
    with dp.counting():  # a module is asked once for its multiply-adds at a shape
        rule.backward(x, y)
    with dp.counting() as counts, Products() as seen:
        for _ in rule.iterate(x, y):
            pass
    assert seen.made
    assert (counts.total.products, counts.total.multiply_adds) == (len(seen.made), sum(seen.made))


def test_by_hand():
    net, (x, y) = double_net(SIZES), double_batch(6, 5, 3)
    with dp.counting() as counts:
        dp.DualProp(net).backward(x, y)
    assert counts.forward == Tally(2, 12, 6 * (5 * 4 + 4 * 3))
    assert counts.feedback == Tally(1, 6, 6 * 4 * 3)
    assert counts.gradient == Tally(2, 12, 6 * (5 * 4 + 4 * 3))
    assert counts.total == Tally(5, 30, 6 * (2 * 32 + 12))


def test_autograd_makes_what_is_asked_of_it():
    """No feedback into the input, no gradient of what is frozen, nothing but the drives without a graph."""
    net, (x, _) = double_net(SIZES), double_batch(6, 5, 3)
    net.chain[0].synapse.weight.requires_grad_(False)
    net.chain[0].synapse.bias.requires_grad_(False)
    with dp.counting() as counts:
        net(x).sum().backward()
    assert (counts.forward.products, counts.feedback.products, counts.gradient.products) == (2, 0, 1)
    with dp.counting() as counts:
        net(x.requires_grad_()).sum().backward()
    assert (counts.forward.products, counts.feedback.products, counts.gradient.products) == (2, 2, 1)
    with dp.counting() as counts, torch.no_grad():
        net(x)
    assert counts.total == counts.forward == Tally(2, 12, 6 * (5 * 4 + 4 * 3))


def test_contexts_nest_and_go_on_and_end():
    net, (x, _) = double_net(SIZES), double_batch(6, 5, 3)
    outer, inner = dp.counting(), dp.counting()
    with outer:
        net(x)
        with inner, outer:  # entered twice, it counts once
            net(x)
    with inner:
        net(x)
    with pytest.raises(ZeroDivisionError), outer:
        _ = 1 / 0
    net(x)
    assert (outer.forward.products, inner.forward.products) == (4, 4)


def test_a_batch_counts_once_for_each_of_its_copies():
    synapse = dp.Dense(5, 4)
    with torch.no_grad(), dp.counting(batch=6) as by_batch, dp.counting() as by_call:
        for rows in (6, 18, 5, 1):
            synapse(torch.zeros(rows, 5))
    assert (by_batch.forward.products, by_call.forward.products) == (1 + 3, 4)
    assert by_batch.forward.rows == by_call.forward.rows == 30


def test_a_thread_counts_its_own():
    net, (x, _) = double_net(SIZES), double_batch(6, 5, 3)
    with dp.counting() as counts:
        other = threading.Thread(target=net, args=(x,))
        other.start()
        other.join()
    assert counts.total == Tally()


def test_a_compiled_net_is_one_graph_and_not_counted():
    net, (x, _) = double_net(SIZES), double_batch(6, 5, 3)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with dp.counting() as counts:
        assert torch.equal(compiled(x), net.forward(x))
    assert counts.total.products == counts.forward.products == 2  # those of the net itself


def with_modules_on_edges() -> dp.Net:
    g = dp.Graph()
    x = g.input("x")
    below = g.layer("below", {x: dp.Conv2d(2, 4, 3, padding=1)}, "relu")
    block = nn.Sequential(nn.GroupNorm(2, 4, affine=False), nn.Conv2d(4, 4, 3, padding=1))
    above = g.layer("above", {below: dp.Local(block)}, "relu")
    joined = g.layer("joined", {above: dp.Conv2d(4, 4, 1), below: dp.Identity()}, "linear")
    return g.net(outputs=[g.layer("y", {joined: dp.Dense(144, 3)}, "linear")]).double()


def with_tied_weights() -> dp.Net:
    g = dp.Graph()
    x = g.input("x")
    below = g.layer("below", {x: dp.Dense(72, 5)}, "tanh")
    above = g.layer("above", {below: dp.Dense(5, 3)}, "tanh")
    g.connect(above, below, dp.Transposed(g.edge(below, above)))
    return g.net(outputs=[above]).double()


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (with_modules_on_edges, "bp"),
        (with_modules_on_edges, "dp"),
        (with_modules_on_edges, "p-dp"),
        (with_tied_weights, "dp"),
        (with_tied_weights, "p-dp"),
        (with_tied_weights, "r-dp"),
    ],
)
def test_products_of_graphs(net, name):
    """A random order comes down to the layer that is driven by the transpose, and further down through it."""
    rule, (x, y) = dp.RULES[name](net(), loss="mse"), image_batch(4)
    with dp.counting():
        rule.backward(x, y)
    with dp.counting() as counts, Products() as seen:
        rule.backward(x, y)
    assert seen.made
    assert (counts.total.products, counts.total.multiply_adds) == (len(seen.made), sum(seen.made))
