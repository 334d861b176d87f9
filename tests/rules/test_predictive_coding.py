"""PredictiveCoding against autograd of the energy of the whole net, step by step; its order; where it settles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

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
from tests.oracles.graph_nets import named_net

SIZES = (5, 6, 4, 4, 3)
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "hard-tanh": lambda a: a.clamp(-1, 1)}


class Twin:
    """The published equations on a dense chain, every derivative by autograd of E, a function of all states."""

    def __init__(self, net: dp.Net, activation: str, x: Tensor, y: Tensor, loss: str) -> None:
        self.weights = [(layer.synapse.weight, layer.synapse.bias) for layer in net.chain]
        self.named = dict(net.named_parameters())
        self.f, self.projects = ACTIVATIONS[activation], activation != "tanh"
        self.x, self.y, self.loss, self.L = x, y, loss, len(net)

    def drive(self, z: list[Tensor], k: int) -> Tensor:
        """a_k."""
        weight, bias = self.weights[k - 1]
        return z[k - 1] @ weight.T + bias

    def said(self, a: Tensor, k: int) -> Tensor:
        """f_k(a_k)."""
        return a if k == self.L else self.f(a)

    def energy(self, z: list[Tensor], layers: range) -> Tensor:
        """½ Σ ‖h_k - f_k(h_{k-1})‖² over these layers and all samples."""
        return sum(((z[k] - self.said(self.drive(z, k), k)) ** 2).sum() / 2 for k in layers)

    def cost(self, output: Tensor) -> Tensor:
        """C, summed over the samples."""
        if self.loss == "mse":
            return ((output - F.one_hot(self.y, 3)) ** 2).sum() / 2
        return F.cross_entropy(output, self.y, reduction="sum")

    def free(self) -> list[Tensor]:
        """The forward pass."""
        z = [self.x]
        for k in range(1, self.L + 1):
            z.append(self.said(self.drive(z, k), k).detach())
        return z

    def nudged(self, steps: int, beta: float) -> list[Tensor]:
        """Even layers, then odd ones, some times from the free state."""
        z = self.free()
        for _ in range(steps if beta else 0):
            for k in [*range(2, self.L + 1, 2), *range(1, self.L + 1, 2)]:
                z[k] = z[k].detach().requires_grad_()
                acting = self.energy(z, range(k + 1, k + 2)) if k < self.L else beta * self.cost(z[k])
                (slope_of_it,) = torch.autograd.grad(acting, z[k])
                a = self.drive(z, k).detach()
                inside = k == self.L or self.projects
                z[k] = self.said(a - slope_of_it, k) if inside else self.said(a, k) - slope_of_it
        return [each.detach() for each in z]

    def gradient(self, steps: int, high: float, low: float) -> dict[str, Tensor]:
        """The batch mean of (∂E(h^high) - ∂E(h^low))/(high - low)."""
        ends = [self.energy(self.nudged(steps, beta), range(1, self.L + 1)) for beta in (high, low)]
        contrast = (ends[0] - ends[1]) / (high - low) / len(self.x)
        return dict(zip(self.named, torch.autograd.grad(contrast, list(self.named.values())), strict=True))


def made(activation: str, loss: str, seed: int = 0) -> tuple[dp.Net, Tensor, Tensor, Twin]:
    net, (x, y) = double_net(SIZES, activation, seed=seed), double_batch(4, SIZES[0], SIZES[-1], seed=seed)
    return net, x, y, Twin(net, activation, x, y, loss)


@pytest.mark.parametrize(("variant", "ends"), [("centred", (1, -1)), ("positive", (1, 0)), ("negative", (0, -1))])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_states_and_gradients_step_by_step(activation, loss, variant, ends):
    net, x, y, twin = made(activation, loss)
    rule = dp.PredictiveCoding(net, loss=loss, variant=variant, beta=0.3, T2=3)
    high, low = (0.3 * end for end in ends)
    assert_same(gradient_of(rule, x, y), twin.gradient(3, high, low), rtol=1e-12)
    state = rule.infer(x, y)
    for ours, theirs in zip(
        (*state.plus, *state.minus), (*twin.nudged(3, high), *twin.nudged(3, low)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    assert torch.equal(rule.predict(x), net(x))


BETAS = (1e-4, 2e-4, 4e-4)


@pytest.mark.parametrize(("variant", "order"), [("centred", 2.0), ("positive", 1.0), ("negative", 1.0)])
@pytest.mark.parametrize(
    ("activation", "loss"), [("tanh", "mse"), ("tanh", "cross_entropy"), ("relu", "cross_entropy")]
)
def test_the_error_against_back_propagation_falls_with_beta(activation, loss, variant, order):
    net, x, y, _ = made(activation, loss)
    truth = autograd_gradient(net, loss, x, y)
    rules = [dp.PredictiveCoding(net, loss=loss, variant=variant, beta=beta, T2=30) for beta in BETAS]
    errors = [relative_error(gradient_of(rule, x, y), truth) for rule in rules]
    assert slope(BETAS, errors) == pytest.approx(order, abs=0.05)
    assert errors[-1] < 0.02


def test_as_many_steps_as_layers_are_enough_for_the_order():
    net, x, y, _ = made("tanh", "cross_entropy")
    truth = autograd_gradient(net, "cross_entropy", x, y)
    rules = [dp.PredictiveCoding(net, loss="cross_entropy", beta=beta) for beta in BETAS]
    assert slope(BETAS, [relative_error(gradient_of(rule, x, y), truth) for rule in rules]) == pytest.approx(
        2, abs=0.1
    )


def test_nudged_states_settle_where_energy_and_loss_are_stationary():
    net, x, y, twin = made("tanh", "mse")
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.5)  # where the weights are large, undamped steps swing
    z = [each.clone() for each in dp.PredictiveCoding(net, beta=0.3, T2=200).infer(x, y).plus]
    for each in z[1:]:
        each.requires_grad_()
    slopes = torch.autograd.grad(twin.energy(z, range(1, 5)) + 0.3 * twin.cost(z[-1]), z[1:])
    assert max(float(each.abs().max()) for each in slopes) < 1e-12


def test_pools_in_front_and_behind():
    synapses = [
        dp.Pooled(dp.Conv2d(2, 3, 3, padding=1), dp.MaxPool2d(2)),
        dp.Conv2d(3, 4, 3, padding=1, pool=dp.AvgPool2d(2)),
        dp.Dense(4, 3),
    ]
    net, (x, y) = image_net(synapses, "relu"), image_batch(3)
    truth = autograd_gradient(net, "cross_entropy", x, y)
    rule = dp.PredictiveCoding(net, loss="cross_entropy", beta=1e-3)
    assert relative_error(gradient_of(rule, x, y), truth) < 1e-4


def test_what_it_refuses():
    with pytest.raises(dp.DualpropError, match="kolen-pollack"):
        dp.PredictiveCoding(dp.nets.mlp([4, 5, 3], feedback="kolen-pollack"))
    with pytest.raises(dp.DualpropError, match="PredictiveCoding runs on chains, but this one has an edge"):
        dp.PredictiveCoding(named_net("skip"))
    net, x, y, _ = made("relu", "mse")
    with torch.no_grad():
        net.chain[2].synapse.weight.mul_(1e160)
    with pytest.raises(dp.DivergenceError, match="the nudged phase diverged within 9 steps"):
        dp.PredictiveCoding(net, beta=0.3, T2=9).backward(x, y)
