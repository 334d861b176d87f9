"""Damped dual propagation: its equation by loops, its L_k by singular values, where it settles and in what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import dualprop as dp
from dualprop.nets.synapses import spectral_norm
from tests.oracles.builders import double_batch, double_net, gradient_of, relative_error
from tests.oracles.conv_twin import links
from tests.oracles.graph_nets import batch, named_net

SIZES = (4, 5, 3, 4, 3)
BETA = (0.7, 1.1, 0.5, 0.8)


def updated_in_order(net: dp.Net, x: Tensor, y: Tensor, order: list[int], alpha: float, transpose: bool):
    """States after these updates of a ReLU net from zero: cross-entropy, every product written out in NumPy."""
    W = [layer.synapse.weight.detach().numpy() for layer in net.chain]
    b = [layer.synapse.bias.detach().numpy() for layer in net.chain]
    n, share = len(W), 1 - alpha if transpose else alpha
    plus = [x.numpy(), *(np.zeros((len(x), len(bias))) for bias in b)]
    minus = list(plus)
    for k in order:
        a = (share * plus[k - 1] + (1 - share) * minus[k - 1]) @ W[k - 1].T + b[k - 1]
        if k == n:
            e = np.exp(a - a.max(1, keepdims=True))
            force = BETA[k - 1] * (e / e.sum(1, keepdims=True) - np.eye(len(b[-1]))[y])
            plus[k], minus[k] = a - alpha * force, a + (1 - alpha) * force
            continue
        r, d = BETA[k - 1] / BETA[k], (plus[k + 1] - minus[k + 1]) @ W[k]
        L = max(0.0, r * np.linalg.norm(W[k], 2) ** 2 - 1) / 2 if d.any() else 0.0
        plus[k] = np.maximum(0, (a + L * plus[k] + alpha * r * d) / (1 + L))
        minus[k] = np.maximum(0, (a + L * minus[k] - (1 - alpha) * r * d) / (1 + L))
    return plus, minus


UP, DOWN = [1, 2, 3, 4], [4, 3, 2, 1]


@pytest.mark.parametrize("order", [UP + DOWN, 6 * UP, UP + 3 * [2, 4, 1, 3], [3, 4, 3, 1, 2, 4, 3, 2, 1]], ids=str)
@pytest.mark.parametrize(("alpha", "transpose"), [(0.0, False), (0.5, False), (1.0, False), (0.25, True)])
def test_the_equation_by_loops(alpha: float, transpose: bool, order: list[int]) -> None:
    net, (x, y) = double_net(SIZES, "relu", seed=1), double_batch(3, SIZES[0], SIZES[-1])
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.weight.mul_(1.5)  # so that no L_k is zero
    settings = {"loss": "cross_entropy", "alpha": alpha, "beta": BETA, "transpose": transpose}
    plus, minus = updated_in_order(net, x, y, order, alpha, transpose)
    state = dp.DualProp(net, schedule=dp.Random(order), damped=True, **settings).infer(x, y)
    plain = dp.DualProp(net, schedule=dp.Random(order), **settings).infer(x, y)
    for k in range(1, 5):
        np.testing.assert_allclose(state.plus[k].numpy(), plus[k], rtol=0, atol=1e-5)  # as the power iteration
        np.testing.assert_allclose(state.minus[k].numpy(), minus[k], rtol=0, atol=1e-5)
    assert any(float((state.mean[k] - plain.mean[k]).abs().max()) > 1e-2 for k in (1, 2, 3))


def test_norms_are_the_largest_singular_values() -> None:
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1, stride=2),
        dp.Pooled(dp.Conv2d(3, 4, 3, padding=1), dp.MaxPool2d(2)),
        dp.Dense(4, 3, pool=dp.AvgPool2d(2)),
    ]
    net = dp.Net([dp.Layer(synapse, "relu") for synapse in synapses]).double()
    shapes = net.shapes((2, 8, 8))
    for link, synapse, shape in zip(links(net, (2, 8, 8)), synapses, shapes, strict=False):
        explicit = link.matrix(synapse.core.weight.detach().numpy().ravel())
        norm = spectral_norm(synapse, torch.zeros(1, *shape, dtype=torch.float64), 300)
        assert norm == pytest.approx(np.linalg.norm(explicit, 2), rel=1e-3)
    assert spectral_norm(dp.Identity(), torch.zeros(2, 5)) == pytest.approx(1)
    still = dp.Dense(4, 3)
    with torch.no_grad():
        still.weight.zero_()
    assert spectral_norm(still, torch.zeros(1, 4)) == 0


def settles(rule_settings: dict[str, object], passes: int = 150) -> float:
    """How far the states still move in one pass more, relatively."""
    net, (x, y) = double_net((20, 32, 32, 32, 5), "relu"), double_batch(8, 20, 5)
    ends = [dp.DualProp(net, schedule=dp.Forward(n), **rule_settings).infer(x, y) for n in (passes, passes + 1)]
    pairs = [(*end.plus[1:], *end.minus[1:]) for end in ends]
    return max(float((z - w).norm() / w.norm()) for z, w in zip(*pairs, strict=True))


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.1), (0.25, 0.5), (0.5, 0.5), (0.75, 1.0), (1.0, 10.0)])
def test_repeated_passes_settle_where_the_objective_is_bounded(alpha: float, beta: float) -> None:
    assert settles({"alpha": alpha, "beta": beta, "damped": True}) < 1e-5


def test_undamped_ones_need_not_and_no_damping_helps_where_it_is_unbounded() -> None:
    assert settles({"alpha": 1.0, "beta": 10.0}) > 0.1
    assert settles({"alpha": 0.0, "beta": 0.5, "damped": True}) > 0.1


def test_at_alpha_1_they_settle_in_the_lifted_minimum() -> None:
    """That is found by a descent which shares no line with the passes."""
    net, (x, y) = double_net((20, 32, 32, 32, 5), "relu"), double_batch(8, 20, 5)
    rule = dp.DualProp(net, alpha=1.0, beta=0.5, damped=True, schedule=dp.Sweep(120))
    lifted = dp.LiftedProximal(net, alpha=1.0, beta=0.5, tolerance=1e-10, max_iterations=100_000)
    for ours, theirs in zip(rule.infer(x, y).plus, lifted.infer(x, y).plus, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
    assert relative_error(gradient_of(rule, x, y), gradient_of(lifted, x, y)) < 1e-8


def test_where_nothing_needs_damping_there_is_none() -> None:
    net, (x, y) = double_net((6, 5, 5, 3), "relu"), double_batch(4, 6, 3)
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.weight.div_(torch.linalg.matrix_norm(layer.synapse.weight, 2))
    damped, plain = (
        dp.DualProp(net, beta=0.5, schedule="sweep:4", damped=each).infer(x, y) for each in (True, False)
    )
    for ours, theirs in zip(damped.plus, plain.plus, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_weights_that_move_have_norms_of_their_own_in_every_round() -> None:
    net, (x, y) = double_net(SIZES, "relu", seed=1), double_batch(3, SIZES[0], SIZES[-1])
    rule = dp.DualProp(net, beta=0.5, schedule="sweep:3", damped=True)
    rule.backward(x, y)
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.weight.mul_(2)
    fresh = dp.DualProp(net, beta=0.5, schedule="sweep:3", damped=True)
    for ours, theirs in zip(rule.infer(x, y).plus, fresh.infer(x, y).plus, strict=True):
        assert torch.equal(ours, theirs)


def test_residual_graphs_settle_damped() -> None:
    net = named_net("skip")
    for layer in net.stack[:-1]:
        layer.potential = dp.POTENTIALS["relu"]
    x, y = batch(net, 5)
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.5, damped=True, schedule=dp.Sweep(500, tolerance=1e-9))
    assert rule.backward(x, y).measures["residual"] <= 1e-9


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: dp.nets.mlp([4, 5, 3], "tanh"), r"damped: the potential of layer1, Tanh\(\), is no projection"),
        (lambda: dp.nets.mlp([4, 5, 3], feedback="kolen-pollack"), "damped: the net's feedback is kolen-pollack"),
        (
            lambda: dp.Net([dp.Layer(dp.Local(torch.nn.Linear(4, 5))), dp.Layer(dp.Dense(5, 3), "linear")]),
            "damped: edge x -> layer1: Linear is no affine map",
        ),
    ],
)
def test_what_it_refuses(net, message: str) -> None:
    with pytest.raises(dp.DualpropError, match=message):
        dp.DualProp(net(), damped=True)
