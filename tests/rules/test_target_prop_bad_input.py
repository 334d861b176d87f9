"""Arguments that difference target propagation refuses, in one line each, and maps that diverge."""

from __future__ import annotations

import pytest
import torch

import dualprop as dp
from dualprop.nets.synapses import Pooled
from tests.oracles.builders import double_batch, double_net
from tests.oracles.refused import refused

SIZES = (5, 6, 4, 3)


@pytest.fixture
def net():
    return double_net(SIZES)


@pytest.mark.parametrize("name", ["K", "sigma", "feedback_lr"])
@pytest.mark.parametrize("values", [[], [1], (1, 1, 1)], ids=str)
def test_lists_of_a_wrong_length(net, name, values):
    with refused(rf"^{name}=.*{len(values)} numbers, but the net has 2 feedback maps"):
        dp.DifferenceTargetProp(net, **{name: values})


def test_layers_without_a_map():
    affine = dp.Affine(torch.nn.Linear(6, 4))
    layers = [dp.Layer(dp.Dense(5, 6)), dp.Layer(affine), dp.Layer(dp.Dense(4, 3), "linear")]
    with refused(r"^net: layer 2 \(Affine\)"):
        dp.DifferenceTargetProp(dp.Net(layers))
    module = dp.Affine(torch.nn.ConvTranspose2d(2, 3, 3))
    with refused(r"^net: layer 2 \(Affine\)"):
        dp.DifferenceTargetProp(dp.Net([dp.Layer(dp.Conv2d(2, 2, 3)), dp.Layer(Pooled(module, dp.MaxPool2d(2)))]))


def test_the_first_layer_needs_no_map():
    net = dp.Net([dp.Layer(dp.Affine(torch.nn.Linear(5, 6)), "tanh"), dp.Layer(dp.Dense(6, 3), "linear")]).double()
    step = dp.DifferenceTargetProp(net).backward(*double_batch(4, 5, 3))
    assert all(p.grad is not None for p in net.parameters())
    assert step.output.shape == (4, 3)


def test_cross_entropy_refuses_a_softmax_output():
    with refused("logits"):
        dp.DifferenceTargetProp(double_net(SIZES, output="softmax"), loss="cross_entropy")


def test_the_state_of_another_net_or_feedback_loss(net):
    rule = dp.DifferenceTargetProp(net)
    others = [dp.DifferenceTargetProp(double_net((5, 7, 4, 3))), dp.DifferenceTargetProp(net, feedback="plain")]
    before = [g.weight.clone() for g in rule.maps]
    for other in others:
        with refused(r"^state: maps\.0"):
            rule.load_state_dict(other.state_dict())
    assert all(torch.equal(g.weight, b) for g, b in zip(rule.maps, before, strict=True))


@pytest.mark.parametrize("feedback", ["l-drl", "plain"])
def test_maps_that_diverge_stop_the_run_and_say_where(net, feedback):
    """Steps far beyond 2/(2σ²): the loss grows until it is no number."""
    rule = dp.DifferenceTargetProp(net, K=[1, 400], sigma=0.1, feedback_lr=[1e-3, 1e4], feedback=feedback)
    with refused(r"^layer 3: .*feedback map .*400 steps", dp.DivergenceError):
        rule.backward(*double_batch(6, 5, 3))
    assert all(p.grad is None for p in net.parameters())
