"""LiftedProximal against the definition of L_1 and L_0: independent solvers, differences, bounds, orders."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import dualprop as dp
from tests.oracles.builders import (
    autograd_gradient,
    double_batch,
    double_net,
    flat,
    gradient_of,
    image_batch,
    image_net,
    relative_error,
    slope,
    small_conv_net,
)

# The slow twin: G and G* written out, states and drives one layer at a time, sums over samples in one number.


def log_cosh(a: Tensor) -> Tensor:
    return a.abs() + torch.log1p(torch.exp(-2 * a.abs())) - torch.log(torch.tensor(2.0, dtype=a.dtype))


CONJUGATES = {
    "linear": lambda a: 0.5 * a.square(),
    "relu": lambda a: 0.5 * a.clamp_min(0).square(),
    "tanh": log_cosh,
    "sigmoid": F.softplus,
}
ENERGIES = {
    "linear": lambda z: 0.5 * z.square(),
    "relu": lambda z: torch.where(z < 0, torch.inf, 0.5 * z.square()),
    "tanh": lambda z: 0.5 * (torch.xlogy(1 + z, 1 + z) + torch.xlogy(1 - z, 1 - z)),
    "sigmoid": lambda z: torch.xlogy(z, z) + torch.xlogy(1 - z, 1 - z),
}


class Cosh(dp.Loss):
    """A user's loss, with its value alone."""

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(z - y)).sum(1)


def loss_of(name: str | dp.Loss, z: Tensor, y: Tensor) -> Tensor:
    """Per sample."""
    if isinstance(name, dp.Loss):
        return name.value(z, y)
    if name == "cross_entropy":
        return F.cross_entropy(z, y, reduction="none")
    return 0.5 * (z - F.one_hot(y, z.shape[1])).square().sum(1)


def twin_objective(net, activations, loss, states, x, y, sign, beta) -> Tensor:
    """L_1 (sign 1) or L_0 (sign -1) of given states z_1 .. z_L, per sample."""
    value = loss_of(loss, states[-1], y)
    below = x
    for layer, name, z, b in zip(net.chain, activations, states, beta, strict=True):
        a = layer.synapse(below)
        penalty = ENERGIES[name](z) + CONJUGATES[name](a) - z * a
        value = value + sign * penalty.flatten(1).sum(1) / b
        below = z
    return value


def solved(rule: dp.LiftedProximal, x: Tensor, y: Tensor) -> list[Tensor]:
    """z_1 .. z_L of the rule's inference."""
    state = rule.infer(x, y)
    return list((state.plus if rule.nudge.alpha == 1 else state.minus)[1:])


def problem(sizes=(6, 8, 7, 4), activation="tanh", n=5, seed=0):
    net = double_net(sizes, activation, seed=seed)
    return net, *double_batch(n, sizes[0], sizes[-1], seed=seed)


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_an_independent_solver_finds_the_same_states(activation, loss, alpha):
    """L-BFGS on all z_k = f(u_k) at once, u_k free, from another start."""
    net, x, y = problem(activation=activation)
    net.requires_grad_(False)
    names, beta, sign = (activation, activation, "linear"), (0.05, 0.08, 0.06), 1 if alpha else -1
    f = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda u: u}
    free = [torch.full((5, n), 0.1, dtype=x.dtype, requires_grad=True) for n in (8, 7, 4)]
    optimizer = torch.optim.LBFGS(
        free,
        max_iter=3000,
        tolerance_grad=1e-12,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def states() -> list[Tensor]:
        return [f[name](u) for name, u in zip(names, free, strict=True)]

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = sign * twin_objective(net, names, loss, states(), x, y, sign, beta).sum()
        value.backward()
        return value

    optimizer.step(closure)
    rule = dp.LiftedProximal(net, loss=loss, alpha=alpha, beta=beta, tolerance=1e-9)
    for ours, theirs in zip(solved(rule, x, y), states(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-6)


def test_projected_gradient_with_tiny_steps_finds_the_same_relu_states():
    net, x, y = problem((5, 6, 6, 3), "relu", n=4)
    net.requires_grad_(False)
    names, beta = ("relu", "relu", "linear"), (0.3, 0.3, 0.3)
    z = [torch.full((4, n), 0.5, dtype=x.dtype) for n in (6, 6, 3)]
    for _ in range(4000):
        leaves = [s.detach().requires_grad_() for s in z]
        twin_objective(net, names, "mse", leaves, x, y, 1, beta).sum().backward()
        z = [s.detach() - 0.03 * s.grad for s in leaves]
        z = [s.clamp_min(0) for s in z[:-1]] + z[-1:]
    rule = dp.LiftedProximal(net, beta=beta, tolerance=1e-10, max_iterations=1000)
    for ours, theirs in zip(solved(rule, x, y), z, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)
    assert sum(int((s == 0).sum()) for s in z[:-1]) > 5  # some of them rest on their bound


@pytest.mark.parametrize("alpha", [1, 0])
def test_a_deep_linear_net_is_a_linear_system(alpha):
    """sℓ + Σ (1/2β_k)‖z_k - W_k z_{k-1} - b_k‖² is quadratic: its stationary point solves M z = c."""
    net, x, y = problem((5, 4, 6, 3), "linear", n=4)
    beta, sign = (0.06, 0.04, 0.05), 1.0 if alpha else -1.0
    W = [layer.synapse.weight.detach() for layer in net.chain]
    b = [layer.synapse.bias.detach() for layer in net.chain]
    starts = [0, 4, 10, 13]
    M = torch.zeros(13, 13, dtype=x.dtype)
    c = torch.zeros(13, 4, dtype=x.dtype)
    for k in range(3):
        rows = slice(starts[k], starts[k + 1])
        J = torch.zeros(W[k].shape[0], 13, dtype=x.dtype)  # z_k - W z_{k-1} as a matrix
        J[:, rows] = torch.eye(W[k].shape[0], dtype=x.dtype)
        constant = b[k][:, None].expand(-1, 4)
        if k:
            J[:, starts[k - 1] : starts[k]] = -W[k]
        else:
            constant = constant + W[0] @ x.T
        M += J.T @ J / beta[k]
        c += J.T @ constant / beta[k]
    M[10:, 10:] += sign * torch.eye(3, dtype=x.dtype)
    c[10:] += sign * F.one_hot(y, 3).T
    assert torch.linalg.eigvalsh(M).min() > 0  # it is a minimum
    expected = torch.linalg.solve(M, c).T.split([4, 6, 3], 1)
    rule = dp.LiftedProximal(net, alpha=alpha, beta=beta, tolerance=1e-12, max_iterations=500)
    for ours, theirs in zip(solved(rule, x, y), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def critical_beta(net: dp.Net) -> float:
    """Above it, maximising the squared error of a deep linear net against penalties of one β has no bound."""
    J = [torch.eye(net.chain[-1].synapse.weight.shape[0], dtype=torch.float64)]
    for layer in net.chain[:0:-1]:
        J.append(J[-1] @ layer.synapse.weight.detach())  # how z_L follows each nudge e_k
    return 1 / float(torch.linalg.matrix_norm(torch.cat(J, 1), 2) ** 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_objective_at_alpha_0_is_found_unbounded_exactly_where_it_is(dtype):
    net, x, y = problem((5, 4, 6, 3), "linear", n=4)
    critical = critical_beta(net)
    assert 0.05 < critical < 0.9
    net, x = net.to(dtype), x.to(dtype)
    step = dp.LiftedProximal(net, alpha=0, beta=0.97 * critical, max_iterations=1000).backward(x, y)
    assert step.measures["residual"] < 1e-3
    rule = dp.LiftedProximal(net, alpha=0, beta=1.03 * critical, max_iterations=1000)
    before = [p.grad.clone() for p in net.parameters()]
    with pytest.raises(
        dp.DivergenceError, match=r"alpha=0 .*unbounded.*layer \d.*iteration \d+.*smaller"
    ) as caught:
        rule.backward(x, y)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))


def test_cross_entropy_is_bounded_at_alpha_0_for_large_beta():
    net, x, y = problem((5, 16, 16, 3), "relu", n=6)
    for beta in (0.3, 1.0, 3.0):
        rule = dp.LiftedProximal(net, loss="cross_entropy", alpha=0, beta=beta, max_iterations=2000)
        step = rule.backward(x, y)
        assert step.measures["residual"] < 1e-3
        assert float(step.loss) < step.measures["objective"] < 1000


BOUNDS = {
    "activation": st.sampled_from(["relu", "tanh", "sigmoid", "leaky-relu", "hard-tanh", "softmax", "linear"]),
    "loss": st.sampled_from(["mse", "cross_entropy"]),
    "hidden": st.lists(st.integers(1, 9), max_size=3),
    "beta": st.floats(1e-3, 2.0),
    "gain": st.floats(0.2, 2.0),
    "seed": st.integers(0, 1000),
}


@given(**BOUNDS)
def test_the_feed_forward_loss_lies_between(activation, loss, hidden, beta, gain, seed):
    net, x, y = problem((4, *hidden, 3), activation, n=4, seed=seed)
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.weight.mul_(gain)
    plain = loss_of(loss, net(x), y).mean().item()
    low = dp.LiftedProximal(net, loss=loss, beta=beta).backward(x, y).measures["objective"]
    assert low <= plain + 1e-12
    with nullcontext() if loss == "cross_entropy" else suppress(dp.DualpropError):  # there may be no bound
        high = dp.LiftedProximal(net, loss=loss, alpha=0, beta=beta).backward(x, y).measures["objective"]
        assert plain <= high + 1e-12


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_the_objective_is_what_the_definition_says_of_the_states(activation, loss, alpha):
    net, x, y = problem(activation=activation)
    names, beta, sign = (activation, activation, "linear"), (0.07, 0.05, 0.06), 1 if alpha else -1
    rule = dp.LiftedProximal(net, loss=loss, alpha=alpha, beta=beta)
    value = twin_objective(net, names, loss, solved(rule, x, y), x, y, sign, beta).mean().item()
    measured = rule.backward(x, y).measures["objective"]
    assert measured == pytest.approx(value, rel=1e-12)
    plain = loss_of(loss, net(x), y).mean().item()
    assert sign * (plain - measured) > 1e-3 * plain  # it is not the start that is compared


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", Cosh()], ids=["mse", "cross_entropy", "own"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_gradient_is_that_of_the_objective(activation, loss, alpha):
    """The envelope theorem, against central differences of L_α along a direction in every parameter."""
    net, x, y = problem(activation=activation)
    if isinstance(loss, dp.Loss):
        y = torch.randn(5, 4, dtype=x.dtype)
    names, beta, sign = (activation, activation, "linear"), (0.08, 0.05, 0.06), 1 if alpha else -1
    rule = dp.LiftedProximal(net, loss=loss, alpha=alpha, beta=beta, tolerance=1e-9)

    def value() -> float:
        return twin_objective(net, names, loss, solved(rule, x, y), x, y, sign, beta).mean().item()

    gradient = gradient_of(rule, x, y)
    h = 1e-5
    for name, p in net.named_parameters():
        direction = torch.randn_like(p)
        with torch.no_grad():
            p.add_(h * direction)
            up = value()
            p.sub_(2 * h * direction)
            down = value()
            p.add_(h * direction)
        expected = (up - down) / (2 * h)
        assert float((gradient[name] * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9), name


ORDERS = [
    (activation, loss, (0.03, 0.01, 0.003))
    for activation in ("tanh", "sigmoid")
    for loss in ("mse", "cross_entropy")
]


@pytest.mark.parametrize(("activation", "loss", "betas"), ORDERS)
def test_each_side_errs_in_first_order_and_their_mean_in_second(activation, loss, betas):
    net, x, y = problem((6, 8, 8, 8, 4), activation, n=7)
    truth = flat(autograd_gradient(net, loss, x, y))
    errors = {"1": [], "0": [], "mean": []}
    for beta in betas:
        sides = [
            flat(gradient_of(dp.LiftedProximal(net, loss=loss, alpha=a, beta=beta, tolerance=1e-9), x, y))
            for a in (1, 0)
        ]
        for key, estimate in zip(errors, (*sides, sum(sides) / 2), strict=True):
            errors[key].append(float((estimate - truth).norm() / truth.norm()))
    assert slope(betas, errors["1"]) == pytest.approx(1.0, abs=0.1)
    assert slope(betas, errors["0"]) == pytest.approx(1.0, abs=0.1)
    assert slope(betas, errors["mean"]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("activation", sorted(n for n, p in dp.POTENTIALS.items() if p.convex))
def test_small_beta_recovers_backprop_for_every_convex_activation(activation, alpha):
    net, x, y = problem(activation=activation)
    rule = dp.LiftedProximal(net, alpha=alpha, beta=1e-6)
    assert relative_error(gradient_of(rule, x, y), autograd_gradient(net, "mse", x, y)) < 1e-4


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("beta", [1e-6, (1e-6, 3e-6, 2e-6, 5e-6)], ids=["one", "each"])
def test_small_beta_recovers_backprop_on_convolutions_and_pools(beta, alpha):
    net, (x, y) = small_conv_net("relu"), image_batch(5)
    rule = dp.LiftedProximal(net, alpha=alpha, beta=beta)
    assert relative_error(gradient_of(rule, x, y), autograd_gradient(net, "mse", x, y)) < 1e-4


IMAGE_NETS = {
    "in front": lambda: [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Affine(torch.nn.Conv2d(3, 4, 3), pool=dp.MaxPool2d(2)),
        dp.Dense(4, 3),
    ],
    "behind": lambda: [
        dp.Pooled(dp.Conv2d(2, 3, 3, padding=1), dp.MaxPool2d(2)),
        dp.Pooled(dp.Conv2d(3, 4, 3, padding=1), dp.SoftmaxPool2d(2)),
        dp.Dense(4, 3),
    ],
}


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("pools", IMAGE_NETS)
def test_the_gradient_is_that_of_the_objective_on_convolutions_and_pools(pools, alpha):
    net = image_net(IMAGE_NETS[pools]())
    x, y = image_batch(3)
    names, sign = ("tanh", "tanh", "linear"), 1 if alpha else -1
    rule = dp.LiftedProximal(net, alpha=alpha, beta=0.05, tolerance=1e-9)

    def value() -> float:
        return twin_objective(net, names, "mse", solved(rule, x, y), x, y, sign, (0.05,) * 3).mean().item()

    gradient = gradient_of(rule, x, y)
    for name, p in net.named_parameters():
        direction = torch.randn_like(p)
        sides = []
        for h in (1e-5, -2e-5):
            with torch.no_grad():
                p.add_(h * direction)
            sides.append(value())
        with torch.no_grad():
            p.add_(1e-5 * direction)
        expected = (sides[0] - sides[1]) / 2e-5
        assert float((gradient[name] * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9), name


def test_the_states_are_a_dyad_with_the_drives_own_activity():
    net, x, y = problem(activation="relu")
    for alpha in (1, 0):
        state = dp.LiftedProximal(net, alpha=alpha, beta=0.05).infer(x, y)
        lifted, plain = (state.plus, state.minus) if alpha else (state.minus, state.plus)
        assert torch.equal(lifted[0], x)
        assert torch.equal(plain[0], x)
        for k, layer in enumerate(net.chain, 1):
            torch.testing.assert_close(plain[k], layer(lifted[k - 1]).detach(), rtol=1e-12, atol=1e-14)
            assert float((lifted[k] - plain[k]).abs().max()) > 1e-4
            assert torch.equal(state.mean[k], lifted[k])


@pytest.mark.parametrize("name", sorted(dp.POTENTIALS))
def test_a_potential_tells_how_far_a_nudge_raises_it(name):
    f, a = dp.POTENTIALS[name], torch.randn(20, 6, dtype=torch.float64)
    for size in (1.0, 1e-3):
        e = size * torch.randn_like(a)
        z, rise = f.raised(a, e)
        torch.testing.assert_close(z, f(a + e), rtol=0, atol=1e-15)
        torch.testing.assert_close(rise, f(a + e) - f(a), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["linear", "relu", "hard-tanh", "hard-sigmoid"])
def test_no_nudge_is_too_small_for_a_box(name):
    f, a = dp.POTENTIALS[name], torch.tensor([[0.3, 0.7, -3.0]])
    e = torch.tensor([[1e-20, -1e-20, 1e-20]])
    _, rise = f.raised(a, e)
    assert torch.equal(rise, e if name == "linear" else torch.tensor([[1e-20, -1e-20, 0.0]]))


def test_an_objective_that_still_rises_at_the_last_iteration_is_no_maximum():
    digits = dp.data.load("digits")
    x, y = next(iter(dp.data.Batches(digits.train, 50, seed=0)))
    net = dp.nets.mlp([64, 64, 64, 64, 10], generator=torch.Generator().manual_seed(0))
    rule = dp.LiftedProximal(net, alpha=0, beta=0.3, max_iterations=20)
    with pytest.raises(
        dp.DivergenceError, match=r"^beta: .*alpha=0 seems unbounded.*iteration 20.*layer \d"
    ) as caught:
        rule.backward(x, y)
    assert "\n" not in str(caught.value)
    assert all(p.grad is None for p in net.parameters())
    step = dp.LiftedProximal(net, alpha=0, beta=0.1, max_iterations=3).backward(x, y)  # unsettled, but not far up
    assert step.measures["residual"] > 1e-3
