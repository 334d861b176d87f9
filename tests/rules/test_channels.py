"""Every rule of `RULES` with every channel on everything: it acts and comes again, or is refused in one line."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import dualprop as dp
from dualprop.nets.devices.places import QUANTITIES
from tests.oracles.builders import assert_identical, double_batch, double_net, suited
from tests.slow import but_slow

D = dp.devices
SIZES = (6, 7, 5, 4)
CHANNELS = {
    "noise": D.Noise(0.05),
    "noise fixed": D.Noise(0.05, fixed=True),
    "noise relative": D.Noise(0.05, relative=True),
    "clipped": D.Clipped((-0.02, 0.02)),
    "quantised": D.Quantised(3),
    "quantised stochastic": D.Quantised(3, range=0.5, stochastic=True),
    "quantised percentile": D.Quantised(3, percentile=90),
    "variation": D.DeviceVariation(0.2, 0.01),
    "dropped": D.Dropped(0.3),
    "sign": D.Sign(),
}
HAS_NONE = {
    "lpom": ("drives", "feedback_signal", "feedback_weights"),  # its descent asks for drives as often as it likes
    "dtp": ("feedback_signal", "feedback_weights"),  # its feedback maps are its own
    **dict.fromkeys(("bp", "rbp", "pc-ep"), ("feedback_weights",)),  # which autograd goes down by
}
"""What channels cannot act on, by rule; every other rule takes them on everything."""


def cases() -> list[Any]:
    """Every rule and channel; one channel of each rule is quick."""
    return [
        pytest.param(rule, channel, marks=() if m == n % len(CHANNELS) else pytest.mark.slow)
        for n, rule in enumerate(dp.RULES)
        for m, channel in enumerate(CHANNELS)
    ]


def bound(name: str, **settings: Any) -> dp.Rule:
    method = dp.RULES[name]
    short = {n: v for n, v in {"T1": 4, "T2": 3, "max_iterations": 5}.items() if n in method.known_settings}
    return method(double_net(SIZES, **suited(method, "tanh")), **short, **settings)


@pytest.mark.parametrize(("name", "channel"), cases())
def test_a_rule_takes_a_channel_on_all_that_it_has(name: str, channel: str) -> None:
    x, y = double_batch(6, SIZES[0], SIZES[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ideal = bound(name).gradients(x, y)
        for quantity in QUANTITIES:
            if quantity in HAS_NONE.get(name, ()):
                with pytest.raises(dp.DualpropError, match=f"^{quantity}: .* has none") as caught:
                    bound(name, **{quantity: CHANNELS[channel]})
                assert "\n" not in str(caught.value)
                continue
            rule = bound(name, **{quantity: CHANNELS[channel]})
            gradient = rule.gradients(x, y)
            assert_identical(rule.gradients(x, y), gradient)
            assert all(torch.isfinite(g).all() for g in gradient.values())
            assert any(not torch.equal(gradient[n], g) for n, g in ideal.items()), quantity
            assert torch.isfinite(rule.predict(x)).all()


@pytest.mark.parametrize("name", dp.RULES)
@pytest.mark.parametrize("feedback", but_slow(["kolen-pollack", "random", "sign"], "kolen-pollack", "random"))
def test_a_rule_takes_feedback_that_is_not_the_transpose_or_says_why_not(name: str, feedback: str) -> None:
    """Rules whose errors come down through no weights of the net's are as ever."""
    method, (x, y) = dp.RULES[name], double_batch(6, SIZES[0], SIZES[-1])
    activation = suited(method, "tanh")["activation"]
    nets = [double_net(SIZES, activation, feedback=each) for each in ("symmetric", feedback)]
    for net in nets[1:]:  # the same W and b
        net.load_state_dict(nets[0].state_dict(), strict=False)
    if name in ("lpom", "pc-ep") or (name == "kp-dp" and feedback != "kolen-pollack"):
        with pytest.raises(dp.DualpropError, match=r"^net: ") as caught:
            method(nets[1])
        assert "\n" not in str(caught.value)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = method.rule(nets[0], **method.settings).gradients(x, y)
        ours = method(nets[1]).gradients(x, y)
    below = [n for n in plain if n.endswith("weight") and "layers.2" not in n]
    same = all(torch.equal(ours[n], plain[n]) for n in below)
    assert same is (name in ("bp", "rbp", "dtp"))
    assert all(torch.isfinite(g).all() for g in ours.values())
