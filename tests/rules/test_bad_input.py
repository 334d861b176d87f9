"""Bad arguments: one clear line that names the argument, before anything is done.

Bad batches are in the conformance suite, for every rule.
"""

from __future__ import annotations

import math

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import double_batch, double_net
from tests.oracles.refused import refused
from tests.rules.conformance import nothing_changes

SIZES = (5, 6, 3)


@pytest.fixture
def net():
    return double_net(SIZES)


@pytest.mark.parametrize(
    "beta",
    [[], (0.5,), [0.5] * 3],
    ids=str,
)
def test_a_beta_for_each_layer(net, beta):
    with refused(f"^beta=.*: {len(beta)} numbers, but the net has 2 layers$"):
        dp.DualProp(net, beta=beta)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.5, 2.0), (0.25, 4 / 3 + 1e-9), (0.5, [0.1, 2.5])])
def test_nudges_too_strong_for_the_exact_step(net, alpha, beta):
    with refused("beta"):
        dp.DualProp(net, alpha=alpha, beta=beta)
    dp.DualProp(net, alpha=alpha, beta=beta, loss="mse-linearised")
    dp.DualProp(net, alpha=alpha, beta=beta, loss="cross_entropy")
    dp.DualProp(net, alpha=1.0, beta=50.0)  # ᾱ = 0: nothing to divide by


def test_only_the_output_layers_nudge_must_be_weak(net):
    dp.DualProp(net, alpha=0.0, beta=[7.0, 0.9])


@pytest.mark.parametrize("schedule", [3, "swep", dp.Sweep, object()], ids=["number", "word", "class", "object"])
def test_schedule(net, schedule):
    with refused("schedule"):
        dp.DualProp(net, schedule=schedule)


@pytest.mark.parametrize(
    ("registry", "wrong", "near"),
    [
        (dp.RULES, "dpp", "dp"),
        (dp.RULES, "ms_dp", "ms-dp"),
        (dp.RULES, "KP-DP", "kp-dp"),
        (dp.LOSSES, "cross-entropy", "cross_entropy"),
        (dp.LOSSES, "MSE", "mse"),
        (dp.POTENTIALS, "rleu", "relu"),
        (dp.POTENTIALS, "hard_sigmoid", "hard-sigmoid"),
        (dp.SCHEDULES, "sweeps", "sweep"),
        (dp.NETS, "mpl", "mlp"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_near_matches_are_suggested(registry, wrong, near):
    with refused(f"{registry.kind} '{wrong}'.*did you mean .*'{near}'"):
        registry[wrong]


@pytest.mark.parametrize("name", ["", "zzz", "a\nb", 7, None])
def test_names_near_nothing_list_what_there_is(name):
    with refused("unknown rule .*Known: bp, dp"):
        dp.RULES[name]


def test_names_are_checked_where_they_are_given(net):
    with refused("unknown loss 'mes'.*'mse'"):
        dp.DualProp(net, loss="mes")
    with refused("unknown activation 'rleu'.*'relu'"):
        dp.nets.mlp(SIZES, "rleu")
    with refused("unknown activation 'lineal'.*'linear'"):
        dp.nets.mlp(SIZES, output="lineal")
    with refused("unknown feedback 'kolen'.*'kolen-pollack'"):
        dp.nets.mlp(SIZES, feedback="kolen")
    with refused("unknown feedback 'symetric'.*'symmetric'"):
        dp.Dense(3, 2, feedback="symetric")
    with refused("unknown activation"):
        dp.Layer(dp.Dense(3, 2), "rleu")


def test_a_registry_is_still_a_dictionary():
    assert "zzz" not in dp.RULES
    assert dp.RULES.get("zzz") is None
    with pytest.raises(KeyError):
        dp.RULES["zzz"]


def test_kp_dp_needs_feedback_weights(net):
    with refused("feedback='kolen-pollack'"):
        dp.RULES["kp-dp"](net)


@pytest.mark.parametrize("name", list(dp.RULES))
def test_settings_that_a_rule_does_not_have(name):
    method = dp.RULES[name]
    with refused("^alhpa: .*" + ("alpha" if "alpha" in method.known_settings else "loss")):
        method(double_net(SIZES, feedback=method.feedback), alhpa=0.5)
    with refused("^net"):
        method.check({"net": 1})


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", None, True, math.nan], ids=str)
def test_sweep(n):
    with refused("^n="):
        dp.Sweep(n)


@pytest.mark.parametrize("ticks", [0, -1, 1.0, "2", True], ids=str)
def test_parallel(ticks):
    with refused("^ticks"):
        dp.Parallel(ticks)


@pytest.mark.parametrize(
    "order", [0, -1, 1.5, None, True, [], (), [0], [1, 0], [-1], [1.0], ["1"], [True]], ids=str
)
def test_random(order):
    with refused("order|updates"):
        dp.Random(order)


@pytest.mark.parametrize("seed", [-1, 1.5, None, "0"], ids=str)
def test_seed(seed):
    with refused("^seed"):
        dp.Random(10, seed=seed)


@pytest.mark.parametrize("order", [[3], [1, 2, 3], [99]], ids=str)
def test_orders_that_name_layers_beyond_the_net(net, order):
    with refused("order.*1..2"):
        dp.DualProp(net, schedule=dp.Random(order))
    dp.DualProp(net, schedule=dp.Random([1, 2, 1]))


@pytest.mark.parametrize(
    "text",
    [
        "sweep:x",
        "sweep:",
        "sweep:-1",
        "sweep:1,2",
        "sweep:" + "9" * 5000,
        "swep",
        "random:0",
        "random:5:",
        "random:[]",
        "random:[1,2",
        "random:[0]",
        "parallel:1.5",
        "",
    ],
)
def test_schedules_in_words(text):
    with refused("schedule|n=|updates|order|ticks"):
        dp.schedules.parse(text)


def test_schedules_in_words_that_are_right():
    assert dp.schedules.parse("sweep") == dp.Sweep()
    assert dp.schedules.parse("sweep:3") == dp.Sweep(3)
    assert dp.schedules.parse("parallel:7") == dp.Parallel(7)
    assert dp.schedules.parse("parallel") == dp.Parallel()
    assert dp.schedules.parse("random:50") == dp.Random(50)
    assert dp.schedules.parse("random:50:3") == dp.Random(50, seed=3)
    assert dp.schedules.parse("random:[2,1,3]") == dp.Random([2, 1, 3])
    assert dp.schedules.parse("random:[2]") == dp.Random([2])


@pytest.mark.parametrize("sizes", [[], [4], (4,)], ids=str)
def test_too_few_sizes(sizes):
    with refused("^sizes"):
        dp.nets.mlp(sizes)


@pytest.mark.parametrize("sizes", [[4, 0], [0, 3], [4, -1, 3], [4, 2.5, 3], [4, "8", 3]], ids=str)
def test_sizes_that_are_no_sizes(sizes):
    with refused("sizes|features"):
        dp.nets.mlp(sizes)


def test_nets_without_layers_or_of_something_else():
    with refused("^layers"):
        dp.Net([])
    with refused("layer"):
        dp.Net([torch.nn.Linear(4, 3)])  # else a rule would silently skip it
    with refused("layer"):
        dp.Net([dp.Layer(dp.Dense(4, 3)), torch.nn.ReLU()])
    with refused("synapse"):
        dp.Layer(torch.nn.Linear(4, 3))
    with refused("potential"):
        dp.Layer(dp.Dense(4, 3), torch.tanh)


def test_layers_that_do_not_fit_each_other():
    with refused("^net: edge layer1 -> layer2: takes 9 neurons, but layer1 has 8$"):
        dp.Net([dp.Layer(dp.Dense(4, 8)), dp.Layer(dp.Dense(9, 3), "linear")])
    net = dp.Net([dp.Layer(dp.Conv2d(1, 2, 3)), dp.Layer(dp.Dense(9, 3), "linear")])  # as wide as its images
    with refused("8.*9"):
        dp.DualProp(net).backward(torch.randn(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("slope", [0, -0.1, 1.1, math.nan], ids=str)
def test_slope(slope):
    with refused("^slope"):
        dp.potentials.LeakyReLU(slope)


def test_cross_entropy_on_a_softmax_layer():
    with refused("softmax"):
        dp.DualProp(double_net(SIZES, output="softmax"), loss="cross_entropy")


@pytest.mark.parametrize(
    "row", [[0.5, 0.6, 0.0], [1.5, -0.5, 0.0], [0.0, 0.0, 0.0], [math.nan, 0.5, 0.5]], ids=str
)
def test_float_targets_of_cross_entropy_are_probabilities(row, net):
    rule = dp.DualProp(net, loss="cross_entropy")
    x, _ = double_batch(2, SIZES[0], SIZES[-1])
    good = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    rule.backward(x, good)
    bad = good.clone()
    bad[1] = torch.tensor(row)
    with nothing_changes(rule), refused("^y"):
        rule.backward(x, bad)


@pytest.mark.parametrize("name", [n for n, m in dp.RULES.items() if issubclass(m.rule, dp.DualProp)])
def test_infer_refuses_bad_batches_and_touches_nothing(name):
    method = dp.RULES[name]
    rule = method(double_net(SIZES, feedback=method.feedback))
    x, y = double_batch(4, SIZES[0], SIZES[-1])
    rule.backward(x, y)
    for bad_x, bad_y in ((x * math.nan, y), (x[:, 1:], y), (x[:0], y[:0]), (x[0], y), (x, y + 3), (x, y - 9)):
        with nothing_changes(rule), refused("^[xy]:"):
            rule.infer(bad_x, bad_y)


@pytest.mark.parametrize("name", list(dp.RULES))
def test_a_refused_rule_leaves_the_net_alone(name):
    method = dp.RULES[name]
    net = double_net(SIZES, feedback=method.feedback)
    rule = method(net)
    rule.backward(*double_batch(4, SIZES[0], SIZES[-1]))
    with nothing_changes(rule), refused("loss"):
        method(net, loss="nope")


def test_every_error_of_the_library_is_a_value_error():
    assert issubclass(dp.DualpropError, ValueError)
