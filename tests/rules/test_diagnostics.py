"""alignment: cosines and norm ratios against numbers worked out here."""

from __future__ import annotations

import math

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import autograd_gradient, cosine, double_batch, double_net, flat, gradient_of

SIZES = (5, 6, 4, 3)


@pytest.mark.parametrize("loss", sorted(dp.LOSSES))
def test_backprop_is_aligned_with_itself(loss):
    cosines, ratios = dp.alignment(
        dp.Backprop(double_net(SIZES), loss=loss), *double_batch(4, SIZES[0], SIZES[-1])
    )
    assert cosines == pytest.approx([1, 1, 1], abs=1e-12)
    assert ratios == pytest.approx([1, 1, 1], abs=1e-12)


@pytest.mark.parametrize("name", list(dp.RULES))
def test_alignment_compares_with_autograd_layer_by_layer(name):
    method = dp.RULES[name]
    net = double_net(SIZES, feedback=method.feedback)
    x, y = double_batch(4, SIZES[0], SIZES[-1])
    found = dp.alignment(method(net), x, y)
    ours, truth = gradient_of(method(net), x, y), autograd_gradient(net, "mse", x, y)
    for k in range(1, 4):
        assert found.cosine[k - 1] == pytest.approx(cosine(ours, truth, k), abs=1e-12)
        own, true = ({n: g for n, g in t.items() if n.startswith(f"layers.{k - 1}.")} for t in (ours, truth))
        assert found.norm_ratio[k - 1] == pytest.approx(float(flat(own).norm() / flat(true).norm()), rel=1e-12)


def test_a_gradient_that_is_zero_has_no_angle():
    net = double_net(SIZES, feedback="kolen-pollack")
    with torch.no_grad():
        net.chain[1].synapse.feedback.zero_()
    found = dp.alignment(dp.RULES["kp-dp"](net), *double_batch(4, SIZES[0], SIZES[-1]))
    assert math.isnan(found.cosine[0])
    assert found.norm_ratio[0] == 0
    assert found.cosine[2] > 0.9


@pytest.mark.parametrize("name", list(dp.RULES))
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_frozen_layer_has_no_angle(frozen, name):
    method = dp.RULES[name]
    net = double_net(SIZES, feedback=method.feedback)
    net.chain[frozen].requires_grad_(False)
    found = dp.alignment(method(net), *double_batch(4, SIZES[0], SIZES[-1]))
    assert [math.isnan(c) for c in found.cosine] == [k == frozen for k in range(3)]


def test_gradients_survive_an_error():
    """`.grad` comes back even if the method breaks down half way."""
    rule = dp.DualProp(double_net(SIZES))
    x, y = double_batch(4, SIZES[0], SIZES[-1])
    rule.backward(x, y)
    before = [p.grad.clone() for p in rule.net.parameters()]
    with pytest.raises(dp.DualpropError):
        rule.gradients(x, y + 5)
    assert all(torch.equal(p.grad, g) for p, g in zip(rule.net.parameters(), before, strict=True))
