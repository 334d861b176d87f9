"""Weights on devices: pulses that are right on average, granular, bounded, asymmetric, and the same again."""

import copy
import math

import pytest
import torch

import dualprop as dp
from dualprop.nets.devices.optimizer import _Array
from dualprop.rules.state import restored, saved

D = dp.devices
MANY = 20_000


def optimizer(weights, device, **settings):
    p = torch.nn.Parameter(weights.clone())
    return p, D.PulsedSGD([p], **{"lr": 1.0, "full_scale": 1.0, "device": device, **settings})


def stepped(p, opt, gradient):
    p.grad = torch.full_like(p, gradient) if isinstance(gradient, float) else gradient
    before = p.detach().clone()
    opt.step()
    return (p - before).detach()


@pytest.mark.parametrize("wanted", [0.0003, -0.0007, 0.0121])
def test_an_ideal_device_makes_the_wanted_change_on_average(wanted):
    """By whole pulses, whose number is rounded stochastically."""
    p, opt = optimizer(torch.zeros(1, MANY), D.PulsedDevice(0.001))
    change = stepped(p, opt, -wanted)
    pulses = change / 0.001
    torch.testing.assert_close(pulses, pulses.round(), atol=1e-4, rtol=0)
    left = wanted / 0.001 % 1
    assert abs(float(change.mean()) - wanted) < 5 * 0.001 * math.sqrt(left * (1 - left) / MANY) + 1e-8


def test_no_more_pulses_than_a_step_has_time_for_and_no_weight_beyond_its_bounds():
    p, opt = optimizer(torch.zeros(1, 5), D.PulsedDevice(0.001), pulses=7)
    torch.testing.assert_close(stepped(p, opt, -1.0), torch.full((1, 5), 0.007))
    p, opt = optimizer(torch.zeros(1, MANY), D.PulsedDevice(0.1, w_max_dtod=0.3, w_min_dtod=0.3))
    for sign in (-1.0, 1.0):
        for _ in range(3):
            stepped(p, opt, sign)
        bounds = p.detach().abs()
        assert abs(float(bounds.mean()) - 1) < 0.02
        assert abs(float(bounds.std()) - 0.3) < 0.02


def test_pulses_spread_from_device_to_device_and_from_one_to_the_next():
    p, opt = optimizer(torch.zeros(1, MANY), D.PulsedDevice(0.001, dw_min_dtod=0.2))
    first, second = (stepped(p, opt, -0.001) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-7)
    assert abs(float(first.std()) / 0.001 - 0.2) < 0.01
    p, opt = optimizer(torch.zeros(1, MANY), D.PulsedDevice(0.001, dw_min_std=0.4))
    first, second = (stepped(p, opt, -0.001) for _ in range(2))
    assert abs(float(first.std()) / 0.001 - 0.4) < 0.02
    assert abs(float(torch.corrcoef(torch.cat([first, second]))[0, 1])) < 0.05


def responses(name, w, low, high):
    """Steps up and down of aihwkit's models at w, in units of each device's own dw_min."""
    if name == "ReRamES":
        z = -0.5 * 2 * w / (high - low) - 0.5  # 2 a w / (w_max - w_min) + b
        return 1 + 1.18445 * torch.exp(5 * z), 1 + 0.081404 * torch.exp(-5 * z)
    if name == "EcRam":
        return 1 - 0.1153 / 1.1724 * w, 1 + 0.5085 / 0.8276 * w
    if name == "ReRamSB":
        return 1 - w / high, 1 - w / low
    return 1.0, 1.0


@pytest.mark.parametrize("name", ["ReRamES", "ReRamSB", "EcRam", "Idealized", "GokmenVlasov"])
@pytest.mark.parametrize("w", [-0.4, 0.0, 0.3])
def test_presets_move_as_their_models_say(name, w):
    """The mean over devices of one pulse each way."""
    device = D.PRESETS[name]
    array = _Array(device, MANY, "seed", torch.zeros(1))
    inside = (array.low < w - 0.1) & (array.high > w + 0.1)
    for sign, size, response in zip(
        (1, -1), (array.up, array.down), responses(name, w, array.low, array.high), strict=True
    ):
        weights = torch.full((MANY,), w)
        array.pulse(weights, torch.full((MANY,), sign * device.dw_min), 1, torch.Generator().manual_seed(1))
        error = (sign * (weights - w) - size * response)[inside] / device.dw_min
        assert abs(float(error.mean())) < 5 * float(error.std()) / math.sqrt(MANY)
    beta = (array.up - array.down) / (array.up + array.down)
    assert abs(float(beta.mean()) - device.up_down) < 0.003
    assert abs(float(((array.up + array.down) / 2 / device.dw_min).std()) - device.dw_min_dtod) < 0.02


def test_weights_are_read_with_write_noise_and_move_without():
    p, opt = optimizer(torch.zeros(1, MANY), D.PulsedDevice(0.001, write_noise_std=50.0))
    assert abs(float(p.detach().std()) - 0.05) < 0.002
    for _ in range(20):
        stepped(p, opt, -0.001)
    assert abs(float(p.detach().mean()) - 0.02) < 0.002
    assert abs(float(p.detach().std()) - 0.05) < 0.002


def test_weights_of_few_bits_without_a_copy_stay_on_their_levels():
    p, opt = optimizer(torch.rand(1, MANY) - 0.5, D.levels(2))
    grid = torch.tensor([-1, -1 / 3, 1 / 3, 1])
    for gradient in (0.0, 0.05, -0.3):
        change = stepped(p, opt, gradient)
        assert float((p.detach()[0][:, None] - grid).abs().min(1).values.max()) < 1e-6
    assert abs(float(change.mean()) - 0.3) < 0.05  # but for those at the upper bound
    p, _ = optimizer(torch.full((1, MANY), 0.2), D.levels(1))
    assert abs(float(p.detach().mean()) - 0.2) < 0.03


def test_biases_are_numbers():
    p = torch.nn.Parameter(torch.zeros(3))
    opt = D.PulsedSGD([p], lr=0.5, device="EcRam")
    torch.testing.assert_close(stepped(p, opt, 0.3), torch.full((3,), -0.15))


@pytest.mark.parametrize("device", ["ReRamES", "Capacitor", "EcRamMO"])
def test_what_is_taken_back_goes_on_bit_for_bit(device):
    def made():
        torch.manual_seed(0)
        net = torch.nn.Linear(7, 5)
        return net, D.PulsedSGD(net.parameters(), lr=0.1, device=device, seed=3)

    def steps(net, opt, numbers):
        for n in numbers:
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(n))
            opt.step()

    net, opt = made()
    steps(net, opt, range(6))
    other, taken = made()
    steps(other, taken, range(3))
    weights, state = copy.deepcopy(other.state_dict()), copy.deepcopy(saved(taken))
    again, opt_again = made()
    again.load_state_dict(weights)
    restored(opt_again, state, "optimizer")
    steps(again, opt_again, range(3, 6))
    twin, opt_twin = copy.deepcopy((other, taken))
    steps(twin, opt_twin, range(3, 6))
    for p, q, r in zip(net.parameters(), again.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r)


def test_a_closure_makes_the_gradients_and_later_weights_are_on_devices_too():
    """As PyTorch's optimizers have it: Lightning steps by closures, fine-tuning adds groups."""
    nets = []
    for closed in (False, True):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
        opt = D.PulsedSGD(net[0].parameters(), lr=0.5, device=D.PulsedDevice(0.001))
        opt.add_param_group({"params": net[1].parameters(), "lr": 0.25})
        x = torch.randn(9, 7)

        def made(net=net, opt=opt, x=x):
            opt.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        before = [p.detach().clone() for p in net.parameters()]
        if closed:
            assert float(opt.step(made).detach()) > 0
        else:
            made()
            assert opt.step() is None
        assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
        pulses = (net[1].weight.detach() - before[2]) / opt.state[net[1].weight]["scale"] / 0.001
        torch.testing.assert_close(pulses, pulses.round(), atol=1e-3, rtol=0)
        nets.append(net)
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(p, q)


REFUSED = {
    "unknown device 'ReRamEs': did you mean 'ReRamES'": lambda: D.PulsedSGD([torch.zeros(2, 2)], device="ReRamEs"),
    "lr=0": lambda: D.PulsedSGD([torch.zeros(2, 2)], lr=0),
    "dw_min=0": lambda: D.PulsedDevice(0),
    "dw_min=nan": lambda: D.PulsedDevice(math.nan),
    "w_min=0.5, w_max=1.0": lambda: D.PulsedDevice(0.1, w_min=0.5),
    "bits=0": lambda: D.levels(0),
    "pulses=0": lambda: D.PulsedSGD([torch.zeros(2, 2)], pulses=0),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_no_device_can_be_is_refused_in_one_line(says):
    with pytest.raises(dp.DualpropError) as caught:
        REFUSED[says]()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
