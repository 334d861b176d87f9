"""Dual propagation builds no autograd graph, not even where the caller has grad mode on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.builders import double_batch, double_net, gradient_of, image_batch, image_net, small_conv_net

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


@pytest.mark.parametrize("name", DUAL_PROP)
def test_no_graph_on_images(name, no_autograd):
    net, (x, y) = small_conv_net("tanh", dp.RULES[name].feedback), image_batch(2)
    rule = dp.RULES[name](net)
    assert torch.is_grad_enabled()
    state = rule.infer(x, y)
    assert free_of_graphs(*state.plus, *state.minus)
    for step in rule.iterate(x, y):
        assert free_of_graphs(step.loss, step.output)
    assert free_of_graphs(*(p.grad for p in net.parameters()))


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


@pytest.mark.parametrize("name", DUAL_PROP)
def test_an_affine_module_is_differentiated_alone(name, monkeypatch):
    """Every graph ends at the parameters of one module, or of its twin, and at what that module reads."""
    feedback = dp.RULES[name].feedback
    modules = [
        torch.nn.Conv2d(2, 3, 3, padding=1),
        torch.nn.ConvTranspose2d(3, 2, 2, stride=2),
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3)),
    ]
    synapses = [dp.Affine(module, feedback=feedback) for module in modules]
    synapses[1].pool = dp.MaxPool2d(2)
    net, (x, y) = image_net(synapses), image_batch(2)
    owner = {id(p): k for k, layer in enumerate(net.chain) for p in layer.parameters()}
    differentiate, graphs = torch.autograd.grad, []

    def watched(value, inputs, *args, **kwargs):
        graphs.append({owner.get(id(leaf), "state") for leaf in leaves(value.grad_fn)})
        return differentiate(value, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    for _ in dp.RULES[name](net).iterate(x, y):
        pass
    assert {frozenset(owners - {"state"}) for owners in graphs} == {frozenset([k]) for k in range(3)}
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
