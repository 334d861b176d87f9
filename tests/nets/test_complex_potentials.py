"""Activations of complex drives: on the real line, off it, far out, and the Cauchy-Riemann equations."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

import dualprop as dp
from dualprop.nets.potentials import Rescaled, softmax
from dualprop.nets.potentials.complex import exponential


def logistic(a: complex) -> complex:
    return 1 / (1 + cmath.exp(-a))


BY_DEFINITION = {
    "linear": lambda a: a,
    "sigmoid": logistic,
    "shifted-sigmoid": lambda a: logistic(4 * (a - 0.5)),
    "tanh": cmath.tanh,
    "holo-tanh": lambda a: 0.5 * a * logistic(a) + (1 - 0.5 * a) * logistic(a - 2),
}
HOLOMORPHIC = [name for name, potential in dp.POTENTIALS.items() if potential.holomorphic]


def drives(seed: int = 0) -> Tensor:
    """Away from the poles, which are at least π/4 from the real line."""
    x, y = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.complex(2 * x, y.clamp(-1, 1) / 2)


def test_which_activations_are_holomorphic():
    assert set(HOLOMORPHIC) == {*BY_DEFINITION, "softmax"}


@pytest.mark.parametrize("name", BY_DEFINITION)
def test_values_off_the_real_line(name):
    potential, a = dp.POTENTIALS[name], drives()
    expected = torch.tensor([[BY_DEFINITION[name](n) for n in row] for row in a.tolist()], dtype=a.dtype)
    before = a.clone()
    torch.testing.assert_close(potential(a), expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(a, before)
    torch.testing.assert_close(potential.over(a.clone()), expected, rtol=1e-13, atol=1e-13)
    single = potential(a.to(torch.complex64))
    torch.testing.assert_close(single, expected.to(torch.complex64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*BY_DEFINITION, "softmax"])
def test_over_the_parts(name):
    """The same numbers, written over real and imaginary part; far out to the left, too."""
    potential, a = dp.POTENTIALS[name], drives()
    a[0, 0], a[1, 1] = -800 + 0.3j, 30 + 0.3j
    re, im = a.real.clone(), a.imag.clone()
    potential.over_parts(re, im)
    torch.testing.assert_close(torch.complex(re, im), potential(a), rtol=1e-12, atol=1e-13)
    assert torch.isfinite(re).all()
    assert torch.isfinite(im).all()


def test_softmax_off_the_real_line():
    a = drives()
    powers = torch.tensor([[cmath.exp(n) for n in row] for row in a.tolist()], dtype=a.dtype)
    torch.testing.assert_close(dp.POTENTIALS["softmax"](a), powers / powers.sum(1, keepdim=True))
    torch.testing.assert_close(softmax(a, 0), powers / powers.sum(0, keepdim=True))
    torch.testing.assert_close(softmax(a.real, 0), torch.softmax(a.real, 0))
    torch.testing.assert_close(exponential(a), powers)


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_values_on_the_real_line_are_those_of_real_drives(name):
    potential, a = dp.POTENTIALS[name], drives().real
    on_the_line = potential(torch.complex(a, torch.zeros_like(a)))
    torch.testing.assert_close(on_the_line.real, potential(a), rtol=1e-13, atol=1e-14)
    assert float(on_the_line.imag.abs().max()) == 0


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_the_cauchy_riemann_equations(name):
    """∂f/∂y = i ∂f/∂x, by central differences, each neuron's drive alone."""
    potential, a, step = dp.POTENTIALS[name], drives(), 1e-5
    for i in range(a.shape[1]):
        shift = torch.zeros_like(a)
        shift[:, i] = step
        along_x = (potential(a + shift) - potential(a - shift)) / (2 * step)
        along_y = (potential(a + 1j * shift) - potential(a - 1j * shift)) / (2 * step)
        torch.testing.assert_close(along_y, 1j * along_x, rtol=1e-8, atol=1e-8)
        assert float(along_x.abs().max()) > 0.1


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_a_complex_step_gives_the_derivative(name):
    """Im f(x + ih)/h = f'(x) without a rounding error, which autograd takes of the real f."""
    potential, h = dp.POTENTIALS[name], 1e-20
    x = drives().real.requires_grad_()
    (derivative,) = torch.autograd.grad(potential(x)[:, 0].sum(), x)
    step = torch.zeros_like(x)
    step[:, 0] = h
    f = potential(torch.complex(x.detach(), step))
    torch.testing.assert_close(f.imag[:, 0] / h, derivative[:, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in HOLOMORPHIC if name != "linear"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_far_out_it_is_where_the_real_activation_is(name, dtype):
    """1 / (1 + e^800) is 0, not NaN, whatever is added to 800 along the imaginary axis."""
    far = [-1e30, -1e4, -800, -800 + 1j, -800 - 2j, -90 + 1j, -50 + 1j, 50 + 1j, 90 + 1j, 800 + 1j, 800 - 2j, 1e30]
    a = torch.tensor([[drive, 0] for drive in far], dtype=dtype)
    real = dp.POTENTIALS[name](a.real.double())
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(dp.POTENTIALS[name](a), real.to(dtype), rtol=0, atol=rounding)


def test_poles_are_where_the_definition_has_them():
    near = torch.tensor([[math.pi * 1j + 1e-6]], dtype=torch.complex128)
    assert abs(complex(dp.POTENTIALS["sigmoid"](near))) == pytest.approx(1e6, rel=1e-6)


def test_a_rescaled_potential_takes_complex_drives():
    a = drives()
    f = Rescaled(dp.POTENTIALS["tanh"], 1.5, -0.25)
    expected = torch.tensor([[cmath.tanh(1.5 * (n + 0.25)) for n in row] for row in a.tolist()], dtype=a.dtype)
    torch.testing.assert_close(f(a), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(f.over(a.clone()), expected, rtol=1e-12, atol=1e-12)
