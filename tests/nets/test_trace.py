"""What a trace sees of a step: products in their order, zeros, and what they cost by hand."""

from itertools import pairwise

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


def test_it_sees_what_crosses_devices_too():
    net = dp.nets.mlp([4, 8, 3], "tanh")
    rule = dp.DualProp(net, states=D.Dropped(0.5))
    with D.Trace(net) as trace:
        rule.backward(torch.randn(200, 4), torch.arange(200) % 3)
    assert abs(trace.events[1].zeros - 0.5) < 0.1
