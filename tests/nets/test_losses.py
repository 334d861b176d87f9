"""Losses: the values from the definition, and the output step as the stationary point that it claims to be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import dualprop as dp
from dualprop.errors import DualpropError

unit = st.floats(0.05, 1.0)
number = st.floats(-3, 3)


def double(*numbers: float) -> Tensor:
    return torch.tensor([list(numbers)], dtype=torch.float64)


@given(a=number, y=number, up=unit, down=st.floats(0.05, 0.95))
def test_the_exact_step_is_stationary_for_the_squared_error(a, y, up, down):
    """z^+ minimises αβ ½(z - y)² + ½z² - za, z^- maximises ᾱβ ½(z - y)² - ½z² + za: where derivatives vanish."""
    plus, minus = dp.LOSSES["mse"].output_step(dp.POTENTIALS["linear"], double(a), double(y), up, down)
    assert up * (float(plus) - y) + float(plus) - a == pytest.approx(0, abs=1e-9)
    assert down * (float(minus) - y) - float(minus) + a == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["relu", "hard-sigmoid", "hard-tanh", "linear"])
@pytest.mark.parametrize("a", [-2.2, -0.3, 0.4, 1.7])
@pytest.mark.parametrize("y", [-1.0, 0.0, 0.6, 1.0])
def test_the_exact_step_on_a_box_is_the_optimum_found_by_brute_force(name, a, y):
    f, up, down = dp.POTENTIALS[name], 0.7, 0.6
    low, high = {"relu": (0, 12), "hard-sigmoid": (0, 1), "hard-tanh": (-1, 1), "linear": (-12, 12)}[name]
    grid = torch.linspace(low, high, 240_001, dtype=torch.float64)
    loss, energy = 0.5 * (grid - y) ** 2, 0.5 * grid**2 - grid * a
    best_plus = float(grid[torch.argmin(up * loss + energy)])
    best_minus = float(grid[torch.argmax(down * loss - energy)])
    plus, minus = dp.LOSSES["mse"].output_step(f, double(a), double(y), up, down)
    assert float(plus) == pytest.approx(best_plus, abs=2e-4)
    assert float(minus) == pytest.approx(best_minus, abs=2e-4)


@given(st.lists(number, min_size=3, max_size=3), st.integers(0, 2), unit, unit)
def test_cross_entropy_nudges_the_logits_by_y_minus_softmax(a, label, up, down):
    weights = [math.exp(v) for v in a]
    force = [float(i == label) - w / sum(weights) for i, w in enumerate(weights)]
    target = double(*(float(i == label) for i in range(3)))
    plus, minus = dp.LOSSES["cross_entropy"].output_step(dp.POTENTIALS["linear"], double(*a), target, up, down)
    torch.testing.assert_close(plus, double(*(v + up * g for v, g in zip(a, force, strict=True))))
    torch.testing.assert_close(minus, double(*(v - down * g for v, g in zip(a, force, strict=True))))


@pytest.mark.parametrize("name", sorted(dp.LOSSES))
def test_values_are_per_sample_and_from_the_definition(name):
    z, y = torch.randn(5, 4, dtype=torch.float64), torch.softmax(torch.randn(5, 4, dtype=torch.float64), 1)
    values = dp.LOSSES[name].value(z, y)
    assert values.shape == (5,)
    for n in range(5):
        if name == "cross_entropy":
            total = math.log(sum(math.exp(v) for v in z[n].tolist()))
            expected = sum(t * (total - v) for t, v in zip(y[n].tolist(), z[n].tolist(), strict=True))
        else:
            expected = sum((v - t) ** 2 for t, v in zip(y[n].tolist(), z[n].tolist(), strict=True)) / 2
        assert float(values[n]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", sorted(dp.LOSSES))
def test_the_gradient_is_the_derivative_of_the_value(name):
    loss = dp.LOSSES[name]
    z = torch.randn(5, 4, dtype=torch.float64)
    y = torch.softmax(torch.randn(5, 4, dtype=torch.float64), 1)
    gradient, step = loss.gradient(z, y), 1e-6
    for i in range(4):
        shift = torch.zeros_like(z)
        shift[:, i] = step
        slope = (loss.value(z + shift, y) - loss.value(z - shift, y)) / (2 * step)
        torch.testing.assert_close(slope, gradient[:, i], rtol=1e-6, atol=1e-8)


def test_a_loss_of_ones_own_needs_a_value_alone():
    class Cosh(dp.Loss):
        def value(self, z: Tensor, y: Tensor) -> Tensor:
            return torch.log(torch.cosh(z - y)).sum(1)

    z, y = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    with torch.no_grad():
        gradient = Cosh().gradient(z, y)
    assert not gradient.requires_grad
    assert not z.requires_grad
    torch.testing.assert_close(gradient, torch.tanh(z - y))
    plus, minus = Cosh().output_step(dp.POTENTIALS["sigmoid"], z, y, 0.3, 0.7)
    force = torch.tanh(torch.sigmoid(z) - y)
    torch.testing.assert_close(plus, torch.sigmoid(z - 0.3 * force))
    torch.testing.assert_close(minus, torch.sigmoid(z + 0.7 * force))


def test_the_output_step_writes_over_none_of_its_arguments():
    for loss in dp.LOSSES.values():
        a, y = torch.randn(3, 2, dtype=torch.float64), torch.softmax(torch.randn(3, 2, dtype=torch.float64), 1)
        before = a.clone(), y.clone()
        loss.output_step(dp.POTENTIALS["linear"], a, y, 0.5, 0.5)
        assert torch.equal(a, before[0])
        assert torch.equal(y, before[1])


def test_class_indices_become_one_hot_rows():
    encoded = dp.LOSSES["mse"].encode(torch.tensor([2, 0]), torch.Size((2, 3)), torch.float64)
    assert encoded.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert encoded.dtype == torch.float64


def test_the_exact_step_refuses_a_nudge_that_has_no_maximum():
    with pytest.raises(DualpropError, match="beta"):
        dp.LOSSES["mse"].check(dp.POTENTIALS["linear"], 1.0)
    dp.LOSSES["mse"].check(dp.POTENTIALS["linear"], 0.999)
    dp.LOSSES["mse"].check(dp.POTENTIALS["sigmoid"], 3.0)
    dp.LOSSES["mse-linearised"].check(dp.POTENTIALS["linear"], 3.0)
