"""Every declared setting of every rule: its type and its range at their ends, once for them all."""

from __future__ import annotations

import inspect
import math

import pytest

import dualprop as dp
from dualprop.rules.standing import CHANNELS
from tests.oracles.builders import double_net
from tests.oracles.refused import refused

POSITIVE = "a finite number above 0"
EACH_POSITIVE = f"{POSITIVE} or a list of such"
NOT_NEGATIVE = "a finite number of at least 0"
COUNT = "a whole number of at least 1"
FROM_ZERO = "a whole number of at least 0"
FLAG = "true or false"

OUTSIDE = {
    POSITIVE: [0, -1e-300],
    EACH_POSITIVE: [0, -1e-300, [0.1, 0], [0.1, math.nan], [0.1, "1"], [0.1, True]],
    f"{POSITIVE} or none or a list of such": [0, [0.1, 0], [0.1, None]],
    NOT_NEGATIVE: [-1e-300],
    "a number in [0, 1]": [-1e-300, 1 + 1e-15],
    "a number in [0, 1], a multiple of 1": [-1, 0.5, 2],
    "a number in (0, 1]": [0, 1 + 1e-15],
    "a number in [0, 1)": [-1e-300, 1],
    COUNT: [0, 1.0, 2**63],
    FROM_ZERO: [-1, 0.0, 2**63],
    f"{FROM_ZERO} or none": [-1, 0.0],
    f"{COUNT} or none": [0, 1.0],
    f"{FROM_ZERO} or a list of such": [-1, [1, -1], [1, 1.0], [1, True]],
    "a whole number of at least 2, a multiple of 2": [0, 1, 3, 4.0],
    FLAG: [0, 1, "yes"],
}
"""For each thing that a setting may be, some that it may not, besides those that none of them may be."""
NEVER = [math.nan, math.inf, -math.inf, True, "1", b"1", 1j, {}, {"a": 1}, [[]], object()]

HOPFIELD = {"T1": COUNT, "T2": COUNT, "warm": FLAG, "tolerance": NOT_NEGATIVE}
DECLARED = {
    dp.Backprop: {},
    dp.DualProp: {
        "alpha": "a number in [0, 1]", "beta": EACH_POSITIVE, "transpose": FLAG, "damped": FLAG, "lazy": FLAG,
        "rounds": COUNT,
    },
    dp.PredictiveCoding: {"T2": f"{COUNT} or none", "beta": POSITIVE, "seed": FROM_ZERO},
    dp.RecurrentBackprop: {"steps": f"{FROM_ZERO} or none", "tolerance": POSITIVE},
    dp.EquilibriumProp: {**HOPFIELD, "beta": POSITIVE, "seed": FROM_ZERO, "same_age": FLAG},
    dp.HolomorphicEP: {
        **HOPFIELD, "beta": POSITIVE, "seed": FROM_ZERO, "noise": NOT_NEGATIVE,
        "N": "a whole number of at least 2, a multiple of 2",
    },
    dp.ContrastiveHebbian: {**HOPFIELD, "beta": "a number in (0, 1]", "gamma": POSITIVE},
    dp.LiftedProximal: {
        "alpha": "a number in [0, 1], a multiple of 1", "beta": EACH_POSITIVE, "tolerance": POSITIVE,
        "max_iterations": COUNT,
    },
    dp.DifferenceTargetProp: {
        "beta": POSITIVE, "K": f"{FROM_ZERO} or a list of such", "sigma": EACH_POSITIVE,
        "feedback_lr": f"{POSITIVE} or none or a list of such", "feedback_momentum": "a number in [0, 1)",
        "seed": FROM_ZERO,
    },
}  # fmt: skip
NAMES = ["loss", "order", "variant", "feedback", "schedule"]
"""Settings that are names in a registry."""


def made(name: str, **settings: object) -> dp.Rule:
    method = dp.RULES[name]
    net = double_net((5, 6, 3), "sigmoid", feedback=method.feedback)
    return method(net, **settings)


@pytest.mark.parametrize("name", dp.RULES)
def test_what_the_table_says_is_all_there_is(name):
    method = dp.RULES[name]
    assert {*DECLARED[method.rule], *NAMES, *CHANNELS} >= set(method.known_settings)


@pytest.mark.parametrize("name", dp.RULES)
def test_every_setting_is_checked_for_type_and_range(name):
    for setting, allowed in DECLARED[dp.RULES[name].rule].items():
        never = [value for value in NEVER if not (allowed == FLAG and value is True)]
        for value in [*OUTSIDE[allowed], *never, *([] if "none" in allowed else [None])]:
            with refused(f"^{setting}(=|: of type )"):
                made(name, **{setting: value})
        for value in OUTSIDE[allowed][:1]:
            with pytest.raises(dp.DualpropError) as caught:
                made(name, **{setting: value})
            assert str(caught.value) == f"{setting}={value!r}: must be {allowed}"


@pytest.mark.parametrize("name", dp.RULES)
def test_every_name_is_looked_up_before_anything_is_done(name):
    for setting in set(dp.RULES[name].known_settings) & set(NAMES):
        with refused(f"^unknown {setting}( loss)? 'nonsuch'.*Known: "):
            made(name, **{setting: "nonsuch"})
        for value in (None, 3, [3], {}, object()):
            with refused(f"^{setting}(=|: of type )"):
                made(name, **{setting: value})


@pytest.mark.parametrize("name", dp.RULES)
def test_defaults_are_what_may_be_given(name):
    """Each default by name gives the same rule as no setting at all."""
    method = dp.RULES[name]
    defaults = {n: p.default for n, p in inspect.signature(method.rule).parameters.items() if n != "net"}
    given = {**defaults, **method.settings}
    made(name, **given)


@pytest.mark.parametrize("name", dp.RULES)
def test_unknown_and_missing_arguments(name):
    rule, net = dp.RULES[name].rule, double_net((5, 6, 3), "sigmoid")
    with refused(f"^lss: {rule.__name__} has no such argument; did you mean 'loss'"):
        rule(net, lss="mse")
    with refused(f"^net: missing; {rule.__name__} needs it"):
        rule()
    with refused(r"^net(=|: of type ).*must be a dualprop\.Net$"):
        rule(dp.Dense(5, 3))


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    rule = made("ep", T1=numpy.int64(7), beta=numpy.float32(0.5), tolerance=numpy.float64(0))
    assert (rule.T1, rule.beta, rule.tolerance) == (7, 0.5, 0.0)
    assert type(rule.T1) is int
