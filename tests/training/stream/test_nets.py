"""Learners on other nets than dense ones, and calls into given memory beside a synapse's ordinary ones."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import dualprop as dp
from dualprop.nets.synapses import Weighted
from tests.oracles.builders import double_net, small_conv_net
from tests.training.stream.builders import SIZES, close, frames, pair


def plain_calls(monkeypatch):
    """Dense synapses have none but their ordinary calls."""
    for name in ("driving", "sending", "moving"):
        monkeypatch.setattr(dp.Dense, name, lambda *_: None)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("step", ["normalised", "sgd"])
@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
def test_calls_into_given_memory_do_what_the_ordinary_ones_do(feedback, delayed, step, samples, monkeypatch):
    pairing = dp.stream.Delayed() if delayed else dp.stream.Present()
    learners = []
    for plain in (False, True):
        if plain:
            plain_calls(monkeypatch)
        net = double_net(SIZES, "relu", feedback=feedback)
        net.chain[1].synapse.bias = None
        net.chain[2].synapse.bias.requires_grad_(False)
        learner = dp.stream.Learner(net, pairing=pairing, step=step, lr=0.1, samples=samples)
        xs, ys = frames(20 * samples)
        for t in range(20):
            part = slice(t * samples, (t + 1) * samples)
            learner.tick(xs[t] if samples == 1 else xs[part], ys[t] if samples == 1 else ys[part])
        learners.append(learner)
    assert [learner._dyads.circuit.fixed for learner in learners] == [True, False]
    start = double_net(SIZES, "relu", feedback=feedback).state_dict()
    for (name, p), q in zip(learners[0].net.named_parameters(), learners[1].net.parameters(), strict=True):
        close(p, q.detach().numpy())
        assert torch.equal(p, start[name]) == (not p.requires_grad)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_convolutions_that_move_at_once_go_where_their_gradients_lead(pool, delayed, samples, monkeypatch):
    """The weights, and the products that are counted; one of the maps is small enough for a product of patches."""
    learners, counted = [], []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(Weighted, "shifting", lambda *_: None)
        net = small_conv_net("relu", pool=pool)
        net.chain[1].synapse.bias.requires_grad_(False)
        pairing = dp.stream.Delayed() if delayed else dp.stream.Present()
        learners.append(dp.stream.Learner(net, pairing=pairing, lr=0.1, samples=samples))
        generator = torch.Generator().manual_seed(1)
        for t in range(14):
            x = torch.randn(samples, 2, 6, 6, generator=generator, dtype=torch.float64)
            with dp.counting() as counts:
                learners[-1].tick(x if samples > 1 else x[0], [t % 3] * samples if samples > 1 else t % 3)
        counted.append((counts.total.products, counts.gradient.multiply_adds))
    assert [learner.step.by_grad for learner in learners] == [False, True]
    assert counted[0] == counted[1]
    start = small_conv_net("relu", pool=pool).state_dict()
    for (name, p), q in zip(learners[0].net.named_parameters(), learners[1].net.parameters(), strict=True):
        close(p, q.detach().numpy(), 1e-10)
        assert torch.equal(p, start[name]) == (not p.requires_grad)


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_delayed_gives_the_reverse_mode_gradient_through_pools(pool):
    net = small_conv_net("tanh", pool=pool)
    learner = dp.stream.Learner(net, beta=0.2, step=torch.optim.SGD(net.parameters(), lr=0.0))
    generator = torch.Generator().manual_seed(1)
    xs, ys = torch.randn(16, 2, 6, 6, generator=generator, dtype=torch.float64), torch.arange(16) % 3
    depth = len(net)
    model = dp.convert(small_conv_net("tanh", pool=pool).plain(), beta=0.2)
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        learner.tick(x, y)
        for k, layer in enumerate(net.chain, 1):
            frame = t - (2 * depth - 1 - k)
            if frame >= 0:
                model.zero_grad()
                F.cross_entropy(model(xs[frame][None]), ys[frame][None]).backward()
                weight = list(model.parameters())[2 * k - 2]
                close(layer.synapse.weight.grad, weight.grad.numpy(), 1e-10)


@pytest.mark.parametrize("step", ["normalised", "sgd", "torch"])
def test_weights_that_are_made_of_others_learn(step):
    net = double_net(SIZES, "tanh")
    parametrizations.weight_norm(net.chain[1].synapse)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    made = torch.optim.Adam(net.parameters(), lr=1e-3) if step == "torch" else step
    learner = dp.stream.Learner(net, step=made, lr=None if step == "torch" else 0.05)
    for x, y in zip(*frames(12), strict=True):
        learner.tick(x, y)
    assert not any(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_weights_may_move_in_memory_in_mid_stream():
    learner, twin = pair()
    xs, ys = frames(30)
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if t == 10:
            for p in learner.net.parameters():
                p.data = p.data.clone()
        if t == 20:
            learner.net.chain[1].synapse.weight = torch.nn.Parameter(
                learner.net.chain[1].synapse.weight.data.clone()
            )
        learner.tick(x, y)
        twin.tick(x.numpy(), y)
    for k, layer in enumerate(learner.net.chain, 1):
        close(layer.synapse.weight, twin.W[k][-1])


def test_products_are_counted():
    learner, _ = pair()
    xs, ys = frames(10)
    for x, y in zip(xs, ys, strict=True):
        learner.tick(x, y)
    with dp.counting() as counts:
        learner.tick(xs[0], ys[0])
    assert [t.products for t in (counts.forward, counts.feedback, counts.gradient)] == [3, 2, 3]
    assert counts.feedback.multiply_adds == 4 * 6 + 6 * 7
    assert counts.gradient.multiply_adds == counts.forward.multiply_adds == 4 * 6 + 6 * 7 + 7 * 5


def test_adam_leaves_layers_alone_to_which_no_error_has_come():
    learner, _ = pair()
    net = learner.net
    learner = dp.stream.Learner(net, step=torch.optim.Adam(net.parameters(), lr=0.1))
    xs, ys = frames(12)
    for x, y in zip(xs[:6], ys, strict=False):
        learner.tick(x, y)
    for x in xs[6:]:
        learner.tick(x)
    before = [p.detach().clone() for p in net.parameters()]
    learner.tick(xs[0])
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


def test_squared_error_has_its_exact_step():
    """A stream of one layer is a regression: what `DualProp` does with the same sample."""
    net, other = double_net((5, 2)), double_net((5, 2))
    learner = dp.stream.Learner(net, loss="mse", beta=0.4, step="sgd", lr=0.1)
    rule = dp.DualProp(other, loss="mse", beta=0.4)
    x, y = torch.randn(5, dtype=torch.float64), torch.tensor([0.5, -1.0], dtype=torch.float64)
    tick = learner.tick(x, y)
    step = rule.backward(x[None], y[None])
    close(tick.loss, step.loss.numpy())
    close(
        net.chain[0].synapse.weight,
        (other.chain[0].synapse.weight - 0.1 * other.chain[0].synapse.weight.grad).detach().numpy(),
    )
