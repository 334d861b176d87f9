"""The rule that CONTRIBUTING shows: copied as it stands and registered by its line, it trains."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dualprop as dp
from dualprop.runs.folder import Run
from tests.oracles.builders import autograd_gradient, cosine, double_batch, double_net, gradient_of
from tests.rules.conformance import CHECKS, PROBLEMS

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def name(monkeypatch):
    """What the page registers its rule as."""
    code, line = (
        textwrap.dedent(block)
        for block in re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), flags=re.DOTALL)
    )
    names = {"Method": dp.Method}
    exec(compile(code, str(CONTRIBUTING), "exec", dont_inherit=True), names)
    ((name, method),) = eval("{" + line + "}", names).items()
    monkeypatch.setitem(dp.RULES, name, method)
    assert len(code.split("class ", 1)[1].strip().splitlines()) <= 25
    return name


def test_it_trains_stops_and_goes_on(name, quick, tmp_path):
    settings = replace(quick, rule=name, lr=0.01, alignment=True, rule_settings={"sigma": 0.1})
    result = dp.train(settings, tmp_path / "run")
    epochs = [record for record in Run.open(tmp_path / "run").metrics() if record["kind"] == "epoch"]
    assert len(epochs) == 2
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert math.isfinite(result.test_loss)


def test_it_points_along_the_gradient_on_average(name):
    """The mean over many noises, with a small σ, is back-propagation's gradient."""
    net, (x, y) = double_net((3, 4, 2)), double_batch(2, 3, 2)
    rule = dp.RULES[name](net, sigma=1e-4)
    many = x.repeat(20000, 1), y.repeat(20000)
    ours, truth = gradient_of(rule, *many), autograd_gradient(net, "mse", x, y)
    assert min(cosine(ours, truth, k) for k in (1, 2)) > 0.98


@pytest.mark.parametrize(
    "check",
    [
        "its_state_goes_through_a_file_and_the_run_goes_on_bit_exactly",
        "predict_and_gradients_and_alignment_touch_nothing",
        "backward_changes_only_grad_and_its_own_state",
        "gives_every_parameter_a_gradient",
        "the_same_seed_gives_the_same_run",
    ],
)
@pytest.mark.parametrize("problem", ["dense", "conv"])
def test_it_conforms(name, check, problem):
    CHECKS[check](dp.RULES[name], PROBLEMS[problem])


def test_it_draws_from_its_own_generator(name):
    rule, batch = dp.RULES[name](double_net((3, 4, 2))), double_batch(2, 3, 2)
    torch.manual_seed(1)
    first = rule.gradients(*batch)
    torch.manual_seed(2)
    assert all(torch.equal(g, first[n]) for n, g in rule.gradients(*batch).items())
