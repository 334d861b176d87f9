"""The builder of graphs, and the forward pass of the nets that it makes."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import dualprop as dp
from tests.oracles.graph_nets import CYCLIC, batch, named_net
from tests.oracles.refused import refused


def skip(width: int = 5) -> tuple[dp.Graph, dict[str, object]]:
    """x -> h -> i -> y, and h -> y."""
    g = dp.Graph()
    x = g.input("x")
    h = g.layer("h", {x: dp.Dense(4, width)}, "tanh")
    i = g.layer("i", {h: dp.Dense(width, 5)}, "tanh")
    y = g.layer("y", {i: dp.Dense(5, 3), h: dp.Dense(5, 3)}, "linear")
    return g, {"x": x, "h": h, "i": i, "y": y}


def tied() -> dp.Net:
    g, nodes = skip()
    g.connect(nodes["i"], nodes["h"], dp.Transposed(g.edge(nodes["h"], nodes["i"])))
    return g.net([nodes["y"]])


def shared(net: dp.Net) -> bool:
    """Whether the edge down reads the very weights of the edge up."""
    return net.layers[0].also["from_i"].tied.weight is net.layers[1].synapse.weight


# --- the builder ----------------------------------------------------------------------------------------------


def test_the_wiring_is_what_was_built():
    g, nodes = skip()
    g.connect(nodes["y"], nodes["h"], dp.Dense(3, 5))
    wiring = g.net([nodes["y"]]).wiring
    assert (wiring.inputs, wiring.layers, wiring.outputs) == (("x",), ("h", "i", "y"), (3,))
    assert wiring.edges == ((0, 1), (3, 1), (1, 2), (2, 3), (1, 3))
    assert wiring.cyclic
    assert not wiring.is_chain
    assert [wiring.number(name) for name in ("x", "h", "y")] == [0, 1, 3]
    assert str(wiring).splitlines() == ["1. h <- x, y", "2. i <- h", "3. y <- i, h (output)"]


def test_a_chain_that_was_built_is_a_chain_for_every_rule():
    g = dp.Graph()
    h = g.layer("h", {g.input("pixels"): dp.Dense(4, 5)}, "tanh")
    net = g.net([g.layer("y", {h: dp.Dense(5, 3)}, "linear")])
    assert net.wiring.is_chain
    plain = dp.Net([dp.Layer(dp.Dense(4, 5), "tanh"), dp.Layer(dp.Dense(5, 3), "linear")])
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, 4)
    assert torch.equal(net(x), plain(x))
    for method in ("bp", "dp", "dtp"):
        dp.RULES[method](net).backward(x, torch.tensor([0, 2]))


def test_the_keys_of_the_state_name_the_further_edges():
    g, nodes = skip()
    g.connect(nodes["h"], nodes["y"], dp.Dense(5, 3, bias=False))
    assert list(g.net([nodes["y"]]).state_dict()) == [
        "layers.0.synapse.weight",
        "layers.0.synapse.bias",
        "layers.1.synapse.weight",
        "layers.1.synapse.bias",
        "layers.2.synapse.weight",
        "layers.2.synapse.bias",
        "layers.2.also.from_h.weight",
        "layers.2.also.from_h.bias",
        "layers.2.also.from_h_2.weight",
    ]


def test_repeated_edges_keep_names_of_their_own():
    """Also where another node has the name that a repeated edge would take."""
    g = dp.Graph()
    a = g.layer("a", {g.input("x"): dp.Dense(4, 3)}, "tanh")
    b = g.layer("a_2", {a: dp.Dense(3, 3)}, "tanh")
    y = g.layer("y", {a: dp.Dense(3, 3)}, "linear")
    for source in (a, a, b, a):
        g.connect(source, y, dp.Identity())
    net = g.net([y])
    assert list(net.layers[2].also) == ["from_a", "from_a_2", "from_a_2_2", "from_a_3"]
    assert net.wiring.into[3] == (2, 3, 4, 5, 6)
    assert g.edge(a, y).synapse is net.layers[2].synapse  # the first of them


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
def test_copies_keep_their_ties(again: Callable[[dp.Net], dp.Net]):
    net = tied()
    other = again(net)
    assert shared(net)
    assert shared(other)
    assert other.layers[1].synapse.weight is not net.layers[1].synapse.weight
    x = torch.randn(2, 4)
    assert torch.equal(net(x), other(x))
    with torch.no_grad():
        other.layers[1].synapse.weight.mul_(0.1)
    assert not torch.equal(net(x), other(x))


def test_a_tied_weight_is_there_once():
    net = tied()
    assert len(list(net.parameters())) == 8
    assert sum(name.endswith("weight") for name in net.state_dict()) == 4
    assert shared(net.double())
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    other = tied().double()
    other.load_state_dict(torch.load(buffer))
    x = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(net(x), other(x))


def test_the_transpose_of_a_convolution_is_its_adjoint_for_every_shape():
    """Of stride 2 on 6 and on 5 pixels: either gives 3, and only the layer tells which it came from."""
    for size in (5, 6):
        g = dp.Graph()
        h = g.layer("h", {g.input("x"): dp.Conv2d(1, 2, 3, padding=1)}, "tanh")
        i = g.layer("i", {h: dp.Conv2d(2, 3, 3, stride=2, padding=1, bias=False)}, "tanh")
        edge = g.connect(i, h, dp.Transposed(g.edge(h, i), scale=-2.0))
        net = g.net([i]).double()
        assert net.state_shapes([(1, size, size)]) == {0: (1, size, size), 1: (2, size, size), 2: (3, 3, 3)}
        z, u = torch.randn(4, 2, size, size).double(), torch.randn(4, 3, 3, 3).double()
        torch.testing.assert_close((edge.synapse(u) * z).sum(), -2 * (net.layers[1].synapse(z) * u).sum())
        torch.testing.assert_close(edge.synapse.adjoint(z, u), -2 * net.layers[1].synapse(z))


# --- the forward pass -----------------------------------------------------------------------------------------


def test_forward_is_the_sum_over_edges():
    g, nodes = skip()
    net = g.net([nodes["y"]])
    x = torch.randn(2, 4)
    h, i, y = net.layers
    hidden = torch.tanh(h.synapse(x))
    expected = i.synapse(hidden).tanh() @ y.synapse.weight.T + y.synapse.bias + y.also["from_h"](hidden)
    torch.testing.assert_close(net(x), expected)
    assert net(x).requires_grad
    assert set(net.states(x)) == {0, 1, 2, 3}


def test_several_inputs_and_outputs_come_in_the_order_in_which_they_are_named():
    net = named_net("two-inputs")
    x, u = torch.randn(2, 4).double(), torch.randn(2, 2).double()
    h = torch.tanh(net.layers[0].synapse(u) + net.layers[0].also["from_x"](x))
    torch.testing.assert_close(net((x, u)), net.layers[1].synapse(h) + net.layers[1].also["from_u"](u))
    net = named_net("outputs-out-of-order")
    y, o = net(x)
    assert (tuple(y.shape), tuple(o.shape)) == ((2, 2), (2, 3))
    assert torch.equal(y, net.states(x)[3])
    rule = dp.DualProp(net, loss=["mse", "cross_entropy"])
    step = rule.backward(x, (torch.tensor([0, 1]), torch.tensor([2, 0])))
    torch.testing.assert_close(step.output, (y.detach(), o.detach()))
    first = 0.5 * ((y - torch.eye(2).double()) ** 2).sum() / 2
    torch.testing.assert_close(
        step.loss, first.detach() + nn.functional.cross_entropy(o.detach(), torch.tensor([2, 0]))
    )
    state = rule.infer(x, (torch.tensor([0, 1]), torch.tensor([2, 0])))
    assert torch.equal(state.plus["o"], state.plus[2])


@pytest.mark.parametrize("damping", [0.0, 0.4])
@pytest.mark.parametrize("graph", CYCLIC)
def test_on_cycles_it_is_the_fixed_point(graph: str, damping: float):
    """One more application of every layer, all at once, changes nothing."""
    net = named_net(graph, scale=0.5, tolerance=1e-13, damping=damping)
    x, _ = batch(net)
    states = net.states(x)
    assert torch.equal(net(x), states[net.wiring.outputs[0]])
    assert not net(x).requires_grad
    for k, layer in enumerate(net.layers, 1):
        sources = (states[source] for source, target in net.wiring.edges if target == k)
        torch.testing.assert_close(layer(*sources), states[k], rtol=0, atol=1e-11)
    assert torch.equal(dp.DualProp(net).predict(x), net(x))


def test_states_that_do_not_settle_are_an_error():
    with refused("do not settle within 1 sweeps.*damping or more sweeps", dp.DivergenceError):
        net = named_net("ring", sweeps=1)
        net(batch(net)[0])
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Dense(2, 2)}, "linear")
    g.connect(h, h, dp.Dense(2, 2, bias=False))
    net = g.net([h], sweeps=2000).double()
    with torch.no_grad():
        net.layers[0].also["from_h"].weight.copy_(3 * torch.eye(2))
    with refused("diverged at sweep [0-9]+, layer 1 .h.: NaN or infinite", dp.DivergenceError):
        net(torch.randn(3, 2, dtype=torch.float64))
    with refused("step [0-9]+, layer 1", dp.DivergenceError):
        rule = dp.DualProp(net, loss="mse", beta=0.1, schedule=dp.Sweep(50, tolerance=1e-9))
        rule.backward(torch.randn(3, 2, dtype=torch.float64), torch.tensor([0, 1, 0]))


class BrokenBelow(dp.LOSSES["mse"].__class__):
    """NaN in z^- alone."""

    def output_step(self, *given):
        plus, minus = super().output_step(*given)
        return plus, minus * float("nan")


def test_either_state_that_is_not_finite_is_an_error():
    net = dp.Net([dp.Layer(dp.Dense(4, 3), "linear")])
    rule = dp.DualProp(net, loss=BrokenBelow(), schedule=dp.Sweep(3, tolerance=1e-6))
    with refused("diverged at step 1, layer 1: a state became NaN", dp.DivergenceError):
        rule.backward(torch.randn(2, 4), torch.tensor([0, 2]))


# --- what is refused ------------------------------------------------------------------------------------------


def test_a_node_of_another_graph():
    g, nodes = skip()
    other = dp.Graph().input("x")
    with refused("source: 'x' belongs to another graph"):
        g.connect(other, nodes["h"], dp.Dense(4, 5))
    with refused("source: 'x' belongs to another graph"):
        g.layer("k", {other: dp.Dense(4, 5)})
    with refused("target: 'x' belongs to another graph"):
        g.connect(nodes["h"], other, dp.Dense(4, 5))
    with refused("outputs: 'y' belongs to another graph"):
        g.net([skip()[1]["y"]])
    g.net([nodes["y"]])  # and the layer that was refused is not there


def test_edges():
    g, nodes = skip()
    with refused("target: 'x' is an input, and only layers have edges into them"):
        g.connect(nodes["h"], nodes["x"], dp.Dense(5, 4))
    with refused("edge: there is none from 'y' to 'h'"):
        g.edge(nodes["y"], nodes["h"])
    with refused("synapse: of type Linear"):
        g.connect(nodes["h"], nodes["y"], nn.Linear(5, 3))
    with refused("source='h': must be a dualprop.Node"):
        g.connect("h", nodes["y"], dp.Dense(5, 3))
    with refused("sources: layer 'k' needs an edge"):
        g.layer("k", {})


@pytest.mark.parametrize("name", ["", "a.b", "two words", 3, "h", "x"])
def test_names(name: object):
    g, nodes = skip()
    with refused(f"name={name!r}"):
        g.layer(name, {nodes["h"]: dp.Dense(5, 3)})
    with refused(f"name={name!r}"):
        g.input(name)


def test_outputs_and_inputs():
    g, nodes = skip()
    for outputs in ([], [nodes["y"], nodes["y"]]):
        with refused("outputs=.*at least one layer, and each once"):
            g.net(outputs)
    with refused("outputs: 'x' is an input"):
        g.net([nodes["x"]])
    with refused("outputs='y': must be a dualprop.Node"):
        g.net(["y"])
    g.input("unread")
    with refused("input 'unread': no layer reads it"):
        g.net([nodes["y"]])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tolerance", -1.0),
        ("tolerance", "small"),
        ("sweeps", 0),
        ("sweeps", 1.5),
        ("damping", 1.0),
        ("damping", -0.1),
    ],
)
def test_how_the_fixed_point_is_found(setting: str, value: object):
    g, nodes = skip()
    with refused(setting):
        g.net([nodes["y"]], **{setting: value})


def test_layers_from_which_no_way_leads_to_an_output_are_warned_of():
    g, nodes = skip()
    with pytest.warns(UserWarning, match="layers i, y: no way leads to an output"):
        g.net([nodes["h"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g.net([nodes["y"]])


def test_shapes_that_do_not_join_name_the_edge():
    g, nodes = skip()
    g.connect(nodes["i"], nodes["h"], dp.Dense(5, 6))
    with refused("^net: edge i -> h: gives 6 neurons, but h has 5$"):
        g.net([nodes["y"]])
    g, nodes = skip(width=7)  # what reads h again takes five features
    with refused("^net: edge h -> y: takes 5 neurons, but h has 7$"):
        g.net([nodes["y"]])
    g, nodes = skip()
    with refused("net: edge x -> h: .*3 features a sample"):  # the first edge into a layer as well
        dp.DualProp(g.net([nodes["y"]])).backward(torch.zeros(1, 3), torch.tensor([0]))
    g, nodes = skip()
    g.connect(nodes["y"], nodes["h"], dp.Transposed(g.edge(nodes["i"], nodes["y"])))
    g.net([nodes["y"]])(torch.zeros(1, 4))  # i and h are of one size
    g.connect(nodes["i"], nodes["y"], dp.Transposed(g.edge(nodes["h"], nodes["y"])))
    with refused("net: edge i -> y: "):
        g.net([nodes["y"]])(torch.zeros(1, 4))


def test_local_modules():
    with refused("module: BatchNorm1d .1. mixes the samples of a batch"):
        dp.Local(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    with refused("module: Dropout draws anew"):
        dp.Local(nn.Dropout(0.1))
    with refused("module: of type builtin_function"):
        dp.Local(torch.tanh)
    dp.Local(nn.Dropout(0.0))
    with refused(r"module: Linear does not take \(3,\)"):
        dp.Local(nn.Linear(4, 4)).out_shape((3,))


def test_transposes():
    with refused("edge: has a pool in front"):
        dp.Transposed(dp.Dense(4, 3, pool=dp.MaxPool2d(2)))
    with refused("edge: of type Pooled"):
        dp.Transposed(dp.Pooled(dp.Conv2d(1, 2, 3), dp.MaxPool2d(2)))
    with refused("edge: has feedback weights of its own"):
        dp.Transposed(dp.Dense(4, 3, feedback="kolen-pollack"))
    for other in (dp.Identity(), dp.Local(nn.Linear(4, 4))):
        with refused("edge: of type"):
            dp.Transposed(other)


def test_a_transpose_of_what_is_not_in_the_net():
    """Its weights would not be among the net's parameters, and never learn."""
    g, nodes = skip()
    g.connect(nodes["i"], nodes["h"], dp.Transposed(dp.Dense(5, 5)))
    with refused("net: edge i -> h: the synapse that it is the transpose of is not in the net"):
        g.net([nodes["y"]])


def test_inputs_and_targets_of_a_batch():
    net = named_net("two-inputs")
    x, u = torch.randn(2, 4).double(), torch.randn(2, 2).double()
    with refused("x: 1 inputs, but the net has 2 .x, u."):
        net(x)
    rule = dp.DualProp(net)
    with refused("x: 1 inputs, but the net has 2"):
        rule.backward(x, torch.tensor([0, 1]))
    with refused("x: batches of 2, 1 samples"):
        rule.backward((x, u[:1]), torch.tensor([0, 1]))
    two = named_net("two-outputs")
    with refused("y: must be a tuple of 2 targets, for the outputs o, y"):
        dp.DualProp(two).backward(x, torch.tensor([0, 1]))
    with refused("loss: 1 losses, but the net has 2 outputs"):
        dp.DualProp(two, loss=["mse"])


def looped() -> dp.Net:
    """A chain but for a loop at its output."""
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    y = g.layer("y", {h: dp.Dense(5, 3)}, "linear")
    g.connect(y, y, dp.Identity())
    return g.net([y])


@pytest.mark.parametrize("method", [name for name, method in dp.RULES.items() if not method.rule.graphs])
def test_rules_for_chains_refuse_graphs(method: str):
    activation = dp.RULES[method].activation
    g = dp.Graph()
    x = g.input("x")
    h = g.layer("h", {x: dp.Dense(4, 5)}, activation)
    y = g.layer("y", {h: dp.Dense(5, 3)}, "linear")
    g.connect(x, y, dp.Dense(4, 3))
    with refused("net: [A-Za-z]+ runs on chains, but this one has an edge x -> y"):
        dp.RULES[method](g.net([y]))
    with refused("net: [A-Za-z]+ runs on chains, but this one has an edge y -> y"):
        dp.RULES[method](looped())
    g = dp.Graph()
    y = g.layer("y", {g.input("x"): dp.Dense(4, 3)}, "linear")
    z = g.layer("z", {y: dp.Dense(3, 3)}, "linear")
    with refused("net: [A-Za-z]+ runs on chains, but this one has outputs y, z"):
        dp.RULES[method](g.net([y, z]))
    g.connect(y, z, dp.Identity())
    with refused("net: [A-Za-z]+ runs on chains, but this one has two edges y -> z"):
        dp.RULES[method](g.net([z]))
    with refused("net: must be a chain, but this one has an edge y -> y"):
        looped().chain  # noqa: B018


@pytest.mark.parametrize("graph", CYCLIC)
def test_bp_refuses_cycles(graph: str):
    with refused("net: edge [a-z]+ -> [a-z]+ closes a cycle, on which Backprop cannot run"):
        dp.Backprop(named_net(graph))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), True, "1"])
def test_a_transpose_is_of_an_edge_and_scaled_by_a_number(scale):
    with refused("^scale="):
        dp.Transposed(dp.Dense(3, 4), scale=scale)
    with refused("^edge"):
        dp.Transposed(3)


class _Constant(torch.nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(z), 5)


class _Pair(torch.nn.Module):
    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return z, z


@pytest.mark.parametrize("rule", ["bp", "dp", "rbp"])
@pytest.mark.parametrize(
    ("module", "line"),
    [
        (torch.nn.ReLU(inplace=True), "module: ReLU works in place on what it is given"),
        (_Constant(), "module: _Constant makes a tensor without a graph"),
        (_Pair(), "module: _Pair makes a tuple, but it must make one tensor that depends on its input"),
    ],
)
def test_a_module_that_is_no_edge_is_one_line(module: torch.nn.Module, line: str, rule: str) -> None:
    g = dp.Graph()
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    r = g.layer("r", {h: dp.Local(module)}, "tanh")
    net = g.net([g.layer("y", {r: dp.Dense(5, 3)}, "linear")])
    with refused(line):
        dp.RULES[rule](net).backward(torch.randn(2, 4), torch.tensor([0, 1]))
    assert all(p.grad is None for p in net.parameters())
