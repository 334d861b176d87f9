"""Fact 5 of MATHS §4: one sweep is reverse mode with f(a + αδ) - f(a - ᾱδ) in place of f'(a)δ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.builders import double_batch, double_net, gradient_of
from tests.oracles.finite_difference import FUNCTIONS, nudged

SIZES = (6, 9, 8, 7, 4)
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ACTIVATIONS = {
    name: FUNCTIONS[name.replace("hard-", "hard")]
    for name in ("relu", "hard-tanh", "leaky-relu", "tanh", "sigmoid")
}


def reverse_mode(net, activation, x, y, alpha, beta):
    """Differences z_k^+ - z_k^- as gradients by a_k, and weight gradients, by one loss.backward."""
    drives, z, depth = [], x, len(net)
    for k, layer in enumerate(net.chain, 1):
        a = z @ layer.synapse.weight.T + layer.synapse.bias
        a.retain_grad()
        drives.append(a)
        if k < depth:
            ratio = beta[k - 1] / beta[k]
            z = nudged(a, ACTIVATIONS[activation], alpha * ratio, (1 - alpha) * ratio)
    up, down = alpha * beta[-1], (1 - alpha) * beta[-1]
    target = torch.nn.functional.one_hot(y, SIZES[-1]).double()
    output = drives[-1].detach()
    sent = (output + up * target) / (1 + up) - (output - down * target) / (1 - down)
    net.zero_grad(set_to_none=True)
    drives[-1].backward(sent)
    gradients = {
        f"layers.{k}.synapse.{name}": -p.grad / (beta[k] * len(x))
        for k, layer in enumerate(net.chain)
        for name, p in (("weight", layer.synapse.weight), ("bias", layer.synapse.bias))
    }
    return [a.grad for a in drives], gradients, [a.detach() for a in drives]


def crosses(activation: str, a: Tensor, up: Tensor, down: Tensor) -> Tensor:
    kinks = (-1.0, 1.0) if activation == "hard-tanh" else (0.0,)
    return torch.stack([(up > kink) != (down > kink) for kink in kinks]).any(0) | False


@pytest.mark.parametrize("beta", [(0.5,) * 4, (0.9, 0.3, 1.1, 0.6)], ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_differences_equal_reverse_mode_on_any_net(activation, alpha, beta):
    net = double_net(SIZES, activation)
    x, y = double_batch(11, SIZES[0], SIZES[-1])
    differences, gradients, _ = reverse_mode(net, activation, x, y, alpha, beta)
    rule = dp.DualProp(net, alpha=alpha, beta=beta)
    state = rule.infer(x, y)
    for k in range(1, 5):
        torch.testing.assert_close(state.difference[k], differences[k - 1], rtol=1e-10, atol=1e-14)
    ours = gradient_of(rule, x, y)
    for name in gradients:  # every bias, and the first layer's weights, for its input is never nudged
        if name.endswith("bias") or name.startswith("layers.0"):
            torch.testing.assert_close(ours[name], gradients[name], rtol=1e-10, atol=1e-14)


def piecewise_linear(activation: str, beta: float, alpha: float, transpose: bool):
    """Both engines' weight gradients, and which layers have a neuron whose nudge crosses a kink."""
    net = double_net(SIZES, activation, seed=4)
    x, y = double_batch(6, SIZES[0], SIZES[-1], seed=4)
    rule = dp.DualProp(net, alpha=alpha, beta=beta, transpose=transpose)
    differences, gradients, drives = reverse_mode(net, activation, x, y, alpha, (beta,) * 4)
    crossed = []
    for k in range(3):
        sent = differences[k + 1] @ net.chain[k + 1].synapse.weight.detach()
        up, down = drives[k] + alpha * sent, drives[k] - (1 - alpha) * sent
        crossed.append(bool(crosses(activation, drives[k], up, down).any()))
    return gradient_of(rule, x, y), gradients, crossed


@pytest.mark.parametrize(
    ("alpha", "transpose"),
    [(0.5, False), (0.0, True), (0.25, True), (0.75, True), (1.0, True)],
)
@pytest.mark.parametrize("activation", ["relu", "hard-tanh", "leaky-relu"])
def test_weight_gradients_agree_where_no_nudge_crosses_a_kink(activation, alpha, transpose):
    """With α = ½, or for DP-transpose with any α: for these the nudges cancel in z̄ on a linear piece of f."""
    ours, theirs, crossed = piecewise_linear(activation, 1e-5, alpha, transpose)
    assert crossed == [False] * 3
    for name in theirs:
        # reverse mode subtracts two states, 1e-16 of a each, and divides by the nudge of 1e-5
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "hard-tanh", "leaky-relu"])
def test_weight_gradients_differ_where_a_nudge_crosses_a_kink(activation):
    """The state engine multiplies by the nudged mean z̄, not by the feed-forward activity."""
    ours, theirs, crossed = piecewise_linear(activation, 1.0, 0.5, False)
    assert any(crossed)
    for k in range(3):
        name = f"layers.{k + 1}.synapse.weight"  # its gradient holds the mean of layer k + 1
        error = float((ours[name] - theirs[name]).norm() / theirs[name].norm())
        assert (error > 1e-4) is crossed[k]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.75, 1.0])
def test_the_mean_of_unequal_nudges_is_not_the_feed_forward_activity(alpha):
    """Plain DP on a linear piece of f: z̄ - f(a) = (α² - ᾱ²) r d, zero for α = ½ alone."""
    net = double_net(SIZES, "linear")
    x, y = double_batch(6, SIZES[0], SIZES[-1])
    beta = (0.9, 0.3, 1.1, 0.6)
    state = dp.DualProp(net, alpha=alpha, beta=beta).infer(x, y)
    z = x
    for k in range(1, 4):
        z = net.chain[k - 1](z).detach()
        sent = state.difference[k + 1] @ net.chain[k].synapse.weight.detach() * beta[k - 1] / beta[k]
        torch.testing.assert_close(state.mean[k] - z, (2 * alpha - 1) * sent, rtol=1e-9, atol=1e-13)
