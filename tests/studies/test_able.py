"""A comparison without a list of rules takes all in RULES that can run on the net."""

import pytest

import dualprop as dp
from dualprop.errors import DivergenceError
from dualprop.rules.relaxing import Relaxing
from dualprop.runs.settings import Settings
from dualprop.studies.comparison import able, compare
from dualprop.training.experiment import build
from dualprop.training.recipes import Recipe
from tests.slow import but_slow

COMMON = {"data": "digits", "hidden": [8], "epochs": 1}


def test_every_rule_can_run_on_an_mlp(monkeypatch):
    monkeypatch.setitem(dp.RULES, "toy", dp.Method(dp.Backprop, "a toy"))
    assert able([0], COMMON) == (list(dp.RULES), {})


def test_rules_that_the_net_does_not_suit_are_left_out_with_the_reason():
    rules, left_out = able([0], {**COMMON, "activation": "relu"})
    assert "dp" in rules
    assert "hep" in left_out
    assert rules == [rule for rule in dp.RULES if rule not in left_out]
    assert all(left_out.values())


def test_what_is_wrong_for_all_is_an_error():
    with pytest.raises(dp.DualpropError, match="unknown activation 'rleu'"):
        able([0], {**COMMON, "activation": "rleu"})


def test_a_wrong_setting_is_an_error_and_no_reason_to_leave_a_rule_out():
    with pytest.raises(dp.DualpropError, match=r"^alpha"):
        able([0], {**COMMON, "rule_settings": {"alpha": 7}})
    recipe = Recipe({}, {"ep": {"rule_settings": {"T1": 0}}})
    with pytest.raises(dp.DualpropError, match=r"^T1"):
        able([0], COMMON, recipe)


@pytest.mark.parametrize("net", but_slow(["resnet8", "vit_tiny", "hopfield_mlp"], "resnet8", "vit_tiny"))
@pytest.mark.filterwarnings("ignore:.*will hardly learn")
def test_on_a_graph_those_make_a_step_that_were_not_refused(net):
    """But for rules that settle on a transformer, whose energy has no bound: they may diverge, and say so."""
    common = {"data": "digits", "net": net, "batch_size": 2}
    rules, left_out = able([0], common)
    for rule in rules:
        trainer = build(Settings(rule=rule, **common)).trainer
        try:
            trainer.learn(*next(iter(trainer.data)))
        except DivergenceError:
            assert net == "vit_tiny"
            assert issubclass(dp.RULES[rule].rule, Relaxing)
    assert {"dp", "ms-dp", "l-dp", "p-dp", "r-dp", "dp-t", "rbp"} <= set(rules)
    assert ("bp" in rules) is (net != "hopfield_mlp")
    assert {"kp-dp", "dtp"} <= set(left_out)
    assert all("\n" not in why and why.startswith(("net: ", "feedback=")) for why in left_out.values())


def test_a_comparison_that_nobody_watches_says_one_line_a_run(tmp_path, capfd):
    compare(["bp", "dp"], [0], {"hidden": [4], "epochs": 3, "alignment": False}, tmp_path / "c")
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split("  ")[:2] for line in err.splitlines()] == [
        [f"{rule} on digits, seed 0", "3 epochs"] for rule in ("bp", "dp")
    ]


@pytest.mark.parametrize(
    ("rules", "seeds", "says"),
    [
        ("bp", [0], "rules='bp': must be a list of words"),
        (["bp"], 0, "seeds=0: must be a list of whole numbers"),
        (["bp"], [0, -1], r"seeds=\[0, -1\]: must be a list of whole numbers of at least 0"),
    ],
)
def test_one_where_there_should_be_several_is_told(tmp_path, rules, seeds, says):
    with pytest.raises(dp.DualpropError, match=says):
        compare(rules, seeds, COMMON, tmp_path / "runs")
