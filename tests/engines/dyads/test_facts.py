"""The six facts of MATHS §4, orders measured as slopes (fact 5 is in test_runtime_efficient.py)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.builders import (
    autograd_gradient,
    cosine,
    double_batch,
    double_net,
    flat,
    gradient_of,
    relative_error,
    slope,
)

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Cosh(dp.Loss):
    """A user's loss, with its value alone."""

    def __repr__(self) -> str:
        return "Cosh()"

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(z - y)).sum(1)


def error_slope(activation: str, loss: dp.Loss | str, betas: tuple[float, ...], **settings: object) -> float:
    net = double_net((6, 8, 8, 8, 4), activation)
    x, y = double_batch(7, 6, 4)
    truth = autograd_gradient(net, loss, x, y)
    errors = [
        relative_error(gradient_of(dp.DualProp(net, loss=loss, beta=b, **settings), x, y), truth) for b in betas
    ]
    return slope(betas, errors)


# Fact 1. β = 1, .1, .01 with cross-entropy. The exact step of the squared error divides by 1 - β²/4, which at
# β = 1 is 0.75 and not yet quadratic (it alone makes the slope over 1, .1, .01 log10(0.3333/2.5e-5)/2 = 2.06);
# for squared error β starts at 0.1.
SMOOTH = [
    (activation, loss, (1, 0.1, 0.01) if loss == "cross_entropy" else (0.1, 0.01, 0.001))
    for activation in ("tanh", "sigmoid")
    for loss in ("mse", "mse-linearised", "cross_entropy")
]


@pytest.mark.parametrize(("activation", "loss", "betas"), SMOOTH)
@pytest.mark.parametrize("transpose", [False, True], ids=["plain", "transpose"])
def test_fact_1_symmetric_nudges_err_in_second_order(activation, loss, betas, transpose):
    measured = error_slope(activation, loss, betas, alpha=0.5, transpose=transpose)
    assert measured == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(("activation", "loss"), [case[:2] for case in SMOOTH])
@pytest.mark.parametrize("transpose", [False, True], ids=["plain", "transpose"])
def test_fact_1_one_sided_nudges_err_in_first_order(activation, loss, alpha, transpose):
    measured = error_slope(activation, loss, (0.1, 0.01, 0.001), alpha=alpha, transpose=transpose)
    assert measured == pytest.approx(1.0, abs=0.05)


def test_fact_1_with_a_different_nudge_in_every_layer():
    net = double_net((6, 8, 8, 8, 4), "tanh")
    x, y = double_batch(7, 6, 4)
    truth = autograd_gradient(net, "mse", x, y)
    scales = (0.1, 0.01, 0.001)
    errors = [
        relative_error(
            gradient_of(dp.DualProp(net, beta=[s * b for b in (0.5, 2.0, 1.0, 0.7)]), x, y),
            truth,
        )
        for s in scales
    ]
    assert slope(scales, errors) == pytest.approx(2.0, abs=0.05)


def relu_problem(seed: int) -> tuple[dp.Net, Tensor, Tensor]:
    """The net of facts 2 and 3: ReLU 20-32-32-32-5, here with the library's initial weights."""
    generator = torch.Generator().manual_seed(seed)
    net = dp.nets.mlp([20, 32, 32, 32, 5], "relu", generator=generator).double()
    return net, *double_batch(64, 20, 5, seed=seed)


def swept(net: dp.Net, x: Tensor, y: Tensor, n: int, alpha: float, transpose: bool) -> dict[str, Tensor]:
    rule = dp.DualProp(net, alpha=alpha, beta=0.5, schedule=dp.Sweep(n), transpose=transpose)
    return gradient_of(rule, x, y)


def test_fact_2_one_sweep_and_thirty_agree():
    """The cosines of MATHS §4 belong to one draw of weights; here the mean of eight."""
    cosines = []
    for seed in range(8):
        net, x, y = relu_problem(seed)
        truth = autograd_gradient(net, "mse", x, y)
        one, thirty = (swept(net, x, y, n, 0.5, False) for n in (1, 30))
        assert relative_error(thirty, one) < 0.05
        assert min(cosine(thirty, one, k) for k in range(1, 5)) > 0.995
        cosines.append([[cosine(g, truth, k) for k in range(1, 5)] for g in (one, thirty)])
    for mean in torch.tensor(cosines).mean(0).tolist():
        assert mean == pytest.approx([0.98, 0.997, 0.999, 1.000], abs=0.006)


def test_fact_3_plain_dp_diverges_for_alpha_0():
    net, x, y = relu_problem(0)
    assert float(flat(swept(net, x, y, 30, 0.0, False)).abs().max()) > 1e15


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("seed", range(3))
def test_fact_3_dp_transpose_stays_at_its_one_sweep_value(seed, alpha):
    net, x, y = relu_problem(seed)
    one, thirty = (swept(net, x, y, n, alpha, True) for n in (1, 30))
    assert relative_error(thirty, one) < 0.06
    if alpha in (0, 1):  # z̄ is the state that no nudge reaches: the feed-forward activity, so nothing moves
        assert relative_error(thirty, one) < 1e-12


def test_fact_3_the_transposed_mean_of_one_sided_nudges_is_the_feed_forward_activity():
    net, x, y = relu_problem(0)
    activity = [x]
    for layer in net.chain[:-1]:
        activity.append(layer(activity[-1]).detach())
    for alpha in (0.0, 1.0):
        rule = dp.DualProp(net, alpha=alpha, beta=0.5, schedule=dp.Sweep(3), transpose=True)
        for z, expected in zip(rule.infer(x, y).mean, activity, strict=False):
            torch.testing.assert_close(z, expected)


def test_transpose_and_plain_coincide_for_symmetric_nudges():
    net, x, y = relu_problem(0)
    plain, transposed = (swept(net, x, y, 5, 0.5, transpose) for transpose in (False, True))
    torch.testing.assert_close(flat(plain), flat(transposed), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_fact_4_parallel_updates_and_sweeps_share_their_fixed_point(activation):
    net = double_net((6, 8, 8, 8, 4), activation)
    x, y = double_batch(5, 6, 4)
    sweeps, parallel = (
        dp.DualProp(net, alpha=0.5, beta=0.5, schedule=schedule) for schedule in (dp.Sweep(200), dp.Parallel(400))
    )
    fixed, reached = sweeps.infer(x, y), parallel.infer(x, y)
    once = dp.DualProp(net, alpha=0.5, beta=0.5).infer(x, y)
    assert float((once.plus[1] - fixed.plus[1]).abs().max()) > 1e-6  # one sweep is not there yet
    for k in range(5):
        torch.testing.assert_close(reached.plus[k], fixed.plus[k], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(reached.minus[k], fixed.minus[k], rtol=1e-10, atol=1e-12)
    assert relative_error(gradient_of(parallel, x, y), gradient_of(sweeps, x, y)) < 1e-9


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("transpose", [False, True], ids=["plain", "transpose"])
@pytest.mark.parametrize("loss", ["mse", "mse-linearised", "cross_entropy", Cosh()], ids=str)
@pytest.mark.parametrize("schedule", [dp.Sweep(), dp.Sweep(2), dp.Parallel(), dp.Random([1, 2, 3, 2, 1])], ids=str)
def test_fact_6_small_nudges_recover_backprop(schedule, loss, transpose, alpha):
    if isinstance(loss, dp.Loss):
        y = torch.randn(7, 4, dtype=torch.float64)
        x, _ = double_batch(7, 6, 4)
    else:
        x, y = double_batch(7, 6, 4)
    net = double_net((6, 8, 8, 4), "tanh")
    rule = dp.DualProp(net, loss=loss, alpha=alpha, beta=1e-6, transpose=transpose, schedule=schedule)
    assert relative_error(gradient_of(rule, x, y), autograd_gradient(net, loss, x, y)) < 2e-5


@pytest.mark.parametrize("activation", sorted(dp.POTENTIALS))
def test_fact_6_for_every_activation(activation):
    net = double_net((6, 8, 8, 4), activation)
    x, y = double_batch(7, 6, 4)
    assert (
        relative_error(gradient_of(dp.DualProp(net, beta=1e-6), x, y), autograd_gradient(net, "mse", x, y)) < 1e-8
    )


@pytest.mark.parametrize("output", sorted(dp.POTENTIALS))
@pytest.mark.parametrize("loss", ["mse", "mse-linearised"])
def test_fact_6_for_every_output_layer(output, loss):
    """The linearised step differentiates the loss by the state, else f' would count twice."""
    net = double_net((6, 8, 4), "tanh", output=output)
    x, y = double_batch(7, 6, 4)
    rule = dp.DualProp(net, loss=loss, beta=1e-6)
    assert relative_error(gradient_of(rule, x, y), autograd_gradient(net, "mse", x, y)) < 1e-8
