"""Channels by themselves: moments of what they draw, levels of what they round, what they refuse."""

import math

import pytest
import torch

import dualprop as dp
from dualprop.nets import crossing
from dualprop.nets.devices.channels import read
from dualprop.nets.devices.places import Devices, Line

D = dp.devices
MANY = 40_000


def line(*channels, seed=0, batched=True):
    """These channels, in places of their own."""
    devices = Devices(dp.nets.mlp([4, 5, 3]), {}, seed)
    return Line(channels, "here", devices, batched=batched)


@pytest.mark.parametrize("z", [0.0, -3.0])
def test_noise_has_the_stated_spread_and_no_mean(z):
    signal = torch.full((MANY,), z)
    error = line(D.Noise(0.2))(signal) - signal
    assert abs(float(error.mean())) < 5 * 0.2 / MANY**0.5
    assert abs(float(error.std()) - 0.2) < 5 * 0.2 / (2 * MANY) ** 0.5


def test_relative_noise_is_a_part_of_the_value():
    signal = torch.tensor([0.0, 1.0, -4.0]).repeat(MANY, 1)
    error = line(D.Noise(0.1, relative=True))(signal) - signal
    assert float(error[:, 0].abs().max()) == 0
    torch.testing.assert_close(error.std(0)[1:], torch.tensor([0.1, 0.4]), rtol=0.02, atol=0)


def test_fixed_noise_is_a_pattern_of_the_neurons_and_fresh_noise_is_not():
    z = torch.zeros(3, 50)
    for fixed in (True, False):
        noisy = line(D.Noise(0.1, fixed=fixed))
        first, second = noisy(z), noisy(z)
        assert torch.equal(first, second) is fixed
        assert torch.equal(first[0], first[1]) is fixed
    assert torch.equal(line(D.Noise(0.1, fixed=True))(z), line(D.Noise(0.1, fixed=True))(z))
    other = line(D.Noise(0.1, fixed=True), seed=1)(z)
    assert not torch.equal(line(D.Noise(0.1, fixed=True))(z), other)


def test_variation_is_a_gain_and_an_offset_of_each_device():
    z = torch.randn(2, MANY)
    varied = line(D.DeviceVariation(gain=0.3, offset=0.5))
    zero, one = varied(torch.zeros(1, MANY)), varied(torch.ones(1, MANY))
    torch.testing.assert_close(varied(z), zero + (one - zero) * z)
    assert abs(float(zero.std()) - 0.5) < 0.01
    assert abs(float((one - zero - 1).std()) - 0.3) < 0.01
    assert abs(float((zero * (one - zero - 1)).mean())) < 0.01  # drawn apart


@pytest.mark.parametrize("fixed", [True, False])
def test_dropped_loses_the_stated_part_and_nothing_of_the_rest(fixed):
    z, dropped = torch.randn(1, MANY), line(D.Dropped(0.3, fixed=fixed))
    kept = dropped(z)
    lost = kept == 0
    assert abs(float(lost.double().mean()) - 0.3) < 5 * (0.21 / MANY) ** 0.5
    assert torch.equal(kept[~lost], z[~lost])
    assert torch.equal(dropped(z), kept) is fixed


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (-2.0, 3.0), 0.7])
def test_quantised_is_a_staircase_with_its_ends_on_the_ends(bits, ends):
    """2^bits levels, evenly spaced; monotone; the nearest; twice is once."""
    low, high = (-ends, ends) if isinstance(ends, float) else ends
    z = torch.linspace(low - 1, high + 1, 200_001, dtype=torch.float64)
    q = line(D.Quantised(bits, range=ends))
    level = q(z)
    assert torch.equal(q(level), level)
    assert bool((level.diff() >= 0).all())
    step = (high - low) / (2**bits - 1)
    found = level.unique()
    assert len(found) == 2**bits or bits == 16
    assert float(found[0]) == low
    assert float(found[-1]) == high
    torch.testing.assert_close(found, low + step * ((found - low) / step).round(), atol=1e-12, rtol=0)
    inside = (z >= low) & (z <= high)
    assert float((level - z)[inside].abs().max()) <= step / 2 + 1e-12


def test_stochastic_rounding_is_right_on_average():
    z = torch.full((MANY,), 0.3)
    level = line(D.Quantised(1, range=(0, 1), stochastic=True))(z)
    assert set(level.tolist()) == {0.0, 1.0}
    assert abs(float(level.mean()) - 0.3) < 5 * (0.21 / MANY) ** 0.5


def test_without_a_range_it_is_that_of_the_largest_value_seen():
    q = line(D.Quantised(2))
    assert float(q(torch.tensor([[0.0, 0.0]])).abs().max()) == 0
    assert q(torch.tensor([[0.0, 1.4, 3.0]])).tolist() == [[0.0, 1.0, 3.0]]
    assert q(torch.tensor([[-1.4, 6.0]])).tolist() == [[-2.0, 6.0]]


def test_channels_act_one_after_the_other():
    z = torch.linspace(-2, 2, 9)[None]
    both = line(D.Clipped(1), D.Quantised(1, range=(0, 4)))(z)
    assert both.tolist() == [[0.0] * 9]


@pytest.mark.parametrize(
    "channel",
    [D.Noise(0.1), D.Clipped((-1, 1)), D.Quantised(3, range=2), D.DeviceVariation(0.2), D.Sign()],
    ids=lambda c: c.name,
)
def test_gradients_pass_where_values_do(channel):
    z = torch.tensor([[0.3, -0.4, 5.0]], requires_grad=True)
    made = line(channel, batched=False)
    made(z).sum().backward()
    gains = {D.DeviceVariation: None, D.Clipped: [1.0, 1.0, 0.0], D.Quantised: [1.0, 1.0, 0.0]}
    expected = gains.get(type(channel), [1.0, 1.0, 1.0])
    if expected is not None:
        assert z.grad.tolist() == [expected]
    else:
        torch.testing.assert_close(z.grad, made(torch.ones(1, 3)))


def test_a_percentile_is_the_range_that_holds_that_part_of_what_was_seen():
    z = torch.arange(1.0, 101.0)[None]
    for percentile, R in ((100.0, 100.0), (90.0, 90.0), (0.5, 1.0)):
        assert float(line(D.Quantised(4, percentile=percentile))(z).max()) == R
    assert float(line(D.Quantised(1, percentile=50))(-z).min()) == -50.0


def test_fixed_devices_act_on_complex_signals_as_on_real_ones():
    """(1 + g) z + o with real g and o, whose imaginary part has the same gains and no offset."""
    devices = Devices(dp.nets.mlp([4, 5, 3]), {}, 0)
    made = Line([D.DeviceVariation(0.3, 0.5), D.Noise(0.2, fixed=True)], "here", devices)
    re, im = torch.randn(2, 3, 7).unbind(0)
    gain, offset = (made(z) for z in (torch.ones(1, 7), torch.zeros(1, 7)))
    with crossing.imaginary():
        imaginary = made(im)
    heard = torch.complex(made(re), imaginary)
    torch.testing.assert_close(heard, (gain - offset) * torch.complex(re, im) + offset)


@pytest.mark.parametrize("ends", [(0, 2), (-2, 1), 2])
def test_ranges_hold_both_ways_for_imaginary_parts(ends):
    z = torch.linspace(-3, 3, 7)[None]
    clipped, rounded = line(D.Clipped(ends)), line(D.Quantised(1, range=ends))
    with crossing.imaginary():
        assert clipped(z).tolist() == [[-2, -2, -1, 0, 1, 2, 2]]
        assert rounded(z).abs().unique().tolist() == [2]


def test_imaginary_parts_draw_and_calibrate_apart():
    z, noisy, rounded = torch.zeros(1, MANY), line(D.Noise(0.2)), line(D.Quantised(1))
    with crossing.imaginary():
        imaginary = noisy(z)
        rounded(torch.tensor([[-0.5, 0.25]]))
    assert abs(float(torch.corrcoef(torch.cat([noisy(z), imaginary]))[0, 1])) < 0.03
    assert rounded(torch.tensor([[0.0, 2.0]])).tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("name", D.CHANNELS)
def test_a_channel_is_made_again_of_its_plain_form(name):
    channel = {
        "noise": D.Noise(0.1, fixed=True),
        "quantised": D.Quantised(3, range=(0, 2)),
        "clipped": D.Clipped(2),
        "variation": D.DeviceVariation(0.1, 0.2),
        "dropped": D.Dropped(0.5),
        "sign": D.Sign(),
    }[name]
    assert read("states", channel.plain()) == [channel]


REFUSED = {
    "bits=0": lambda: D.Quantised(0),
    "bits=17": lambda: D.Quantised(17),
    "bits=True": lambda: D.Quantised(True),
    "range=(1.0, 1.0)": lambda: D.Quantised(4, range=(1, 1)),
    "range=[1.0, 0.0]": lambda: D.Clipped([1, 0]),
    "range=0": lambda: D.Clipped(0),
    "range=-1": lambda: D.Quantised(4, range=-1),
    "range=(0.0, 1.0, 2.0)": lambda: D.Quantised(4, range=(0, 1, 2)),
    "sigma=-0.1": lambda: D.Noise(-0.1),
    "sigma=nan": lambda: D.Noise(math.nan),
    "sigma=inf": lambda: D.Noise(math.inf),
    "percentile=0": lambda: D.Quantised(4, percentile=0),
    "percentile=101": lambda: D.Quantised(4, percentile=101),
    "percentile=99: not with a range": lambda: D.Quantised(4, range=1, percentile=99),
    "gain=-1": lambda: D.DeviceVariation(-1),
    "p=1.5": lambda: D.Dropped(1.5),
    "unknown channel 'nois': did you mean 'noise'": lambda: read("states", {"channel": "nois"}),
    "states.channel=None": lambda: read("states", {"sigma": 1}),
    "states: sgma: Noise has no such": lambda: read("states", {"channel": "noise", "sigma": 1, "sgma": 1}),
    "states='noise': must be a channel": lambda: read("states", "noise"),
    "states=3: must be a channel": lambda: read("states", [3]),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_no_channel_can_be_is_refused_in_one_line(says):
    with pytest.raises(dp.DualpropError) as caught:
        REFUSED[says]()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
