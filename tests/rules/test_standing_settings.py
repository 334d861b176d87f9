"""What a rule was made with stands: a change afterwards is honoured or refused, never ignored."""

from __future__ import annotations

import pickle

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import assert_identical, double_batch, double_net, gradient_of
from tests.oracles.refused import refused

SIZES = (4, 6, 3)
COMPOSED = ("ep", "ep-centred", "hep", "chl")
SETTINGS = [
    ("dp", "beta", 0.5),
    ("dp", "schedule", dp.Sweep(3)),
    ("dp", "rounds", 2),
    ("ep", "beta", 0.05),
    ("hep", "T2", 3),
    ("lpom", "loss", "mse"),
    ("dtp", "K", 2),
]


@pytest.mark.parametrize(("name", "setting", "value"), SETTINGS)
def test_a_setting_that_is_changed_is_refused(name: str, setting: str, value: object) -> None:
    rule = dp.RULES[name](double_net(SIZES, "sigmoid"))
    with refused(f"{setting}: a rule's settings stand once it is made"):
        setattr(rule, setting, value)


def test_what_a_rule_keeps_may_change_though_it_was_a_setting() -> None:
    class Fading(dp.Backprop):
        def __init__(self, net: dp.Net, *, loss: str = "mse", scale: float = 1.0) -> None:
            super().__init__(net, loss=loss)
            self.add_state("scale", scale)

        def update(self, x: torch.Tensor, y: torch.Tensor) -> dp.Step:
            self.scale = 0.5 * self.scale
            return super().update(x, y)

    rule = Fading(double_net(SIZES, "tanh"))
    rule.backward(*double_batch(5, 4, 3))
    assert rule.state_dict() == {"scale": 0.5}


@pytest.mark.parametrize("name", ["dp", "p-dp", "ms-dp", "lpom", "dtp", "bp", *COMPOSED])
@pytest.mark.parametrize("what", ["potential", "synapse"])
def test_a_part_that_is_replaced_is_used_or_refused(name: str, what: str) -> None:
    net, (x, y) = double_net(SIZES, "sigmoid"), double_batch(5, 4, 3)
    rule = dp.RULES[name](net)
    rule.backward(x, y)
    if what == "potential":
        net.stack[0].potential = dp.POTENTIALS["tanh"]
    else:
        net.stack[1].synapse = dp.Dense(6, 3).double()
    if name in COMPOSED:
        layer = "layer1" if what == "potential" else "layer2"
        with refused(f"net: a synapse or the potential of {layer} has been replaced since the rule was made"):
            rule.backward(x, y)
    elif name != "dtp":  # its feedback maps have learnt meanwhile
        assert_identical(gradient_of(rule, x, y), gradient_of(dp.RULES[name](net), x, y))


@pytest.mark.parametrize("name", ["bp", "rbp", "lpom", "dtp"])
def test_inference_mode_is_refused_by_rules_that_ask_autograd(name: str) -> None:
    rule, (x, y) = dp.RULES[name](double_net(SIZES, "sigmoid")), double_batch(5, 4, 3)
    with torch.inference_mode():
        made = x + 0
        assert bool(rule.predict(x).isfinite().all())
        with refused("x: inference mode leaves no gradients"):
            rule.backward(x, y)
    with refused("x: inference mode leaves no gradients"):
        rule.backward(made, y)


def test_a_compiled_rule_is_pickled_as_it_was_before() -> None:
    rule, (x, y) = dp.DualProp(double_net(SIZES, "tanh")), double_batch(5, 4, 3)
    rule.compile()
    assert_identical(gradient_of(pickle.loads(pickle.dumps(rule)), x, y), gradient_of(dp.DualProp(rule.net), x, y))
