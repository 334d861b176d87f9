"""Every rule in the registry passes every check; so does a rule that a user registers in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.rules.conformance import CHECKS, PROBLEMS, suits

QUICK = ("bp", "dp", "kp-dp", "ep", "dtp")
"""One rule of each family: `make test` checks them on convolutions and skips, and all on dense layers."""


def suited(*slow: str) -> list[Any]:
    """Every rule with every kind of net that it runs on, on these for `make test-all`."""
    return [
        pytest.param(
            name,
            problem,
            marks=pytest.mark.slow if problem in slow or (problem != "dense" and name not in QUICK) else (),
        )
        for name, method in dp.RULES.items()
        for problem in PROBLEMS
        if suits(method, problem)
    ]


@pytest.mark.parametrize(("name", "problem"), suited("tied"))
@pytest.mark.parametrize("check", [name for name in CHECKS if name != "learns"])
def test_conforms(check: str, name: str, problem: str) -> None:
    CHECKS[check](dp.RULES[name], PROBLEMS[problem])


@pytest.mark.parametrize(("name", "problem"), suited("conv", "skip", "tied"))
def test_learns(name: str, problem: str) -> None:
    CHECKS["learns"](dp.RULES[name], PROBLEMS[problem])


def test_the_names_of_the_first_milestone_are_there() -> None:
    assert {"bp", "dp", "ms-dp", "l-dp", "p-dp", "r-dp", "kp-dp", "dp-t"} <= set(dp.RULES)


class DirectFeedback(dp.Rule):
    """A toy: the error goes to every hidden layer through fixed random weights (direct feedback alignment)."""

    def update(self, x: Tensor, y: Tensor) -> dp.Step:
        drives, states = [], [x]
        for layer in self.net.chain:
            drives.append(layer.synapse(states[-1]))
            states.append(layer.potential(drives[-1]))
        generator = torch.Generator().manual_seed(0)
        error = self.loss.gradient(states[-1], y) / len(x)
        for layer, a, z in zip(self.net.chain[::-1], drives[::-1], states[-2::-1], strict=True):
            sent = error
            if layer is not self.net.chain[-1]:
                weights = torch.randn(error.shape[1], a.shape[1], generator=generator, dtype=torch.float64)
                sent = error @ weights.to(error) * (layer.potential(a + 1e-3) - layer.potential(a - 1e-3)) / 2e-3
            layer.synapse.add_grad(sent, z)
        return dp.Step(self.loss.value(states[-1], y).mean(), states[-1])


@pytest.fixture
def toy() -> Iterator[str]:
    dp.RULES["toy"] = dp.Method(DirectFeedback, "direct feedback alignment")
    yield "toy"
    del dp.RULES["toy"]


@pytest.mark.parametrize("check", list(CHECKS))
def test_a_toy_rule_of_one_class_and_one_line_conforms(check: str, toy: str) -> None:
    CHECKS[check](dp.RULES[toy], PROBLEMS["dense"])


def test_a_toy_rule_comes_by_name_and_is_gone_afterwards() -> None:
    assert "toy" not in dp.RULES
    with pytest.raises(dp.DualpropError, match="toy"):
        dp.RULES["toy"]


# The checks have teeth: a toy with one fault each fails the check that is there for it.


class SumsTheBatch(DirectFeedback):
    """Divides by nothing."""

    def updates(self, x, y):
        for step in super().updates(x, y):
            for p in self.net.parameters():
                p.grad *= len(x)
            yield step


class OverwritesGrad(DirectFeedback):
    """Clears what it should add to."""

    def updates(self, x, y):
        self.net.zero_grad(set_to_none=True)
        yield from super().updates(x, y)


class DrawsFromTheGlobalGenerator(DirectFeedback):
    """Noise from torch's own generator."""

    def updates(self, x, y):
        for step in super().updates(x, y):
            for p in self.net.parameters():
                p.grad += 1e-3 * torch.randn_like(p)
            yield step


class ForgetsItsState(DirectFeedback):
    """Momentum that no state_dict holds."""

    memory = 0.0

    def updates(self, x, y):
        self.memory = 0.5 * self.memory + float(x.mean())
        for step in super().updates(x, y):
            for p in self.net.parameters():
                p.grad *= 1 + 0.1 * self.memory
            yield step


class KeepsAGraph(DirectFeedback):
    """Returns an output that autograd still holds."""

    def updates(self, x, y):
        for step in super().updates(x, y):
            with torch.enable_grad():
                output = self.net(x)
            yield dp.Step(step.loss, output)


class LeaksAutocast(DirectFeedback):
    """Yields inside a context of its own."""

    def updates(self, x, y):
        with torch.autocast("cpu", torch.bfloat16):
            yield from super().updates(x, y)


class MovesAWeight(DirectFeedback):
    """Steps by itself."""

    def updates(self, x, y):
        for step in super().updates(x, y):
            with torch.no_grad():
                next(self.net.parameters()).mul_(0.999)
            yield step


class WritesOnTheInput(DirectFeedback):
    """Adds noise to x in place."""

    def updates(self, x, y):
        yield from super().updates(x.add_(0.001), y)


FAULTS = [
    (SumsTheBatch, "duplicating_every_sample_changes_no_gradient"),
    (SumsTheBatch, "parts_of_a_batch_average_to_the_whole"),
    (OverwritesGrad, "backward_adds_to_grad"),
    (DrawsFromTheGlobalGenerator, "backward_changes_only_grad_and_its_own_state"),
    (DrawsFromTheGlobalGenerator, "the_same_seed_gives_the_same_run"),
    (ForgetsItsState, "its_state_goes_through_a_file_and_the_run_goes_on_bit_exactly"),
    (ForgetsItsState, "predict_and_gradients_and_alignment_touch_nothing"),
    (KeepsAGraph, "yields_steps_with_loss_and_output"),
    (LeaksAutocast, "the_loop_body_runs_in_the_callers_modes"),
    (MovesAWeight, "backward_changes_only_grad_and_its_own_state"),
    (WritesOnTheInput, "leaves_the_batch_alone"),
]


@pytest.mark.parametrize(("rule", "check"), FAULTS, ids=lambda v: getattr(v, "__name__", v))
def test_a_faulty_rule_does_not_conform(rule: type[dp.Rule], check: str) -> None:
    with pytest.raises(AssertionError):
        CHECKS[check](dp.Method(rule, "faulty"), PROBLEMS["dense"])


def test_the_suite_binds_rules_to_nets_that_fit_them() -> None:
    for name, method in dp.RULES.items():
        for kind, problem in PROBLEMS.items():
            if suits(method, kind):
                assert problem.bound(method).net.feedback == method.feedback, name
                assert problem.bound(method).net.wiring.is_chain == (kind in ("dense", "conv"))
