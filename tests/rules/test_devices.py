"""Every rule on devices: what channels do to states, drives, feedback and weights, and what they leave alone."""

import copy
import warnings

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import (
    assert_identical,
    assert_same,
    double_batch,
    double_net,
    gradient_of,
    image_batch,
    small_conv_net,
    suited,
)

D = dp.devices
SIZES = (6, 7, 5, 4)
NOISY = {"states": D.Noise(0.05), "weights": D.Noise(0.05, relative=True)}


def bound(name, *, sizes=SIZES, **settings):
    method = dp.RULES[name]
    net = double_net(sizes, **suited(method, "tanh"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(net, **settings)


def batch(n=6):
    return double_batch(n, SIZES[0], SIZES[-1])


def quietly(call, *args):
    """Without the warning of a phase that noise keeps moving."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "T1=")
        return call(*args)


def channels_of(name, **channels):
    return {key: c for key, c in channels.items() if key in dp.RULES[name].rule.channelled}


@pytest.mark.parametrize("name", dp.RULES)
def test_channels_of_no_strength_change_no_bit(name):
    x, y = batch()
    nothing = [D.Noise(0), D.Dropped(0.0), D.DeviceVariation(0, 0)]
    rule = bound(name, **dict.fromkeys(("states", "drives", "feedback_signal", "weights"), nothing))
    assert rule.devices is None
    assert_identical(gradient_of(rule, x, y), gradient_of(bound(name), x, y))
    assert rule.state_dict().keys() == bound(name).state_dict().keys()


@pytest.mark.parametrize("name", dp.RULES)
def test_every_rule_is_noisy_in_its_updates_and_its_predictions_alone(name):
    x, y = batch()
    rule, ideal = bound(name, **NOISY), bound(name)
    first, second = (quietly(rule.gradients, x, y) for _ in range(2))
    assert_identical(first, second)  # which leaves the generator as it is
    assert any(not torch.equal(first[n], g) for n, g in ideal.gradients(x, y).items())
    said = [quietly(rule.predict, x) for _ in range(2)]
    assert not torch.equal(*said)
    assert torch.equal(rule.net(x), ideal.net(x))  # the net itself is ideal
    quietly(rule.backward, x, y)
    third = quietly(rule.gradients, x, y)
    assert any(not torch.equal(third[n], g) for n, g in first.items())
    assert all(p.grad.isfinite().all() for p in rule.net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", dp.RULES)
def test_predictions_do_not_change_what_updates_draw_and_a_state_taken_back_goes_on_bit_for_bit(name):
    x, y = batch()
    rules = [bound(name, **NOISY) for _ in range(3)]
    for rule in rules:
        quietly(rule.backward, x, y)
        rule.net.zero_grad()
    quietly(rules[1].predict, x)
    state = copy.deepcopy(rules[0].state_dict())
    for _ in range(2):
        quietly(rules[2].backward, x, y)
    rules[2].net.zero_grad()
    rules[2].load_state_dict(state)
    expected = gradient_of(rules[0], x, y) if name not in ("ep", "chl") else quietly(rules[0].gradients, x, y)
    for rule in rules[1:]:
        assert_identical(quietly(rule.gradients, x, y), expected)
    with pytest.raises(dp.DualpropError, match="devices"):
        rules[0].load_state_dict({**state, "devices": {**state["devices"], "batches": -1}})
    with pytest.raises(dp.DualpropError, match="devices"):
        rules[0].load_state_dict({**state, "devices": {**state["devices"], "generator": torch.zeros(3)}})


@pytest.mark.parametrize("name", ["bp", "dp", "kp-dp", "dp-t", "p-dp", "ep", "hep", "chl", "lpom", "dtp", "pc-ep"])
def test_what_learns_are_the_weights_behind_those_that_are_read(name):
    """The gradient is that of a net whose weights are what the products read."""
    x, y = batch()
    rule, twin = bound(name, weights=D.Quantised(3, range=1.0)), bound(name)
    level = 2 / 7
    with torch.no_grad():
        for p in (p for p in twin.net.parameters() if p.ndim > 1):
            p.copy_(-1 + level * ((p.clamp(-1, 1) + 1) / level).round())
    assert_same(quietly(rule.gradients, x, y), quietly(twin.gradients, x, y), rtol=1e-9)
    torch.testing.assert_close(quietly(rule.predict, x), quietly(twin.predict, x))


def test_the_two_states_of_a_dyad_draw_apart():
    """The same draw would cancel in their difference, which has twice the variance of one of them."""
    x, y = double_batch(4000, 6, 4)
    noisy, ideal = (bound("dp", beta=0.1, **own).infer(x, y) for own in ({"states": {1: D.Noise(0.3)}}, {}))
    plus, minus = noisy.plus[1] - ideal.plus[1], noisy.minus[1] - ideal.minus[1]
    both = torch.stack([plus.flatten(), minus.flatten()])
    torch.testing.assert_close(both.std(1), torch.full((2,), 0.3, dtype=torch.float64), rtol=0.02, atol=0)
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03
    apart = noisy.difference[1] - ideal.difference[1]
    assert abs(float(apart.std()) - 0.3 * 2**0.5) < 0.01
    still = bound("dp", beta=1e-9, states={1: D.DeviceVariation(0.3)}).infer(x, y)
    apart = (still.plus[1] / still.minus[1]).median(0).values - 1  # two halves of a neuron are two devices
    assert float(apart.abs().max()) > 0.1


@pytest.mark.parametrize("name", ["dp", "dp-t", "kp-dp"])
@pytest.mark.parametrize("channel", [D.Noise(0.2), D.Quantised(2, range=1), D.Dropped(0.3)], ids=lambda c: c.name)
def test_edges_learn_from_the_very_states_that_were_read(name, channel):
    """One draw: the mean which drives, the difference that comes down and what is learnt from are the same."""
    x, y = batch()
    rule = bound(name, states=channel, beta=0.5)
    state, gradient = rule.infer(x, y), rule.gradients(x, y)
    for k in range(1, len(rule.net) + 1):
        expected = -state.difference[k].T @ state.mean[k - 1] / (0.5 * len(x))
        torch.testing.assert_close(gradient[f"layers.{k - 1}.synapse.weight"], expected)


@pytest.mark.parametrize("name", ["dp", "ep-centred", "hep"])
def test_the_gradients_error_is_of_the_order_of_noise_by_nudge(name):
    """Slope 1 of its logarithm in σ and -1 in β, where noise is much larger than the estimate's own error."""
    settings = {} if name == "dp" else {"T1": 60, "T2": 30}
    x, y = batch(40)

    def error(sigma, beta):
        # β beside what the rule itself gets without noise, with the same draws in every layer
        rules = [bound(name, beta=beta, **settings, **own) for own in ({"states": D.Noise(sigma)}, {})]
        noisy, ideal = (quietly(rule.gradients, x, y) for rule in rules)
        return torch.cat([(noisy[n] - g).flatten() for n, g in ideal.items()]).norm()

    in_sigma = torch.log10(error(1e-4, 0.1) / error(1e-5, 0.1))
    in_beta = torch.log10(error(1e-5, 0.02) / error(1e-5, 0.2))
    assert abs(float(in_sigma) - 1) < 0.05
    assert abs(float(in_beta) - 1) < 0.1


def test_drives_and_feedback_are_read_through_their_channels():
    x, y = double_batch(4000, 6, 4)
    ideal, driven = (
        bound("dp", beta=1e-6, sizes=(6, 5, 4), **own).infer(x, y) for own in ({}, {"drives": {1: D.Noise(0.3)}})
    )
    drives = [torch.atanh(s.plus[1]) for s in (ideal, driven)]
    assert abs(float((drives[1] - drives[0]).std()) - 0.3) < 0.01
    ideal = bound("dp", beta=0.5, sizes=(6, 5, 4)).infer(x, y)
    sent = bound("dp", beta=0.5, sizes=(6, 5, 4), feedback_signal=D.Noise(0.3)).infer(x, y)
    down = [torch.atanh(s.plus[1]) - torch.atanh(s.minus[1]) for s in (ideal, sent)]
    assert abs(float((down[1] - down[0]).std()) - 0.3) < 0.01
    assert torch.equal(sent.plus[2], ideal.plus[2])


def test_dual_propagation_on_still_devices_is_backprop_on_them_for_small_nudges():
    """But for the gain of a drive, which backprop differentiates and an edge does not know."""
    x, y = batch()
    devices = {
        "drives": D.DeviceVariation(0, 0.1),
        "weights": D.DeviceVariation(0.2),
        "feedback_signal": D.DeviceVariation(0.2),
    }
    ours = bound("dp", beta=1e-4, **devices).gradients(x, y)
    assert_same(ours, bound("bp", **devices).gradients(x, y), rtol=1e-5)
    without = bound("bp").gradients(x, y)
    assert any(not torch.allclose(ours[n], g, rtol=0.05) for n, g in without.items())


def test_feedback_weights_are_read_on_the_way_down_alone():
    x, y = batch()
    rule, ideal = bound("dp", beta=0.5, feedback_weights=D.Sign()), bound("dp", beta=0.5)
    assert torch.equal(rule.predict(x), ideal.predict(x))
    ours, theirs = rule.gradients(x, y), ideal.gradients(x, y)
    assert torch.equal(ours["layers.2.synapse.weight"].sum(1), theirs["layers.2.synapse.weight"].sum(1)) is False
    state = rule.infer(x, y)
    W = rule.net.chain[2].synapse.weight.detach()
    down = state.difference[3] @ (W.sign() * W.abs().mean())
    both = torch.atanh(state.plus[2]) - torch.atanh(state.minus[2])
    torch.testing.assert_close(both, down)


def test_calibration_ends_after_twenty_batches_and_says_so(caplog):
    x, y = batch()
    rule = bound("dp", states=D.Quantised(4))
    for n in range(20):
        rule.backward(x * (1 + n / 10), y)
        assert ("calibrated on the first 20 batches" in caplog.text) is (n == 19)
    seen = rule.state_dict()["devices"]["seen"]
    rule.backward(100 * x, y)
    rule.predict(100 * x)
    assert rule.state_dict()["devices"]["seen"] == seen
    assert rule.net.chain[0].potential.line.stops[0][1].seen is rule.net.chain[0].potential.other.stops[0][1].seen
    largest = max(map(abs, seen["states 1 0"]))
    assert float(rule.infer(100 * x, y).plus[1].abs().max()) <= largest + 1e-12


def test_a_rule_on_devices_is_copied_and_trained_like_another(tmp_path):
    x, y = batch()
    rule = bound("dp", **NOISY)
    twin = copy.deepcopy(rule)
    assert_identical(rule.gradients(x, y), twin.gradients(x, y))
    assert dict(rule.net.named_parameters()).keys() == dict(bound("dp").net.named_parameters()).keys()
    dp.Trainer(rule.net.ideal, rule, torch.optim.SGD(rule.net.parameters(), 0.1), [(x, y)]).fit(1)
    assert "Noise" in repr(rule)
    assert dp.RULES["dp"].used(rule, NOISY)["states"] == {"channel": "noise", "sigma": 0.05}
    assert "Noise" in repr(rule.devices)
    assert max(map(abs, dp.alignment(bound("dp"), x, y).cosine)) <= 1 + 1e-9
    with pytest.raises(dp.DualpropError, match="states: a rule's settings stand"):
        rule.states = None


def test_conv_nets_and_graphs_are_on_devices_too():
    net = small_conv_net()
    rule = dp.DualProp(net, states=D.Noise(0.1), weights=D.Quantised(2), drives=D.Noise(0.1))
    assert rule.backward(*image_batch(3)).loss.isfinite()
    assert all(p.grad is not None for p in net.parameters())
    g = dp.Graph()
    a = g.input("x")
    h = g.layer("h", {a: dp.Dense(4, 5)}, "tanh")
    out = g.layer("y", {h: dp.Dense(5, 3), a: dp.Dense(4, 3, bias=False)}, "linear")
    rule = dp.DualProp(g.net([out]), states={"h": D.Noise(0.1)}, weights={"y": D.Quantised(1, range=1)})
    rule.backward(torch.randn(5, 4), torch.arange(5) % 3)


def refused(**settings):
    return lambda: dp.DualProp(double_net(SIZES, "tanh"), **settings)


def local():
    g = dp.Graph()
    x = g.input("x")
    h = g.layer("h", {x: dp.Local(torch.nn.LayerNorm(4))}, "tanh")
    return g.net([g.layer("y", {h: dp.Dense(4, 3)}, "linear")])


REFUSED = {
    "states=0.1: must be a channel": refused(states=0.1),
    "weights: the net has no layer 'h7'": refused(weights={"h7": D.Noise(0.1)}),
    "states: the net has no layer 0": refused(states={0: D.Noise(0.1)}),
    "drives: LiftedProximal has none that a channel could act on; it takes states, weights": lambda: (
        dp.LiftedProximal(double_net(SIZES, "tanh"), drives=D.Noise(0.1))
    ),
    "feedback_signal: DifferenceTargetProp has none": lambda: dp.DifferenceTargetProp(
        double_net(SIZES, "tanh"), feedback_signal=D.Noise(0.1)
    ),
    "weights: edge x -> h is of Local": lambda: dp.DualProp(local(), weights=D.Noise(0.1)),
    "device_seed=-1: must be": refused(states=D.Noise(0.1), device_seed=-1),
    "compile: not with channels": lambda: refused(states=D.Noise(0.1))().compile(),
    "stats: DualProp has no such argument; did you mean 'states'": refused(stats=D.Noise(0.1)),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_attached_is_refused_in_one_line(says):
    with pytest.raises(dp.DualpropError) as caught:
        REFUSED[says]()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_channels_reach_the_rule_whatever_constructors_lie_between():
    """Some of one's own have no place for them, some take everything, some hand them on by name."""

    class Silent(dp.DualProp):
        def __init__(self, net, *, scale=1.0):
            super().__init__(net, beta=scale)

    class All(Silent):
        def __init__(self, net, **others):
            super().__init__(net, **others)

    class Named(All):
        def __init__(self, net, *, states=None, weights=None):
            super().__init__(net, states=[states, D.Sign()], scale=0.5)

    for kind, own in ((Silent, {"scale": 0.5}), (All, {"scale": 0.5}), (Named, {})):
        rule = kind(double_net(SIZES, "tanh"), states=D.Noise(0.1), device_seed=3, **own)
        assert rule.devices.used == {"states"}
        assert rule.devices.seed == 3
        assert rule.nudge.beta == (0.5,) * (len(SIZES) - 1)
