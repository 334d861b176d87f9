"""Fenchel-Young and the definition f(a) = argmin_z G(z) - z·a, for every potential."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import dualprop as dp
from dualprop.nets.potentials import Clip, LeakyReLU, Linear, Rescaled

DOMAINS = {  # of each neuron; the simplex is a domain of the whole layer
    "linear": (-math.inf, math.inf),
    "relu": (0, math.inf),
    "hard-sigmoid": (0, 1),
    "hard-tanh": (-1, 1),
    "half-hard-sigmoid": (0, 1),
    "leaky-relu": (-math.inf, math.inf),
    "elu": (-1, math.inf),
    "sigmoid": (0, 1),
    "shifted-sigmoid": (0, 1),
    "tanh": (-1, 1),
}
NAMES = sorted(dp.POTENTIALS)
CONVEX = [name for name in NAMES if dp.POTENTIALS[name].convex]


def test_the_table_of_domains_is_complete():
    assert {*DOMAINS, "softmax"} == set(CONVEX)
    assert set(NAMES) - set(CONVEX) == {"holo-tanh"}


def rows(size: int, low: float, high: float) -> st.SearchStrategy[Tensor]:
    row = st.lists(st.floats(low, high, allow_subnormal=False), min_size=size, max_size=size)
    return st.lists(row, min_size=1, max_size=4).map(lambda r: torch.tensor(r, dtype=torch.float64))


def into_domain(name: str, z: Tensor) -> Tensor:
    if name == "softmax":
        z = z.abs() + 1e-9
        return z / z.sum(1, keepdim=True)
    low, high = DOMAINS[name]
    return z.clamp(low, high)


def gap(potential: dp.Potential, z: Tensor, a: Tensor) -> Tensor:
    return potential.energy(z) + potential.conjugate(a) - (z * a).sum(1)


@pytest.mark.parametrize("name", CONVEX)
def test_fenchel_young_holds_for_every_state_and_drive(name):
    potential = dp.POTENTIALS[name]

    @given(z=rows(3, -4, 4), a=rows(3, -9, 9))
    def holds(z, a):
        n = min(len(z), len(a))
        z, a = into_domain(name, z[:n]), a[:n]
        assert potential.energy(z).shape == potential.conjugate(a).shape == (n,)
        assert potential(a).shape == a.shape
        assert (gap(potential, z, a) >= -1e-9).all()
        assert (gap(potential, potential(a), a).abs() <= 1e-9).all()

    holds()


@pytest.mark.parametrize("name", CONVEX)
def test_fenchel_young_is_strict_away_from_the_activation(name):
    """Equality exactly at z = f(a)."""
    potential, generator = dp.POTENTIALS[name], torch.Generator().manual_seed(0)
    a = torch.randn(50, 3, generator=generator, dtype=torch.float64) * 2
    other = into_domain(name, torch.randn(50, 3, generator=generator, dtype=torch.float64))
    distance = (other - potential(a)).square().sum(1)
    apart = distance > 0
    assert apart.sum() > 25
    assert (gap(potential, other, a)[apart] > 1e-4 * distance[apart]).all()


@pytest.mark.parametrize("name", CONVEX)
def test_the_activation_is_the_gradient_of_the_conjugate(name):
    potential, generator = dp.POTENTIALS[name], torch.Generator().manual_seed(0)
    a = torch.randn(40, 4, generator=generator, dtype=torch.float64) * 2
    step = 1e-6
    for i in range(4):
        shift = torch.zeros_like(a)
        shift[:, i] = step
        slope = (potential.conjugate(a + shift) - potential.conjugate(a - shift)) / (2 * step)
        torch.testing.assert_close(slope, potential(a)[:, i], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(DOMAINS))
@pytest.mark.parametrize("drive", [-3.1, -1.0, -0.4, 0.0, 0.3, 1.0, 2.7])
def test_the_activation_is_the_argmin_found_by_brute_force(name, drive):
    potential = dp.POTENTIALS[name]
    low, high = (max(min(bound, 4.0), -4.0) for bound in DOMAINS[name])
    grid = torch.linspace(low, high, 80_001, dtype=torch.float64)[:, None]
    best = grid[torch.argmin(potential.energy(grid) - grid[:, 0] * drive)]
    a = torch.tensor([[drive]], dtype=torch.float64)
    assert float(potential(a)) == pytest.approx(float(best), abs=2e-4)


def test_softmax_is_the_argmin_found_by_brute_force():
    potential, n = dp.POTENTIALS["softmax"], 400
    i, j = torch.meshgrid(torch.arange(n + 1), torch.arange(n + 1), indexing="ij")
    inside = i + j <= n
    grid = torch.stack([i[inside], j[inside], n - i[inside] - j[inside]], 1).double() / n
    for drive in ([0.0, 0.0, 0.0], [1.0, -0.5, 0.2], [-2.0, 1.5, 0.0]):
        a = torch.tensor([drive], dtype=torch.float64)
        best = grid[torch.argmin(potential.energy(grid) - grid @ a[0])]
        torch.testing.assert_close(potential(a)[0], best, rtol=0, atol=2 / n)


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_the_energy_is_infinite_outside_the_domain_and_finite_inside(name):
    low, high = DOMAINS[name]
    potential = dp.POTENTIALS[name]
    for bound, outward in ((low, -1e-6), (high, 1e-6)):
        edge = torch.tensor([[0.5, bound if math.isfinite(bound) else 1e3 * outward]], dtype=torch.float64)
        assert torch.isfinite(potential.energy(edge)).all()
        if math.isfinite(bound):
            assert (potential.energy(edge + torch.tensor([[0.0, outward]])) == math.inf).all()


def test_the_energy_of_softmax_is_infinite_off_the_simplex():
    potential = dp.POTENTIALS["softmax"]
    off = torch.tensor([[0.5, 0.6], [0.5, 0.4], [1.2, -0.2]], dtype=torch.float64)
    assert (potential.energy(off) == math.inf).all()
    corner = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(potential.energy(corner), torch.tensor([0.0, -math.log(2)], dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_drives_do_not_overflow(name, dtype):
    potential = dp.POTENTIALS[name]
    a = torch.tensor([[-1e4, 1e4, 0.0]], dtype=dtype)
    assert torch.isfinite(potential(a)).all()
    assert potential(a).dtype == dtype
    if potential.convex:
        assert torch.isfinite(potential.energy(potential(a))).all()
        assert torch.isfinite(potential.conjugate(a)).all()
        assert potential.energy(a).dtype == potential.conjugate(a).dtype == dtype


@pytest.mark.parametrize("name", CONVEX)
def test_energies_sum_over_everything_but_the_batch(name):
    potential = dp.POTENTIALS[name]
    z = potential(torch.randn(3, 4, 2, 2, dtype=torch.float64))
    each = torch.stack([potential.energy(z[n : n + 1])[0] for n in range(3)])
    assert potential.energy(z).shape == potential.conjugate(z).shape == (3,)
    torch.testing.assert_close(potential.energy(z), each)


@pytest.mark.parametrize("name", NAMES)
def test_the_activation_written_over_its_drive_is_the_activation(name):
    potential, a = dp.POTENTIALS[name], torch.randn(40, 4, dtype=torch.float64) * 2
    expected = potential(a)
    torch.testing.assert_close(potential.over(a.clone()), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(potential(a), expected, rtol=0, atol=0)  # the other way a is left as it is


BY_DEFINITION = {
    "elu": lambda a: a if a > 0 else math.exp(a) - 1,
    "shifted-sigmoid": lambda a: 1 / (1 + math.exp(-4 * (a - 0.5))),
    "half-hard-sigmoid": lambda a: min(max(a / 2, 0), 1),
    "holo-tanh": lambda a: 0.5 * a / (1 + math.exp(-a)) + (1 - 0.5 * a) / (1 + math.exp(2 - a)),
}


@pytest.mark.parametrize("name", BY_DEFINITION)
def test_published_activations_by_their_definition(name):
    for drive in (-9.0, -2.0, -0.3, 0.0, 0.2, 0.5, 1.0, 1.9, 4.0, 11.0):
        f = dp.POTENTIALS[name](torch.tensor([[drive]], dtype=torch.float64))
        assert float(f) == pytest.approx(BY_DEFINITION[name](drive), abs=1e-15)


def test_holo_tanh_is_near_the_hard_clip_and_knows_no_energy():
    potential, a = dp.POTENTIALS["holo-tanh"], torch.linspace(-30, 30, 601, dtype=torch.float64)[None]
    away = (potential(a) - (a / 2).clamp(0, 1)).abs()[0]
    assert float(away.max()) < 0.15
    assert float(away[[0, -1]].max()) < 1e-9
    for method in (potential.energy, potential.conjugate):
        with pytest.raises(dp.DualpropError, match=r"^activation='holo-tanh'") as caught:
            method(a)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"slope": 0}, r"^slope=0"),
        ({"slope": -1.0}, r"^slope=-1"),
        ({"slope": math.inf}, r"^slope=inf"),
        ({"centre": math.nan}, r"^centre=nan"),
        ({"centre": "1"}, r"^centre='1'"),
        ({"base": "sigmoid"}, r"^base='sigmoid': must be a dualprop.Potential"),
    ],
    ids=str,
)
def test_bad_settings_of_a_rescaled_potential(settings, match):
    with pytest.raises(dp.DualpropError, match=match) as caught:
        Rescaled(**{"base": Clip(0, 1), **settings})
    assert "\n" not in str(caught.value)


def test_a_rescaled_potential_is_what_its_base_is():
    for base in (Linear(), Clip(0, 1), dp.POTENTIALS["softmax"], dp.POTENTIALS["holo-tanh"]):
        rescaled = Rescaled(base, 2.0, 1.0)
        for name in ("elementwise", "holomorphic", "convex"):
            assert getattr(rescaled, name) is getattr(base, name)
        assert not rescaled.projects  # G is another than ½‖z‖²


@given(bounds=st.lists(st.floats(-3, 3), min_size=2, max_size=2, unique=True).map(sorted), a=rows(3, -9, 9))
def test_fenchel_young_holds_between_any_two_bounds(bounds, a):
    potential = Clip(*bounds)
    z = a.flip(1).clamp(*bounds)
    assert (gap(potential, z, a) >= -1e-9).all()
    assert (gap(potential, potential(a), a).abs() <= 1e-9).all()
    assert torch.equal(potential(a), a.clamp(*bounds))


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (-math.inf, 0), (0, math.nan), ("0", 1)])
def test_bad_bounds_of_a_clip(low, high):
    with pytest.raises(dp.DualpropError, match=r"^(low|high)=") as caught:
        Clip(low, high)
    assert "\n" not in str(caught.value)


def test_potentials_say_what_they_are():
    names = "linear", "relu", "hard-tanh", "half-hard-sigmoid"
    assert [str(dp.POTENTIALS[name]) for name in names] == [
        "Linear()",
        "ReLU()",
        "Clip(low=-1.0, high=1.0)",
        "Rescaled(base=Clip(low=0.0, high=1.0), slope=0.5, centre=0.0)",
    ]


def test_a_clip_of_ones_own_and_a_slope_of_ones_own():
    a = torch.tensor([[-3.0, 0.5, 3.0]], dtype=torch.float64)
    assert Clip(-2, 0.25)(a).tolist() == [[-2.0, 0.25, 0.25]]
    assert LeakyReLU(0.5)(a).tolist() == LeakyReLU(0.5).over(a.clone()).tolist() == [[-1.5, 0.5, 3.0]]
    assert float(gap(LeakyReLU(0.5), LeakyReLU(0.5)(a), a).abs()) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_that_autograd_takes_is_that_of_the_definition(name):
    """Backprop differentiates f; at a kink of relu it takes 0, as torch does."""
    potential = dp.POTENTIALS[name]
    a = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(potential, a)
    kink = torch.zeros(1, 1, requires_grad=True)
    dp.POTENTIALS["relu"](kink).sum().backward()
    assert float(kink.grad) == 0


@pytest.mark.parametrize(
    ("up", "down"), [(0.5, 0.5), (0.25, 0.75), (1.0, 0.0), (0.0, 1.0), (1.5, 1.5), (0.2, 0.2)]
)
@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("name", sorted(dp.POTENTIALS))
def test_a_dyad_is_the_mean_and_difference_of_its_two_states(name, up, down, share):
    f = dp.POTENTIALS[name]
    generator = torch.Generator().manual_seed(0)
    a, d = torch.randn(2, 7, 50, generator=generator, dtype=torch.float64)
    d = d * torch.tensor([0, 1e-3, 0.1, 1, 10, -1, -10]).double()[:, None]
    before = a.clone(), d.clone()
    mean, difference = f.dyad(a, d, up, down, share)
    plus, minus = f(a + up * d), f(a - down * d)
    torch.testing.assert_close(mean, share * plus + (1 - share) * minus, rtol=0, atol=1e-14)
    torch.testing.assert_close(difference, plus - minus, rtol=0, atol=1e-14)
    assert torch.equal(a, before[0])
    assert torch.equal(d, before[1])


@pytest.mark.parametrize(("up", "down"), [(0.5, 0.5), (0.25, 0.75), (1.5, 1.5)])
@pytest.mark.parametrize("name", ["linear", "relu", "hard-sigmoid", "hard-tanh", "half-hard-sigmoid"])
def test_no_nudge_is_too_small_for_a_projection(name, up, down):
    a = torch.tensor([[0.5, 0.25, 0.75, 0.999]])
    d = torch.tensor([[1e-30, -1e-12, 1e-20, -3e-10]])
    _, difference = dp.POTENTIALS[name].dyad(a, d, up, down, 0.5)
    slope = 0.5 if name == "half-hard-sigmoid" else 1.0
    torch.testing.assert_close(difference, (up + down) * slope * d, rtol=1e-6, atol=0)
