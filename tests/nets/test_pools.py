"""Pools: their values, their linearisation at a state, their shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dualprop as dp
from dualprop.nets.synapses import POOLS
from tests.oracles.conv_twin import Link
from tests.oracles.refused import refused

KINDS = {dp.MaxPool2d: "max", dp.AvgPool2d: "mean"}
ALL = list(POOLS.values())


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(pool: dp.MaxPool2d | dp.AvgPool2d, z: torch.Tensor) -> list[torch.Tensor]:
    """The pool's matrix at each sample of z, by its definition."""
    link = Link(tuple(z.shape[1:]), (KINDS[type(pool)], pool.size, pool.stride), 0, 0, 0, [])
    return [torch.from_numpy(link.pooling(sample.flatten().numpy())) for sample in z]


@pytest.mark.parametrize("kind", KINDS)
@given(
    size=st.integers(1, 3),
    stride=st.integers(1, 4),
    height=st.integers(3, 7),
    width=st.integers(3, 6),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_adjoint_are_those_of_the_matrix_and_of_autograd(
    kind, size, stride, height, width, channels_last, seed
):
    pool, z = kind(size, stride), images(2, 3, height, width, seed=seed)
    if channels_last:
        z = z.to(memory_format=torch.channels_last)
    p, seen = pool.linearise(z)
    assert torch.equal(p, pool(z))
    assert pool.out_shape(z.shape[1:]) == p.shape[1:]
    assert (seen.shape, seen.operand) == (z.shape, p.shape)
    delta = images(*p.shape, seed=seed + 1)
    if channels_last:
        delta = delta.to(memory_format=torch.channels_last)
    back = pool.adjoint(delta, seen)
    for n, m in enumerate(matrices(pool, z.contiguous())):
        torch.testing.assert_close(p[n].flatten(), m @ z[n].flatten())
        torch.testing.assert_close(back[n].flatten(), m.T @ delta[n].flatten())
    w = z.clone().requires_grad_()
    (truth,) = torch.autograd.grad(pool(w), w, delta)
    torch.testing.assert_close(back, truth)


@pytest.mark.parametrize("kind", KINDS)
@given(size=st.integers(1, 3), stride=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_adjoint_identity(kind, size, stride, seed):
    """<P'(z) v, u> = <v, P'(z)^T u> with the matrix P'(z) that z gives."""
    pool, z, v = kind(size, stride), images(2, 2, 5, 6, seed=seed), images(2, 2, 5, 6, seed=seed + 200)
    _, seen = pool.linearise(z)
    u = images(*seen.operand, seed=seed + 400)
    forward = torch.stack([m @ x.flatten() for m, x in zip(matrices(pool, z), v, strict=True)])
    torch.testing.assert_close((forward * u.flatten(1)).sum(), (v * pool.adjoint(u, seen)).sum())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_first_among_equals_wins(layout):
    z = torch.zeros(1, 2, 4, 4, dtype=torch.float64).to(memory_format=layout)
    pool = dp.MaxPool2d(2)
    back = pool.adjoint(torch.ones(1, 2, 2, 2, dtype=torch.float64).to(memory_format=layout), pool.linearise(z)[1])
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[::2, ::2] = 1
    assert torch.equal(back[0, 0], expected)
    assert torch.equal(back[0, 1], expected)


@pytest.mark.parametrize("kind", [dp.MaxPool2d, dp.SoftmaxPool2d])
def test_what_was_seen_is_the_state_of_then(kind):
    """The state itself may change or go afterwards."""
    pool, z, delta = kind(2), images(2, 3, 6, 6), images(2, 3, 3, 3, seed=1)
    _, seen = pool.linearise(z)
    expected = pool.adjoint(delta, seen)
    z.neg_()
    assert torch.equal(pool.adjoint(delta, seen), expected)
    assert not torch.equal(pool.adjoint(delta, pool.linearise(z)[1]), expected)


def test_a_linear_pool_has_one_linearisation_for_every_state():
    assert [pool for pool in ALL if pool.linear] == [dp.AvgPool2d]
    pool, delta = dp.AvgPool2d(2), images(2, 3, 3, 3)
    backs = [pool.adjoint(delta, pool.linearise(images(2, 3, 6, 6, seed=seed))[1]) for seed in (1, 2)]
    assert torch.equal(*backs)


@pytest.mark.parametrize("kind", ALL)
def test_half_precision_and_memory_format_are_kept(kind):
    for layout in (torch.contiguous_format, torch.channels_last):
        z = images(2, 4, 6, 6).bfloat16().to(memory_format=layout)
        p, seen = kind(2).linearise(z)
        back = kind(2).adjoint(p, seen)
        assert p.dtype == back.dtype == torch.bfloat16
        assert p.is_contiguous(memory_format=layout)
        assert back.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("kind", ALL)
def test_bad_pools_and_images(kind):
    for bad in (0, -1, 1.5, "2", None):
        with refused(r"^size="):
            kind(bad)
    for bad in (0, -1, 1.5):
        with pytest.raises(dp.DualpropError, match=r"^stride="):
            kind(2, bad)
    assert kind(2).stride == 2
    for shape in ((3, 1, 4), (3, 4, 1), (16,), (4, 4)):
        with refused(r"^x: .*2 x 2"):
            kind(2).out_shape(shape)
    with pytest.raises(dp.DualpropError, match=r"^pool"):
        dp.Dense(4, 3, pool=torch.nn.MaxPool2d(2))
