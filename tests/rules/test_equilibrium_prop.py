"""EquilibriumProp against its twins: orders in β, every step of the published formulation, linear closed forms."""

from __future__ import annotations

import warnings
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
    finite_difference,
    gradient_of,
    image_batch,
    image_net,
    relative_error,
    slope,
)
from tests.oracles.hopfield_twin import ORDERS, Equilibrium, Published, drive, one_hot

pytestmark = pytest.mark.filterwarnings("ignore:T1=")  # what a step computes, settled or not

SETTLED = {"T1": 3000, "T2": 3000, "tolerance": 1e-12}
SIZES = (5, 4, 4, 3)  # the toy's


def toy(loss: str, seed: int, activation: str = "sigmoid", scale: float = 1.0) -> tuple[dp.Net, Tensor, Tensor]:
    """A toy net, its weights Glorot's times a scale, and a batch of four."""
    net = double_net(SIZES, activation, seed=seed)
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.weight.mul_(scale)
    return net, *double_batch(4, SIZES[0], SIZES[-1], seed=seed)


def equilibrium(net: dp.Net, x: Tensor, y: Tensor, loss: str, activation: str = "sigmoid") -> Equilibrium:
    return Equilibrium(net, activation, x, one_hot(y, SIZES[-1], x), loss)


# The truth


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_twins_implicit_gradient_is_that_of_newtons_equilibria_by_finite_differences(loss):
    net, x, y = toy(loss, 0)
    twin = equilibrium(net, x[:1], y[:1], loss)
    z = twin.solve()
    ours = twin.true_gradient()
    for name, p in net.named_parameters():
        slopes = finite_difference(lambda: twin.mean_cost(twin.solve(start=z)), p)
        torch.testing.assert_close(ours[name].flatten(), slopes, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_settled_states_are_newtons(loss, order):
    net, x, y = toy(loss, 1)
    twin = equilibrium(net, x, y, loss)
    rule = dp.EquilibriumProp(net, loss=loss, variant="centred", beta=0.2, order=order, **SETTLED)
    state = rule.infer(x, y)
    for side, beta in ((state.plus, 0.2), (state.minus, -0.2)):
        solved = twin.solve(beta).split(twin.sizes, 1)
        for ours, theirs in zip(side[1:], solved, strict=False):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    free = twin.solve().split(twin.sizes, 1)[-1]
    output = free if loss == "mse" else drive(net.chain[-1].synapse, free).detach()
    torch.testing.assert_close(rule.predict(x), output, rtol=0, atol=1e-10)
    target = one_hot(y, 3, x)
    value = 0.5 * (output - target).square().sum(1) if loss == "mse" else torch.logsumexp(output, 1)
    if loss != "mse":
        value = value - (target * output).sum(1)
    assert float(rule.backward(x, y).loss) == pytest.approx(float(value.mean()), abs=1e-10)


# Orders in β

BETAS = (0.005, 0.01, 0.02)


def error_slope(net, x, y, loss, truth, **settings) -> float:
    errors = [
        relative_error(gradient_of(dp.EquilibriumProp(net, loss=loss, beta=b, **settings, **SETTLED), x, y), truth)
        for b in BETAS
    ]
    return slope(BETAS, errors)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_error_falls_as_beta_or_as_its_square(loss, seed):
    net, x, y = toy(loss, seed)
    truth = equilibrium(net, x, y, loss).true_gradient()
    for variant in ("positive", "negative", "random-sign"):
        # the same sign for all β: each rule draws its first
        assert error_slope(net, x, y, loss, truth, variant=variant) == pytest.approx(1, abs=0.1), variant
    assert error_slope(net, x, y, loss, truth, variant="centred") == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("order", list(ORDERS))
def test_settled_gradients_do_not_depend_on_the_order(order):
    net, x, y = toy("mse", 0)
    ours = gradient_of(dp.EquilibriumProp(net, beta=0.1, order=order, **SETTLED), x, y)
    assert_same(ours, gradient_of(dp.EquilibriumProp(net, beta=0.1, **SETTLED), x, y), rtol=1e-8)


def test_one_sided_errors_have_opposite_signs():
    """So their mean is the centred estimate, to the bit of rounding."""
    net, x, y = toy("mse", 0)
    positive, negative, centred = (
        gradient_of(dp.EquilibriumProp(net, variant=v, beta=0.1, **SETTLED), x, y)
        for v in ("positive", "negative", "centred")
    )
    assert_same({n: (positive[n] + negative[n]) / 2 for n in positive}, centred, rtol=1e-9)
    assert relative_error(positive, negative) > 0.1


# Every step of the published formulation: few of them, nothing has settled

NUDGES = {"positive": (0.3, 0.0), "negative": (0.0, -0.3), "centred": (0.3, -0.3)}


def of_layers(net: dp.Net, activation: str, loss: str) -> list[str]:
    """The names of f_1 .. f_M."""
    return [activation] * (len(net) - 1) + ["linear"] * (loss == "mse")


@pytest.mark.parametrize("variant", list(NUDGES))
@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("sizes", [(5, 3), (5, 4, 3), (5, 6, 4, 7, 3)], ids=str)
def test_dense_nets_step_by_step(sizes, loss, order, variant):
    net, (x, y) = double_net(sizes, "shifted-sigmoid"), double_batch(4, 5, 3)
    names = of_layers(net, "shifted-sigmoid", loss)
    twin = Published(net, names, x, one_hot(y, 3, x), loss=loss, order=order)
    free = twin.free(7)
    expected, output = twin.ep(free, 5, *NUDGES[variant]), twin.output(free)
    rule = dp.EquilibriumProp(net, loss=loss, variant=variant, beta=0.3, T1=7, T2=5, order=order)
    assert_same(gradient_of(rule, x, y), expected, rtol=1e-12)
    torch.testing.assert_close(rule.predict(x), output, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(rule.backward(x, y).output, output, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("activation", ["hard-sigmoid", "half-hard-sigmoid", "hard-tanh", "tanh", "holo-tanh"])
def test_activations_step_by_step(activation):
    net, (x, y) = double_net((5, 6, 4, 3), activation), double_batch(4, 5, 3)
    twin = Published(net, of_layers(net, activation, "mse"), x, one_hot(y, 3, x), order="even-odd")
    expected = twin.ep(twin.free(7), 5, 0.3, 0.0)
    ours = gradient_of(dp.EquilibriumProp(net, beta=0.3, T1=7, T2=5), x, y)
    assert_same(ours, expected, rtol=1e-12)


@pytest.mark.parametrize(("variant", "nudges"), [("positive", (0.3, 0.0)), ("negative", (0.0, -0.3))])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_states_of_the_same_age_step_by_step(loss, variant, nudges):
    net, (x, y) = double_net((5, 6, 4, 3), "sigmoid"), double_batch(4, 5, 3)
    twin = Published(net, of_layers(net, "sigmoid", loss), x, one_hot(y, 3, x), loss=loss, order="even-odd")
    expected = twin.ep(twin.free(3), 5, *nudges, same_age=True)
    rule = dp.EquilibriumProp(net, loss=loss, variant=variant, beta=0.3, T1=3, T2=5, same_age=True)
    assert_same(gradient_of(rule, x, y), expected, rtol=1e-12)
    older = dp.EquilibriumProp(net, loss=loss, variant=variant, beta=0.3, T1=3, T2=5)
    assert relative_error(gradient_of(older, x, y), expected) > 0.05


def test_a_short_free_phase_is_warned_of_once_and_spoils_states_of_the_same_age_less():
    net = dp.nets.mlp(
        [64, 100, 100, 10], "shifted-sigmoid", init="uniform-fan-in", generator=torch.Generator().manual_seed(0)
    )
    net.double()
    x, y = torch.rand(20, 64, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20) % 10
    steps = {"T1": 7, "T2": 10, "order": "synchronous"}
    rule = dp.EquilibriumProp(net, **steps)
    with pytest.warns(
        UserWarning, match=r"^T1=7: the free phase has not settled, its states still move by 0\.0.*same_age=True$"
    ):
        rule.backward(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.backward(x, y)
        aged = dp.EquilibriumProp(net, same_age=True, **steps)
        aged.backward(x, y)
        dp.EquilibriumProp(net, variant="centred", **steps).backward(x, y)
        dp.EquilibriumProp(net, T1=30).backward(x, y)
    assert max(dp.alignment(rule, x, y).own) < 0.9 < 0.99 < min(dp.alignment(aged, x, y).own)


def front(pool: dp.Pool, tight: dp.Pool) -> list[dp.Synapse]:
    """Pools in front of a convolution and of a dense layer."""
    return [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 4, 3, padding=1, pool=pool),
        dp.Dense(16, 5, pool=tight),
        dp.Dense(5, 3),
    ]


def behind(pool: dp.Pool, tight: dp.Pool) -> list[dp.Synapse]:
    """Pools behind two convolutions, and one in front of the second as well."""
    return [
        dp.Pooled(dp.Conv2d(2, 3, 3, padding=1), pool),
        dp.Pooled(dp.Conv2d(3, 4, 3, padding=1, pool=dp.AvgPool2d(2, 1)), tight),
        dp.Dense(4, 3),
    ]


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("kind", [dp.MaxPool2d, dp.AvgPool2d, dp.SoftmaxPool2d])
@pytest.mark.parametrize("made", [front, behind])
def test_conv_nets_step_by_step(made, kind, loss, order):
    net, (x, y) = image_net(made(kind(2), kind(2, 1)), "shifted-sigmoid"), image_batch(3)
    names = of_layers(net, "shifted-sigmoid", loss)
    twin = Published(net, names, x, one_hot(y, 3, x), loss=loss, order=order)
    free = twin.free(7)
    expected, output = twin.ep(free, 5, 0.3, -0.3), twin.output(free)
    rule = dp.EquilibriumProp(net, loss=loss, variant="centred", beta=0.3, T1=7, T2=5, order=order)
    assert_same(gradient_of(rule, x, y), expected, rtol=1e-12)
    torch.testing.assert_close(rule.predict(x), output, rtol=1e-13, atol=1e-13)


# Deep linear nets


def linear_net(depth: int = 3, seed: int = 0) -> tuple[dp.Net, Tensor, Tensor]:
    """All potentials linear, weights so small that states settle, targets of the output's size."""
    net = double_net([5, *[4] * (depth - 1), 3], "linear", seed=seed)
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.weight.mul_(0.4)
    return net, *double_batch(6, 5, 3, seed=seed)


def linear_equilibrium(net: dp.Net, x: Tensor, y: Tensor, beta: complex) -> list[Tensor]:
    """z_0 .. z_L of z_k = W_k z_{k-1} + b_k + W_{k+1}^T z_{k+1}, z_L = W_L z_{L-1} + b_L - β (z_L - y).

    One linear system M z = r in all states: identities on the diagonal, 1 + β in the last, -W_k below it, -W_k^T
    above; W_1 x + b_1, b_2, .., b_L + β y on the right.
    """
    W = [layer.synapse.weight.detach() for layer in net.chain]
    b = [layer.synapse.bias.detach() for layer in net.chain]
    sizes = [len(bias) for bias in b]
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    kind = torch.complex128 if isinstance(beta, complex) else torch.float64
    M, r = torch.eye(ends[-1], dtype=kind), torch.zeros(len(x), ends[-1], dtype=kind)
    rows = [slice(*pair) for pair in pairwise(ends)]
    for k in range(len(W)):
        r[:, rows[k]] += b[k]
        if k:
            M[rows[k], rows[k - 1]] -= W[k]
            M[rows[k - 1], rows[k]] -= W[k].T
    r[:, rows[0]] += x @ W[0].T
    M[rows[-1], rows[-1]] *= 1 + beta
    r[:, rows[-1]] += beta * y
    return [x.to(kind), *torch.linalg.solve(M, r.T).T.split(sizes, 1)]


def linear_contrast(net: dp.Net, parts: list[tuple[complex, list[Tensor]]]) -> dict[str, Tensor]:
    """The batch mean of Re Σ w ∂E/∂W_k, ∂E/∂W_k = -z_k z_{k-1}^T, ∂E/∂b_k = -z_k, over pairs of w and states."""
    gradient = {}
    for k in range(1, len(net) + 1):
        w, b = (f"layers.{k - 1}.synapse.{name}" for name in ("weight", "bias"))
        gradient[w] = -sum((c * z[k].T @ z[k - 1]).real for c, z in parts) / len(parts[0][1][0])
        gradient[b] = -sum((c * z[k].sum(0)).real for c, z in parts) / len(parts[0][1][0])
    return gradient


@pytest.mark.parametrize("variant", list(NUDGES))
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_deep_linear_net_has_its_closed_form_at_a_finite_beta(depth, variant):
    net, x, y = linear_net(depth)
    target = one_hot(y, 3, x)
    high, low = NUDGES[variant]
    parts = [(s / (high - low), linear_equilibrium(net, x, target, b)) for s, b in ((1, high), (-1, low))]
    expected = linear_contrast(net, parts)
    ours = gradient_of(dp.EquilibriumProp(net, variant=variant, beta=0.3, **SETTLED), x, y)
    assert_same(ours, expected, rtol=1e-9)
    if depth > 1:  # its equilibrium is not the feed-forward net
        assert relative_error(ours, autograd_gradient(net, "mse", x, y)) > 0.1


# Random signs


def test_random_signs_are_drawn_for_every_batch_from_the_rules_own_generator():
    net, x, y = toy("mse", 0)
    settings = {"beta": 0.3, "T1": 7, "T2": 5}
    twin = Published(net, of_layers(net, "sigmoid", "mse"), x, one_hot(y, 3, x), order="even-odd")
    sides = [twin.ep(twin.free(7), 5, beta, 0.0) for beta in (0.3, -0.3)]
    drawn = []
    for seed in (0, 1, 1):
        rule = dp.EquilibriumProp(net, variant="random-sign", seed=seed, **settings)
        before = torch.get_rng_state()
        errors = []
        for _ in range(12):
            ours = gradient_of(rule, x, y)
            errors.append([relative_error(ours, side) for side in sides])
        assert torch.equal(torch.get_rng_state(), before)
        assert all(min(pair) < 1e-12 < 0.01 < max(pair) for pair in errors)
        drawn.append([up < down for up, down in errors])
        assert set(drawn[-1]) == {True, False}
    assert drawn[1] == drawn[2] != drawn[0]


def test_inference_shows_the_sign_that_the_next_batch_draws():
    net, x, y = toy("mse", 0)
    rule = dp.EquilibriumProp(net, variant="random-sign", beta=0.3, T1=7, T2=5)
    for _ in range(8):
        state = rule.infer(x, y)
        moved = {f"layers.{k - 1}.synapse.bias": -d.mean(0) / 0.3 for k, d in enumerate(state.difference) if k}
        ours = gradient_of(rule, x, y)
        assert_same({name: ours[name] for name in moved}, moved, rtol=1e-11)


@pytest.mark.parametrize("variant", list(NUDGES))
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_inference_shows_the_higher_nudge_as_plus_and_the_lower_as_minus(loss, variant):
    net, x, y = toy(loss, 0)
    twin = Published(net, of_layers(net, "sigmoid", loss), x, one_hot(y, 3, x), loss=loss, order="even-odd")
    free = twin.free(7)
    state = dp.EquilibriumProp(net, loss=loss, variant=variant, beta=0.3, T1=7, T2=5).infer(x, y)
    for side, beta in zip((state.plus, state.minus), NUDGES[variant], strict=True):
        ends = twin.run(free, 5, beta) if beta else free
        for ours, theirs in zip(side[1:], ends, strict=False):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(side[-1], twin.output(ends), rtol=1e-12, atol=1e-14)
