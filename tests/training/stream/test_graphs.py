"""Learners on nets that are graphs: every way to a layer has a delay of its own, up and down."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp
from tests.oracles.graph_nets import drawn_weights, named_net
from tests.oracles.stream_graph_twin import Edge, StreamGraphTwin, longest
from tests.slow import but_slow
from tests.training.stream.builders import close
from tests.training.stream.test_learner import same

NAMES = ["skip", "diamond", "identity-alone", "merge", "branch", "shared-input", "double-edge"]
SLOW = ["identity-alone", "merge", "branch", "shared-input"]


def frames(n, classes=3, seed=0):
    """n frames of four features, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator).tolist()


def twin_of(net, **settings):
    """The twin of a learner on a net of dense edges and identities."""

    def array(p):
        return None if p is None else p.detach().numpy().copy()

    edges = [
        Edge(*ends, array(getattr(s, "weight", None)), array(getattr(s, "bias", None)))
        for ends, s in zip(net.wiring.edges, net.synapses, strict=True)
    ]
    names = {k: type(layer.potential).__name__.lower() for k, layer in enumerate(net.stack, 1)}
    return StreamGraphTwin(edges, names, *net.wiring.outputs, **settings)


def residual(norm=False):
    """A net of residual blocks: a way around each, and one around both of them."""
    g = dp.Graph()
    z = stem = g.layer("stem", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    for number in (1, 2):
        inner = g.layer(f"inner{number}", {z: dp.Dense(5, 6)}, "tanh")
        edge = dp.Local(nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5))) if norm else dp.Dense(6, 5)
        z = g.layer(f"block{number}", {inner: edge, z: dp.Identity()}, "tanh")
    return drawn_weights(g.net([g.layer("y", {z: dp.Dense(5, 3), stem: dp.Dense(5, 3, bias=False)}, "linear")]))


def net_of(name):
    return {"residual": residual, "normed": lambda: residual(norm=True)}.get(name, lambda: named_net(name))()


def drawn_net(seed):
    """Two to seven layers, each on up to three before it, by edges that are dense, identities or modules."""
    draw, g = random.Random(seed), dp.Graph()
    nodes = [(g.input("x"), 4)]
    for number in range(depth := draw.randint(2, 7)):
        last = number == depth - 1
        width = 3 if last else draw.choice([3, 4, 5])
        below = draw.sample(nodes, draw.randint(1, min(3, len(nodes))))
        below += [nodes[-1]] if last and nodes[-1] not in below else []
        edges = {}
        for node, features in below:
            kinds = [dp.Dense(features, width), dp.Dense(features, width, bias=False)]
            kinds += [dp.Local(nn.Linear(features, width)), *[dp.Identity()] * (features == width and bool(edges))]
            edges[node] = draw.choice(kinds)
        layer = g.layer(f"layer{number}", edges, "linear" if last else draw.choice(["tanh", "relu", "sigmoid"]))
        if draw.random() < 0.2:
            g.connect(*draw.choice([(node, layer, dp.Dense(features, width)) for node, features in nodes]))
        nodes.append((layer, width))
    return drawn_weights(g.net([nodes[-1][0]]), seed=seed)


def gradients_are_those_of_reverse_mode(net, late):
    """One tick a frame, frozen weights: what `convert` gives with finite differences, to rounding."""
    xs, ys = frames(20)
    step, twin = torch.optim.SGD(net.parameters(), lr=0.0), copy.deepcopy(net)
    learner = dp.stream.Learner(net, beta=0.3, pairing=dp.stream.Delayed(late), step=step)
    model, gradients = dp.convert(twin.plain(), beta=0.3), []
    for x, y in zip(xs, ys, strict=True):
        twin.zero_grad()
        F.cross_entropy(model(x[None]), torch.tensor([y])).backward()
        gradients.append([[copy.deepcopy(p.grad) for p in synapse.parameters()] for synapse in twin.synapses])
    edges, (output,) = net.wiring.edges, net.wiring.outputs
    depth, met = longest(edges, output), 0
    assert learner.latency == depth - 1
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        learner.tick(x, y)
        for e, (_, k) in enumerate(edges):
            frame = t - (2 * depth - 1 - longest(edges, k)) - late
            for number, p in enumerate(net.synapses[e].parameters()):
                expected = gradients[frame][e][number] if frame >= 0 else None
                assert (p.grad is None) == (expected is None)
                if expected is not None:
                    close(p.grad, expected.numpy(), 1e-10)
                    met += 1
    assert met > 0


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("name", but_slow([*NAMES, "residual", "normed"], *SLOW))
def test_delayed_gives_the_reverse_mode_gradient_of_each_frame(name, late):
    gradients_are_those_of_reverse_mode(net_of(name), late)


@pytest.mark.filterwarnings("ignore:layers")  # not every layer leads to the output
@pytest.mark.parametrize("seed", but_slow(range(25), *range(3, 25)))
def test_delayed_gives_it_on_drawn_graphs(seed):
    gradients_are_those_of_reverse_mode(drawn_net(seed), seed % 3)


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("name", but_slow([*NAMES, "normed", "shared-weights", "autoencoder"], *SLOW))
def test_in_a_sweep_a_tick_nothing_is_late(name, late):
    """The gradient of one frame at each tick, also of weights that two edges have in common."""
    net, (xs, ys) = net_of(name), frames(9)
    ys = [y % net.shapes((4,))[-1][0] for y in ys]
    learner = dp.stream.Learner(
        net,
        beta=0.3,
        pairing=dp.stream.Delayed(late),
        schedule=dp.Sweep(),
        step=torch.optim.SGD(net.parameters(), lr=0.0),
    )
    twin = copy.deepcopy(net)
    model = dp.convert(twin.plain(), beta=0.3)
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        tick = learner.tick(x, y if t % 3 else None)
        assert tick.frame == t
        close(tick.output, net(x[None])[0].detach().numpy())
        twin.zero_grad()
        frame = t - late
        if frame >= 0 and frame % 3:
            F.cross_entropy(model(xs[frame][None]), torch.tensor([ys[frame]])).backward()
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None:
                close(p.grad, q.grad.numpy(), 1e-11)


@pytest.mark.parametrize("step", ["normalised", "sgd", "torch"])
@pytest.mark.parametrize(("alpha", "late"), [(0.5, 0), (0.3, 0), (0.5, 3)])
@pytest.mark.parametrize("name", but_slow([*NAMES, "residual"], *SLOW))
def test_weights_and_outputs_are_the_twins(name, alpha, late, step):
    net, (xs, ys) = net_of(name), frames(30)
    beta, lr = [0.1 + 0.05 * k for k in range(len(net))], 0.3 if step == "normalised" else 0.05
    twin = twin_of(
        net,
        alpha=alpha,
        beta=dict(enumerate(beta, 1)),
        lr=lr,
        late=late,
        normalised=step == "normalised",
    )
    chosen = torch.optim.SGD(net.parameters(), lr=lr) if step == "torch" else step
    learner = dp.stream.Learner(
        net,
        alpha=alpha,
        beta=beta,
        pairing=dp.stream.Delayed(late),
        step=chosen,
        lr=None if step == "torch" else lr,
    )
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        y = None if t % 4 == 1 else y
        tick = learner.tick(x, y)
        twin.tick(x.numpy(), y)
        if tick.frame is not None:
            close(tick.output, twin.a[twin.output, tick.frame], 1e-11)
    for e, synapse in enumerate(net.synapses):
        if twin.W[e][-1] is not None:
            close(synapse.weight, twin.W[e][-1], 1e-11)
            assert abs(twin.W[e][-1] - twin.W[e][0]).max() > 1e-4
        if twin.b[e][-1] is not None:
            close(synapse.bias, twin.b[e][-1], 1e-11)
    assert learner._dyads.circuit.fixed


@pytest.mark.filterwarnings("ignore:schedule=:UserWarning")
@pytest.mark.parametrize("schedule", [dp.Parallel(1), dp.Sweep(), dp.EvenOdd(2)])
@pytest.mark.parametrize("name", but_slow(["skip", "normed", "shared-weights", "self-loop", "ring"], "normed"))
def test_present_is_a_lazy_rule_that_is_nudged_when_its_frame_is_there(name, schedule):
    """On a held frame; a lazy `Parallel` is nudged from its L-th update on, L the number of layers."""
    net = net_of(name)
    other, rate = copy.deepcopy(net), {"lr": 0.05}
    step = torch.optim.SGD(net.parameters(), **rate)
    learner = dp.stream.Learner(net, beta=0.2, pairing=dp.stream.Present(), schedule=schedule, step=step)
    rule = dp.DualProp(other, loss="cross_entropy", beta=0.2, schedule=schedule, lazy=True)
    optimizer = torch.optim.SGD(other.parameters(), **rate)
    unlabelled = len(net) - 1 - learner.latency if isinstance(schedule, dp.Parallel) else 0
    x, y = frames(1)
    for t in range(14):
        tick = learner.tick(x[0], None if t < unlabelled else y[0])
        optimizer.zero_grad()
        output = rule.backward(x, torch.tensor(y)).output
        optimizer.step()
        if tick.frame is not None:
            close(tick.output, output[0].numpy())
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            close(p, q.detach().numpy())
    assert any(not torch.equal(p, q) for p, q in zip(net.parameters(), net_of(name).parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:schedule=:UserWarning")
def test_present_on_a_held_frame_settles_where_the_schedule_does():
    """On a graph with cycles, whose only pairing it is."""
    net = named_net("ring", scale=0.6)
    learner = dp.stream.Learner(net, beta=0.3, lr=0.0)
    assert isinstance(learner.pairing, dp.stream.Present)
    x, y = frames(1)
    for _ in range(150):
        tick = learner.tick(x[0], y[0])
    state = dp.DualProp(net, loss="cross_entropy", beta=0.3, schedule=dp.Sweep(150)).infer(x, torch.tensor(y))
    for k in range(1, len(net) + 1):
        close(learner.memory.differences[k - 1][0], state.difference[k].numpy(), 1e-10)
        if k < len(net):
            close(learner.memory.means[k][0], state.mean[k].numpy(), 1e-10)
    assert tick.frame == 149 - 3
    close(learner.predict(x[0]), net(x)[0].detach().numpy())


@pytest.mark.parametrize("step", ["sgd", "normalised", "torch"])
def test_a_module_on_an_edge_learns_as_the_synapse_that_it_is(step):
    """`Local(Linear)` beside `Dense`: what comes down goes through the weights of now, not those it went up by."""
    nets = []
    for local in (False, True):
        net = named_net("skip")
        if local:
            linear = nn.Linear(4, 5, dtype=torch.float64)
            linear.load_state_dict(net.stack[1].synapse.state_dict())
            net.stack[1].synapse = dp.Local(linear)
        made = torch.optim.SGD(net.parameters(), lr=0.1) if step == "torch" else step
        learner = dp.stream.Learner(net, step=made, lr=None if step == "torch" else 0.2)
        for x, y in zip(*frames(25), strict=True):
            learner.tick(x, y)
        nets.append([p.detach() for p in net.parameters()])
    for p, q in zip(*nets, strict=True):
        close(p, q.numpy(), 1e-11)


def test_calls_into_given_memory_do_what_the_ordinary_ones_do(monkeypatch):
    learners = []
    for plain in (False, True):
        if plain:
            for kind in (dp.Dense, dp.Identity):
                for name in ("driving", "sending", "moving"):
                    monkeypatch.setattr(kind, name, lambda *_: None)
        learners.append(dp.stream.Learner(residual(), samples=2, lr=0.1))
        xs, ys = frames(40)
        for t in range(20):
            learners[-1].tick(xs[2 * t : 2 * t + 2], ys[2 * t : 2 * t + 2])
    assert [learner._dyads.circuit.fixed for learner in learners] == [True, False]
    for p, q in zip(learners[0].net.parameters(), learners[1].net.parameters(), strict=True):
        close(p, q.detach().numpy())


@pytest.mark.parametrize("name", ["residual", "normed", "ring"])
def test_a_stream_goes_on_to_the_bit(name):
    learner, other = (dp.stream.Learner(net_of(name)) for _ in range(2))
    xs, ys = frames(24)
    for x, y in zip(xs[:11], ys, strict=False):
        learner.tick(x, y)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for x, y in zip(xs[11:], ys[11:], strict=True):
        for each in (learner, other):
            each.tick(x, y)
    same(learner.state_dict(), other.state_dict())


def test_the_centred_step_takes_edges_without_weights():
    net = residual()
    net.stack[-1].also["from_stem"] = dp.Dense(5, 3).double()
    learner = dp.stream.Learner(net, step="centred")
    before = [p.detach().clone() for p in net.parameters()]
    for x, y in zip(*frames(20), strict=True):
        learner.tick(x, y)
    assert not any(torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert set(learner.step.state_dict()["means"]) == {"0-1", "1-2", "2-3", "3-4", "4-5", "5-6", "1-6"}
    for k, mean in learner.step.state_dict()["means"].items():
        assert bool(mean.abs().sum() > 0), k


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("two-inputs", {}, "net: a learner takes one with one input and one output, but this one has inputs x, u"),
        ("two-outputs", {}, "net: a learner takes one with one input and one output, but .* outputs o, y"),
        ("tied", {}, "net: a learner takes one whose output leads nowhere else, but this one has y -> i"),
        ("ring", {"pairing": dp.stream.Delayed()}, "pairing: j -> h closes a cycle"),
        ("skip", {"schedule": dp.Sweep(2)}, "schedule: a delay line has one place"),
        ("skip", {"grow": True}, "net: must be a chain"),
        ("double-edge", {"step": "centred"}, "step='centred': takes one edge h -> i"),
        ("skip", {"beta": [0.1, 0.1]}, "beta"),
    ],
)
def test_what_does_not_fit_is_one_line(name, settings, words):
    with pytest.raises(dp.DualpropError, match=f"^{words}") as error:
        dp.stream.Learner(named_net(name), **settings)
    assert "\n" not in str(error.value)


def test_images_through_a_residual_net():
    net = dp.nets.resnet8(in_shape=(1, 8, 8), width=8, stages=2)
    learner = dp.stream.Learner(net, lr=1.0)
    x = torch.rand(1, 8, 8)
    losses = [float(tick.loss) for _ in range(60) if (tick := learner.tick(x, 3)).loss is not None]
    assert np.mean(losses[-5:]) < 0.2 * losses[0]
