"""Pools of complex states, and the soft-max pool: values by the definition, derivatives, large numbers."""

from __future__ import annotations

import cmath
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import dualprop as dp
from dualprop.nets.synapses import POOLS
from tests.oracles.refused import refused

HOLOMORPHIC = [kind for kind in POOLS.values() if kind.holomorphic]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def images(*shape: int, seed: int = 0, kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=kind)


def windows(z: Tensor, size: int, stride: int) -> list[tuple[tuple[int, int, int, int], list[tuple[int, int]]]]:
    """Sample, channel, row and column of every pooled neuron, with the rows and columns of its window."""
    found = []
    for n, c in itertools.product(*map(range, z.shape[:2])):
        for i in range((z.shape[2] - size) // stride + 1):
            for j in range((z.shape[3] - size) // stride + 1):
                at = [(i * stride + u, j * stride + v) for u in range(size) for v in range(size)]
                found.append(((n, c, i, j), at))
    return found


def by_definition(pool: dp.synapses.Pool, z: Tensor) -> Tensor:
    """Σ z e^{z/T} / Σ e^{z/T} over each window, or the mean, number by number."""
    temperature = getattr(pool, "temperature", None)
    p = z.new_zeros(len(z), *pool.out_shape(tuple(z.shape[1:])))
    for place, at in windows(z, pool.size, pool.stride):
        values = [complex(z[place[0], place[1], u, v]) for u, v in at]
        powers = [1 if temperature is None else cmath.exp(value / temperature) for value in values]
        pooled = sum(a * b for a, b in zip(values, powers, strict=True)) / sum(powers)
        p[place] = pooled if z.is_complex() else pooled.real
    return p


def test_which_pools_are_holomorphic():
    assert [name for name, kind in POOLS.items() if kind.holomorphic] == ["avg", "softmax"]


GEOMETRY = {
    "size": st.integers(1, 3),
    "stride": st.integers(1, 4),
    "height": st.integers(3, 6),
    "width": st.integers(3, 5),
    "layout": st.sampled_from(LAYOUTS),
    "seed": st.integers(0, 99),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("kind", HOLOMORPHIC)
@given(**GEOMETRY)
def test_values_are_those_of_the_definition(kind, dtype, size, stride, height, width, layout, seed):
    z = images(2, 2, height, width, seed=seed, kind=dtype).to(memory_format=layout)
    pool = kind(size, stride)
    p, seen = pool.linearise(z)
    torch.testing.assert_close(p, by_definition(pool, z))
    assert torch.equal(pool(z), p)
    assert (seen.shape, seen.operand, seen.layout) == (z.shape, p.shape, dp.synapses.layout(z))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 10.0])
@given(**GEOMETRY)
def test_the_soft_max_pool_s_adjoint_is_autograd_s(temperature, size, stride, height, width, layout, seed):
    pool = dp.SoftmaxPool2d(size, stride, temperature)
    z = images(2, 3, height, width, seed=seed).to(memory_format=layout).requires_grad_()
    p = pool(z)
    torch.testing.assert_close(p, by_definition(pool, z.detach()))
    delta = images(*p.shape, seed=seed + 1)
    (truth,) = torch.autograd.grad(p, z, delta)
    back = pool.adjoint(delta, pool.linearise(z.detach())[1])
    torch.testing.assert_close(back, truth)
    assert dp.synapses.layout(back) == dp.synapses.layout(z)


@pytest.mark.parametrize("kind", HOLOMORPHIC)
@given(**GEOMETRY)
def test_the_adjoint_is_the_transpose_of_the_complex_derivative(kind, size, stride, height, width, layout, seed):
    """<P'(z) v, u> = <v, P'(z)^T u> without conjugation, P'(z) v by central differences along both axes."""
    pool, h, shape = kind(size, stride), 1e-5, (1, 2, height, width)
    z, v = (images(*shape, seed=seed + n, kind=torch.complex128).to(memory_format=layout) for n in (0, 200))
    _, seen = pool.linearise(z)
    u = images(*seen.operand, seed=seed + 400, kind=torch.complex128)
    along_x = (pool(z + h * v) - pool(z - h * v)) / (2 * h)
    along_y = (pool(z + 1j * h * v) - pool(z - 1j * h * v)) / (2 * h)
    torch.testing.assert_close(along_y, 1j * along_x, rtol=1e-6, atol=1e-6)  # Cauchy and Riemann
    torch.testing.assert_close((along_x * u).sum(), (v * pool.adjoint(u, seen)).sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", HOLOMORPHIC)
def test_a_complex_step_gives_the_real_pool_s_derivative(kind):
    pool, z, v, h = kind(3, 2), images(2, 2, 7, 6), images(2, 2, 7, 6, seed=1), 1e-20
    derivative = torch.autograd.functional.jvp(pool, z, v)[1]
    torch.testing.assert_close(pool(torch.complex(z, h * v)).imag / h, derivative, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", HOLOMORPHIC)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_complex_states_keep_their_layout(kind, layout):
    z = images(2, 4, 6, 6, kind=torch.complex64).to(memory_format=layout)
    p, seen = kind(2).linearise(z)
    assert p.is_contiguous(memory_format=layout)
    assert kind(2).adjoint(p, seen).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_large_numbers_do_not_overflow(dtype):
    """Where one neuron is far above the others it is the maximum, whatever the imaginary parts."""
    z = images(2, 3, 4, 4).to(dtype)
    z[:, :, ::2, ::2] += 1e4
    z[:, :, 1::2, 1::2] -= 1e4
    p, seen = dp.SoftmaxPool2d(2).linearise(z)
    torch.testing.assert_close(p, z[:, :, ::2, ::2], rtol=0, atol=0)
    back = dp.SoftmaxPool2d(2).adjoint(torch.ones_like(p), seen)
    expected = torch.zeros_like(z)
    expected[:, :, ::2, ::2] = 1
    assert torch.equal(back, expected)


def test_the_temperature_takes_it_from_the_mean_to_the_maximum():
    z = images(2, 3, 6, 6)
    torch.testing.assert_close(dp.SoftmaxPool2d(temperature=1e9)(z), dp.AvgPool2d()(z), rtol=0, atol=1e-8)
    torch.testing.assert_close(dp.SoftmaxPool2d(temperature=1e-6)(z), dp.MaxPool2d()(z), rtol=0, atol=1e-8)
    equal = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)
    back = dp.SoftmaxPool2d(2).adjoint(torch.ones(1, 1, 1, 1).double(), dp.SoftmaxPool2d(2).linearise(equal)[1])
    torch.testing.assert_close(back, torch.full_like(equal, 0.25))


def test_low_precision_costs_one_rounding():
    z = images(2, 4, 6, 6, seed=5).bfloat16()
    pool, delta = dp.SoftmaxPool2d(2), images(2, 4, 3, 3).bfloat16()
    exact, exact_seen = pool.linearise(z.double())
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            p, seen = pool.linearise(z)
            back = pool.adjoint(delta, seen)
        assert p.dtype == back.dtype == torch.bfloat16
        assert torch.equal(p, exact.float().bfloat16())
        torch.testing.assert_close(back.double(), pool.adjoint(delta.double(), exact_seen), rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_bad_temperatures(bad):
    with refused(r"^temperature="):
        dp.SoftmaxPool2d(temperature=bad)


def test_pools_by_name():
    assert [repr(POOLS[name](3, 1)) for name in ("max", "avg", "softmax")] == [
        "MaxPool2d(3, stride=1)",
        "AvgPool2d(3, stride=1)",
        "SoftmaxPool2d(3, stride=1, temperature=1)",
    ]
    with pytest.raises(dp.DualpropError, match=r"^unknown pool 'mean'"):
        POOLS["mean"]
