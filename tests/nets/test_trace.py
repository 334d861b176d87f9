"""What a trace sees of a step: products in their order, zeros, and what they cost by hand."""

from itertools import pairwise

import pytest
import torch

import dualprop as dp

D = dp.devices


def test_a_step_of_dual_propagation_edge_by_edge():
    net = dp.nets.mlp([4, 8, 6, 3])
    rule, (x, y) = dp.DualProp(net), (torch.randn(5, 4), torch.arange(5) % 3)
    x[:, 0] = 0
    with D.Trace(net) as trace, dp.counting() as counts:
        rule.backward(x, y)
    names = ["x", "layer1", "layer2", "layer3"]
    by_kind = {kind: [e for e in trace.events if e.kind == kind] for kind in ("forward", "feedback", "gradient")}
    assert [(e.source, e.target) for e in by_kind["forward"]] == list(pairwise(names))
    assert [(e.source, e.target) for e in by_kind["feedback"]] == [("layer2", "layer3"), ("layer1", "layer2")]
    assert len(by_kind["gradient"]) == 3
    assert by_kind["forward"][0].zeros == 0.25
    state = rule.infer(x, y)
    assert by_kind["forward"][1].zeros > 0  # of ReLU
    difference = state.difference[2]
    assert abs(by_kind["feedback"][1].zeros - float((difference == 0).float().mean())) < 1e-6
    assert sum(e.multiply_adds for e in trace.events) == counts.total.multiply_adds == trace.total.multiply_adds
    cost = trace.cost(D.Energy(multiply_add=2.0, bit=0.0, write=3.0))
    sizes, down = 4 * 8 + 8 * 6 + 6 * 3, 8 * 6 + 6 * 3
    assert cost.multiply_adds == 5 * (sizes + down)
    assert cost.writes == sizes
    assert cost.picojoules == 2 * cost.multiply_adds + 3 * sizes
    moved = trace.cost(D.Energy(bits=4)).bits
    assert moved == 4 * sum(round(e.values * (1 - e.zeros)) for e in trace.events if e.kind != "gradient")


def test_what_autograd_makes_on_its_way_back_is_seen_as_what_edges_make():
    """Backprop's errors beside those of a small nudge: the same products of the same sparsity."""
    net, (x, y) = dp.nets.mlp([4, 8, 6, 3]), (torch.randn(5, 4), torch.arange(5) % 3)
    by_rule = []
    for rule in (dp.Backprop(net), dp.DualProp(net, beta=1e-3)):
        with D.Trace(net) as trace:
            rule.backward(x, y)
        by_rule.append({(e.kind, e.source, e.target): e for e in trace.events})
    ours, theirs = by_rule
    assert ours.keys() == theirs.keys()
    for at, event in ours.items():
        if at[0] != "gradient":
            assert event == theirs[at], at
    assert sum(e.kind == "gradient" for e in ours.values()) == 3


def test_a_convolution_writes_each_weight_once():
    net = dp.Net([dp.Layer(dp.Conv2d(2, 3, 3, padding=1), "relu"), dp.Layer(dp.Dense(3 * 16, 4), "linear")])
    with D.Trace(net) as trace:
        dp.DualProp(net).backward(torch.randn(5, 2, 4, 4), torch.arange(5) % 4)
    assert trace.cost().writes == 3 * 2 * 9 + 48 * 4


def test_numbers_by_sample_are_those_of_the_events():
    net, (x, y) = dp.nets.mlp([4, 8, 6, 3]), (torch.randn(5, 4), torch.arange(5) % 3)
    rule, energy = dp.DualProp(net), D.Energy(bits=4)
    with D.Trace(net) as trace:
        rule.backward(x, y)
    numbers, cost = trace.by_sample(5, energy), trace.cost(energy)
    assert numbers["picojoules"] == cost.picojoules / 5
    assert numbers["bits_moved"] == cost.bits / 5
    state = rule.infer(x, y)
    down = torch.cat([state.difference[k].flatten() for k in (2, 3)])
    assert abs(numbers["zeros_down"] - float((down == 0).float().mean())) < 1e-6
    up = torch.cat([z.flatten() for k, z in net.states(x).items() if k in (1, 2)])  # on the way up none is nudged
    assert abs(numbers["zeros_up"] - float((up == 0).float().mean())) < 1e-6
    with D.Trace(net) as nothing:
        pass
    assert nothing.by_sample(5) == {}


def test_it_sees_what_crosses_devices_too():
    net = dp.nets.mlp([4, 8, 3], "tanh")
    rule = dp.DualProp(net, states=D.Dropped(0.5))
    with D.Trace(net) as trace:
        rule.backward(torch.randn(200, 4), torch.arange(200) % 3)
    assert abs(trace.events[1].zeros - 0.5) < 0.1


def test_another_module_is_refused():
    with pytest.raises(dp.DualpropError, match=r"net: of type Linear, but it must be a dualprop\.Net"):
        D.Trace(torch.nn.Linear(2, 2))
