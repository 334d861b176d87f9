"""ContrastiveHebbian against its twins: orders in γ, every step, linear closed forms, the clamp."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.builders import (
    assert_same,
    autograd_gradient,
    double_batch,
    double_net,
    gradient_of,
    image_batch,
    image_net,
    relative_error,
    slope,
)
from tests.oracles.hopfield_twin import ORDERS, Published, drive, one_hot
from tests.rules.test_equilibrium_prop import SETTLED, behind, front, linear_contrast, linear_net

TIGHT = {**SETTLED, "tolerance": 1e-15}  # differences at layer k are of the size γ^{L-k}
OUTPUTS = {"mse": "linear", "cross_entropy": "softmax"}


def of_layers(net: dp.Net, activation: str, loss: str) -> list[str]:
    """The names of f_1 .. f_L: soft-max neurons have cross-entropy's targets."""
    return [activation] * (len(net) - 1) + [OUTPUTS[loss]]


# Order in γ


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("beta", [1.0, 0.1])
@pytest.mark.parametrize("loss", list(OUTPUTS))
def test_every_layer_nears_backprop_as_gamma(loss, beta, seed):
    net, (x, y) = double_net((6, 8, 7, 4), "tanh", seed=seed), double_batch(5, 6, 4, seed=seed)
    gammas = (0.001, 0.002, 0.004)
    truth = autograd_gradient(net, loss, x, y)
    rules = [dp.ContrastiveHebbian(net, loss=loss, gamma=g, beta=beta, **TIGHT) for g in gammas]
    found = [gradient_of(rule, x, y) for rule in rules]
    for k in range(3):
        errors = [
            relative_error(*({n: t for n, t in g.items() if f"layers.{k}." in n} for g in (ours, truth)))
            for ours in found
        ]
        assert errors[-1] < 0.1
        assert slope(gammas, errors) == pytest.approx(1, abs=0.1), k + 1


def test_without_hidden_layers_it_is_backprop():
    """Nothing feeds back."""
    for loss in OUTPUTS:
        net, (x, y) = double_net((5, 3)), double_batch(4, 5, 3)
        ours = gradient_of(dp.ContrastiveHebbian(net, loss=loss, gamma=0.7, T1=1, T2=1), x, y)
        assert_same(ours, autograd_gradient(net, loss, x, y), rtol=1e-12)


# Every step


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("loss", list(OUTPUTS))
@pytest.mark.parametrize("sizes", [(5, 3), (5, 4, 3), (5, 6, 4, 7, 3)], ids=str)
def test_dense_nets_step_by_step(sizes, loss, order, beta):
    net, (x, y) = double_net(sizes, "shifted-sigmoid"), double_batch(4, 5, 3)
    twin = Published(net, of_layers(net, "shifted-sigmoid", loss), x, one_hot(y, 3, x), order=order, gamma=0.4)
    free = twin.free(7)
    expected = twin.chl(free, 5, beta)
    rule = dp.ContrastiveHebbian(net, loss=loss, gamma=0.4, beta=beta, T1=7, T2=5, order=order)
    assert_same(gradient_of(rule, x, y), expected, rtol=1e-11)
    below = free[-2] if len(free) > 1 else x
    logits = drive(net.chain[-1].synapse, below).detach()
    torch.testing.assert_close(rule.predict(x), free[-1] if loss == "mse" else logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["forward", "backward", "even-odd"])
@pytest.mark.parametrize("loss", list(OUTPUTS))
@pytest.mark.parametrize("kind", [dp.MaxPool2d, dp.SoftmaxPool2d])
@pytest.mark.parametrize("made", [front, behind])
def test_conv_nets_step_by_step(made, kind, loss, order):
    net, (x, y) = image_net(made(kind(2), kind(2, 1)), "shifted-sigmoid"), image_batch(3)
    twin = Published(net, of_layers(net, "shifted-sigmoid", loss), x, one_hot(y, 3, x), order=order, gamma=0.4)
    expected = twin.chl(twin.free(7), 5, 0.5)
    rule = dp.ContrastiveHebbian(net, loss=loss, gamma=0.4, beta=0.5, T1=7, T2=5, order=order)
    assert_same(gradient_of(rule, x, y), expected, rtol=1e-11)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("loss", list(OUTPUTS))
def test_the_hard_clamp_is_the_target_even_before_anything_has_settled(loss, order):
    net, (x, y) = double_net((5, 6, 4, 3), "sigmoid"), double_batch(4, 5, 3)
    rule = dp.ContrastiveHebbian(net, loss=loss, gamma=0.4, T1=1, T2=1, order=order)
    torch.testing.assert_close(rule.infer(x, y).plus[-1], one_hot(y, 3, x), rtol=0, atol=1e-15)
    soft = dp.ContrastiveHebbian(net, loss=loss, gamma=0.4, beta=0.25, **SETTLED).infer(x, y)
    expected = soft.minus[-1] + 0.25 * (one_hot(y, 3, x) - soft.minus[-1])
    torch.testing.assert_close(soft.plus[-1], expected, rtol=0, atol=1e-11)


# Deep linear nets


def linear_states(net: dp.Net, x: Tensor, gamma: float, clamp: Tensor | None) -> list[Tensor]:
    """z_0 .. z_L of z_k = W_k z_{k-1} + b_k + γ W_{k+1}^T z_{k+1}; the last is `clamp` if there is one.

    One linear system M z = r: identities on the diagonal, -W_k below it, -γ W_k^T above; W_1 x + b_1, b_2, .. on
    the right. For a clamped output the last rows are z_L = clamp.
    """
    W = [layer.synapse.weight.detach() for layer in net.chain]
    b = [layer.synapse.bias.detach() for layer in net.chain]
    sizes = [len(bias) for bias in b]
    rows = [slice(*pair) for pair in pairwise([sum(sizes[:k]) for k in range(len(sizes) + 1)])]
    M, r = torch.eye(sum(sizes), dtype=x.dtype), torch.zeros(len(x), sum(sizes), dtype=x.dtype)
    for k in range(len(W)):
        r[:, rows[k]] += b[k]
        if k:
            M[rows[k], rows[k - 1]] -= W[k]
            M[rows[k - 1], rows[k]] -= gamma * W[k].T
    r[:, rows[0]] += x @ W[0].T
    if clamp is not None:
        M[rows[-1]] = 0
        M[rows[-1], rows[-1]] = torch.eye(sizes[-1], dtype=x.dtype)
        r[:, rows[-1]] = clamp
    return [x, *torch.linalg.solve(M, r.T).T.split(sizes, 1)]


@pytest.mark.parametrize("beta", [1.0, 0.2])
@pytest.mark.parametrize("gamma", [1.0, 0.3])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_deep_linear_net_has_its_closed_form_at_a_finite_gamma(depth, gamma, beta):
    net, x, y = linear_net(depth)
    free = linear_states(net, x, gamma, None)
    clamped = linear_states(net, x, gamma, free[-1] + beta * (one_hot(y, 3, x) - free[-1]))
    expected = linear_contrast(net, [(1 / beta, clamped), (-1 / beta, free)])
    for name in expected:
        k = int(name.split(".")[1]) + 1
        expected[name] = expected[name] * gamma ** (k - depth)
    ours = gradient_of(dp.ContrastiveHebbian(net, gamma=gamma, beta=beta, **SETTLED), x, y)
    assert_same(ours, expected, rtol=1e-8)
    error = relative_error(ours, autograd_gradient(net, "mse", x, y))
    assert error < 1e-12 if depth == 1 else error > 0.02


def test_with_full_feedback_its_free_states_are_those_of_ep():
    net, x, _ = linear_net()
    ep, chl = dp.EquilibriumProp(net, **SETTLED), dp.ContrastiveHebbian(net, gamma=1, **SETTLED)
    torch.testing.assert_close(chl.predict(x), ep.predict(x), rtol=0, atol=1e-10)
    assert float((chl.predict(x) - net(x).detach()).abs().max()) > 0.01


class Cosh(dp.Loss):
    """A user's loss, with its value alone."""

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(z - y)).sum(1)


def test_a_users_loss_moves_the_output_against_its_gradient():
    net, (x, _) = double_net((5, 6, 3), "tanh"), double_batch(4, 5, 3)
    y = torch.randn(4, 3, dtype=x.dtype)
    rule = dp.ContrastiveHebbian(net, loss=Cosh(), gamma=1e-4, beta=0.3, **TIGHT)
    state = rule.infer(x, y)
    moved = -0.3 * torch.tanh(state.minus[-1] - y)
    torch.testing.assert_close(state.plus[-1] - state.minus[-1], moved, rtol=1e-10, atol=1e-12)
    truth = autograd_gradient(net, Cosh(), x, y)
    assert relative_error(gradient_of(rule, x, y), truth) < 1e-3
