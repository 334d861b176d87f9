"""Dual propagation builds no autograd graph, not even where the caller has grad mode on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dualprop as dp

from .builders import double_batch, double_net, gradient_of

DUAL_PROP = [name for name, method in dp.RULES.items() if issubclass(method.rule, dp.DualProp)]


class GraphError(Exception):
    pass


def refuse(*args: object, **kwargs: object) -> None:
    raise GraphError


@pytest.fixture
def no_autograd(monkeypatch):
    """Whatever differentiates, or saves a tensor in order to, raises."""
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    with torch.autograd.graph.saved_tensors_hooks(refuse, refuse):
        yield


def free_of_graphs(*tensors: Tensor) -> bool:
    return all(t.grad_fn is None and not t.requires_grad for t in tensors)


@pytest.mark.parametrize("loss", sorted(dp.LOSSES))
@pytest.mark.parametrize("name", DUAL_PROP)
def test_no_graph_at_all(name, loss, no_autograd):
    net = double_net((5, 6, 6, 3), "tanh", feedback=dp.RULES[name].feedback)
    x, y = double_batch(4, 5, 3)
    x.requires_grad_()
    rule = dp.RULES[name](net, loss=loss)
    assert torch.is_grad_enabled()
    state = rule.infer(x, y)
    assert free_of_graphs(*state.plus, *state.minus, *state.mean, *state.difference)
    for step in rule.iterate(x, y):
        assert free_of_graphs(step.loss, step.output)
    assert free_of_graphs(*(p.grad for p in net.parameters()))
    assert free_of_graphs(rule.predict(x))
    state = rule.infer(x, y)  # from states that a lazy rule has kept
    assert free_of_graphs(*state.plus, *state.minus)


@pytest.mark.parametrize("potential", sorted(dp.POTENTIALS))
def test_no_potential_builds_one(potential, no_autograd):
    net = double_net((5, 6, 3), potential)
    dp.DualProp(net).backward(*double_batch(4, 5, 3))


def test_the_trap_catches_backprop(no_autograd):
    with pytest.raises(GraphError):
        dp.Backprop(double_net((5, 6, 3))).backward(*double_batch(4, 5, 3))


class Huber(dp.Loss):
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.huber_loss(z, y, reduction="none").sum(1)


def leaves(node: object) -> list[Tensor]:
    """The tensors at which a graph ends."""
    found, pending = [], [node]
    while pending:
        node = pending.pop()
        if hasattr(node, "variable"):
            found.append(node.variable)
        pending += [parent for parent, _ in node.next_functions if parent is not None]
    return found


@pytest.mark.parametrize("name", DUAL_PROP)
def test_a_custom_loss_differentiates_by_the_output_alone(name, monkeypatch):
    net = double_net((5, 6, 6, 3), "tanh", feedback=dp.RULES[name].feedback)
    x, _ = double_batch(4, 5, 3)
    y = torch.randn(4, 3, dtype=torch.float64)
    differentiate, graphs = torch.autograd.grad, []

    def watched(value, inputs, *args, **kwargs):
        graphs.append((leaves(value.grad_fn), inputs))
        return differentiate(value, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    rule = dp.RULES[name](net, loss=Huber())
    for _ in rule.iterate(x, y):
        pass
    assert graphs
    for ends, inputs in graphs:
        assert len(ends) == 1
        assert ends[0] is (inputs if isinstance(inputs, Tensor) else inputs[0])
        assert ends[0].shape == (4, 3)
    assert free_of_graphs(*(p.grad for p in net.parameters()))


def test_no_graph_is_left_in_the_callers_no_grad_or_inference_mode():
    net, (x, y) = double_net((5, 6, 3)), double_batch(4, 5, 3)
    expected = gradient_of(dp.DualProp(net), x, y)
    for mode in (torch.no_grad, torch.inference_mode):
        net.zero_grad(set_to_none=True)
        with mode():
            dp.DualProp(net).backward(x, y)
        for name, p in net.named_parameters():
            assert torch.equal(p.grad, expected[name])
