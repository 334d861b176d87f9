"""What the relaxing rules refuse at construction, one line each that names the argument and what is allowed."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.builders import double_net, image_net
from tests.oracles.hopfield_twin import ORDERS
from tests.oracles.refused import refused
from tests.rules.test_equilibrium_prop import NUDGES, behind, front

RULES = [dp.EquilibriumProp, dp.HolomorphicEP, dp.ContrastiveHebbian]


@pytest.fixture
def net() -> dp.Net:
    return double_net((5, 6, 3), "sigmoid")


@pytest.mark.parametrize("rule", [dp.EquilibriumProp, dp.HolomorphicEP])
@pytest.mark.parametrize("beta", [1, 1.0, 3])
def test_a_linear_output_under_squared_error_needs_beta_below_one(rule, beta):
    """z_L <- a - β (z_L - y) has a factor of -β."""
    for loss in ("mse", "mse-linearised"):
        with refused(rf"^beta={float(beta)}: must be below 1"):
            rule(double_net((5, 4, 3), "sigmoid"), loss=loss, beta=beta)
    rule(double_net((5, 4, 3), "sigmoid", output="sigmoid"), beta=beta)
    rule(double_net((5, 4, 3), "sigmoid"), loss="cross_entropy", beta=beta)


@pytest.mark.parametrize("rule", RULES)
def test_order(rule, net):
    with refused(
        "^unknown order 'evenodd': did you mean 'even-odd'.*Known: synchronous, even-odd, forward, backward"
    ):
        rule(net, order="evenodd")


def test_variant(net):
    with refused("^unknown variant 'centered': did you mean 'centred'"):
        dp.EquilibriumProp(net, variant="centered")


def test_what_the_tests_know_of_is_all_there_is():
    from dualprop.engines.hopfield.relaxation import ORDERS as OURS
    from dualprop.rules.equilibrium_prop import VARIANTS

    assert set(OURS) == set(ORDERS)
    assert set(VARIANTS) == {*NUDGES, "random-sign"}


# What is not holomorphic


@pytest.mark.parametrize("activation", [name for name, f in dp.POTENTIALS.items() if not f.holomorphic])
def test_activations_that_are_not_holomorphic(activation):
    with refused(r"^net: the activation of layer 2, .*, is not holomorphic; use for example 'shifted-sigmoid'"):
        dp.HolomorphicEP(
            dp.Net(
                [
                    dp.Layer(dp.Dense(4, 3), "sigmoid"),
                    dp.Layer(dp.Dense(3, 3), activation),
                    dp.Layer(dp.Dense(3, 2), "linear"),
                ]
            )
        )
    with refused(r"^net: the activation of layer 2"):
        dp.HolomorphicEP(double_net((4, 3, 2), "sigmoid", output=activation))


def test_every_activation_that_takes_complex_drives_is_allowed():
    for name, potential in dp.POTENTIALS.items():
        if potential.holomorphic:
            dp.HolomorphicEP(double_net((4, 3, 2), name))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("made", "layer"), [(front, 2), (behind, 1)])
def test_pools_that_are_not_holomorphic(made, layer, loss):
    net = image_net(made(dp.MaxPool2d(2), dp.MaxPool2d(2, 1)), "tanh")
    with refused(rf"^net: the pooling of layer {layer}, MaxPool2d\(.*\), is not holomorphic; use pool='softmax'"):
        dp.HolomorphicEP(net, loss=loss)
    for pool in (dp.AvgPool2d, dp.SoftmaxPool2d):
        dp.HolomorphicEP(image_net(made(pool(2), pool(2, 1)), "tanh"), loss=loss)


def test_a_pool_in_front_of_the_read_out():
    synapses = [dp.Conv2d(1, 2, 3, padding=1), dp.Dense(8, 3, pool=dp.MaxPool2d(2))]
    with refused(r"^net: the pooling of layer 2, MaxPool2d"):
        dp.HolomorphicEP(image_net(synapses, "tanh"), loss="cross_entropy")


class Huber(dp.Loss):
    """Whose gradient has corners."""

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.huber_loss(z, y, reduction="none").sum(1)


def test_a_users_loss_without_a_holomorphic_gradient(net):
    with refused("^loss: Huber has no holomorphic gradient$"):
        dp.HolomorphicEP(net, loss=Huber())
    dp.EquilibriumProp(net, loss=Huber())


# What reads out logits


@pytest.mark.parametrize("output", ["tanh", "softmax"])
@pytest.mark.parametrize("rule", RULES)
def test_cross_entropy_over_a_layer_that_is_not_linear(rule, output):
    with refused(r"^net: the last layer reads out logits|^loss='cross_entropy' takes logits"):
        rule(double_net((4, 3, 2), "sigmoid", output=output), loss="cross_entropy")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_complex_states_of_low_precision(dtype):
    net, x, y = dp.nets.mlp([5, 6, 3], "sigmoid").to(dtype), torch.rand(4, 5).to(dtype), torch.tensor([0, 1, 2, 0])
    for settings in ({"N": 4}, {"N": 2, "noise": 0.1}):
        with refused("^x: type torch"):
            dp.HolomorphicEP(net, **settings).backward(x, y)
    dp.HolomorphicEP(net, N=2).backward(x, y)


def test_a_gamma_that_leaves_nothing_of_the_lowest_layers_difference():
    deep = double_net((5, 6, 6, 3), "sigmoid")
    for gamma in (1e-200, 1e-20):
        with refused(rf"^gamma={gamma}: too small for 3 layers"):
            dp.ContrastiveHebbian(deep, gamma=gamma)
    dp.ContrastiveHebbian(deep, gamma=1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("state", [None, 3, [("states", [])]])
def test_what_is_no_state(rule, state, net):
    with refused("^state=.*: must be a table$"):
        rule(net).load_state_dict(state)


@pytest.mark.parametrize("name", ["ep", "ep-centred", "hep", "chl", "lpom", "dtp"])
def test_rules_can_be_pickled(name, net):
    x, y = torch.rand(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    rule = dp.RULES[name](net)
    copied = pickle.loads(pickle.dumps(rule))
    ours, theirs = rule.gradients(x, y), copied.gradients(x, y)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
