"""Learning layer by layer: gradients while inference goes on, hooks on them, means that are made again."""

from __future__ import annotations

import copy

import pytest
import torch

import dualprop as dp
from dualprop.engines.dyads.binding import Binding
from dualprop.engines.dyads.program import every_register
from tests.oracles.builders import assert_identical, gradient_of, image_batch, image_net, small_conv_net, suited

pytestmark = pytest.mark.filterwarnings("ignore:schedule")  # not every order here lets every layer learn

SCHEDULES = [
    dp.Sweep(),
    dp.Sweep(2),
    dp.Parallel(),
    dp.Random(30, seed=2),
    dp.Random([1, 2, 3, 4, 3, 1, 1, 2]),
    dp.Random([2, 3, 1, 4, 3]),  # layer 2's drive goes while synapse 3 has yet to learn from its mean
]
DUAL_PROP = [name for name, method in dp.RULES.items() if issubclass(method.rule, dp.DualProp)]


def deep_net(activation: str = "relu", feedback: str = "symmetric") -> dp.Net:
    """Two convolutions in a row, so that a plain mean is read by a convolution and by a pool."""
    own = {"feedback": feedback}
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 3, 3, padding=1, **own),
        dp.Conv2d(3, 4, 3, padding=1, pool=dp.MaxPool2d(2), **own),
        dp.Dense(4, 3, pool=dp.MaxPool2d(2), **own),
    ]
    return image_net(synapses, activation)


class Hoarder(Binding):
    """Frees nothing, and writes nothing over."""

    def bind(self, steps, keep):
        return super().bind(steps, every_register(self._wiring))


@pytest.mark.parametrize("lazy", [False, True], ids=["fresh", "lazy"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_what_is_freed_changes_no_gradient(alpha, schedule, lazy, monkeypatch):
    net, results = deep_net(), []
    for binding in (Binding, Hoarder):
        monkeypatch.setattr("dualprop.engines.dyads.inference.Binding", binding)
        rule = dp.DualProp(net, alpha=alpha, beta=0.5, schedule=schedule, lazy=lazy)
        results.append([gradient_of(rule, *image_batch(2, seed=seed)) for seed in range(2)])
    for ours, theirs in zip(*results, strict=True):
        assert_identical(ours, theirs)


def test_means_are_freed_as_soon_as_nobody_will_read_them(monkeypatch):
    """On the way up each once its drive is there, on the way down once the edges above have learnt from it."""
    held = []
    updating = Binding._updating

    def watched(self, update):
        call = updating(self, update)

        def then():
            held.append([k for k, neurons in self._neurons.items() if neurons.mean is not None])
            call()

        return then

    monkeypatch.setattr(Binding, "_updating", watched)
    dp.DualProp(deep_net(), beta=0.5).backward(*image_batch(2))
    assert held == [[0]] * 7


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_learning_on_the_way_is_learning_from_the_final_states(schedule):
    """(1/β_k)(z_k^- - z_k^+) p_{k-1}^T from what `infer` says, whenever the synapses learned."""
    net, (x, y) = small_conv_net("relu", "kolen-pollack"), image_batch(3)
    rule = dp.DualProp(net, alpha=0.25, beta=(0.7, 1.1, 0.5, 0.8), schedule=schedule)
    state, ours = rule.infer(x, y), gradient_of(rule, x, y)
    net.zero_grad()
    for k, layer in enumerate(net.chain, 1):
        with torch.no_grad():
            layer.synapse.add_grad(-state.difference[k] / (rule.nudge.beta[k - 1] * 3), state.mean[k - 1])
    for name, p in net.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-10, atol=1e-14)


def watched(net: dp.Net) -> list[str]:
    """The names of parameters in the order in which their hooks are called."""
    calls: list[str] = []
    for name, p in net.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize("name", list(dp.RULES))
def test_hooks_are_called_once_a_parameter_and_round_with_the_gradient_in_place(name):
    method = dp.RULES[name]
    net, (x, y) = small_conv_net(**suited(method, "tanh"), pool=method.pool), image_batch(2)
    calls = watched(net)
    rule = method(net)
    rounds = 0
    for _ in rule.iterate(x, y):
        rounds += 1
        assert sorted(calls) == sorted(n for n, _ in net.named_parameters())
        assert all(p.grad is not None for p in net.parameters())
        calls.clear()
    assert rounds == (3 if name == "ms-dp" else 1)


@pytest.mark.parametrize("name", ["bp", "dp", "kp-dp", "ms-dp", "dp-t"])
def test_hooks_are_called_from_the_top_down(name):
    method = dp.RULES[name]
    net = small_conv_net("tanh", method.feedback)
    calls = watched(net)
    method(net).backward(*image_batch(2))
    layers = [int(call.split(".")[1]) for call in calls]
    assert layers == sorted(layers, reverse=True)


def test_a_synapse_learns_before_those_below_it_have_been_updated(monkeypatch):
    """So that a gradient need not outlive its layer's turn: hooks between updates, not all at the end."""
    net, events = small_conv_net("tanh"), []
    updating = Binding._updating

    def watched(self, update):
        call = updating(self, update)
        return lambda: events.append(update.number) or call()

    monkeypatch.setattr(Binding, "_updating", watched)
    for k, layer in enumerate(net.chain, 1):
        layer.synapse.weight.register_post_accumulate_grad_hook(lambda p, k=k: events.append(f"W{k}"))
    dp.DualProp(net, beta=0.5).backward(*image_batch(2))
    assert events == [1, 2, 3, 4, 3, "W4", 2, "W3", 1, "W2", "W1"]


@pytest.mark.parametrize("name", list(dp.RULES))
def test_steps_inside_hooks_give_the_weights_of_steps_after_backward(name):
    method = dp.RULES[name]
    net = small_conv_net(**suited(method), pool=method.pool)
    twin = copy.deepcopy(net)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    rule, other = method(net), method(twin)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, weight_decay=0.01)
    for p in net.parameters():
        own = torch.optim.SGD([p], lr=0.1, weight_decay=0.01)

        def step(p, own=own):
            own.step()
            p.grad = None

        p.register_post_accumulate_grad_hook(step)
    for seed in range(3):
        x, y = image_batch(2, seed=seed)
        outputs = [step.output for step in rule.iterate(x, y)]
        assert all(p.grad is None for p in net.parameters())
        for step, output in zip(other.iterate(x, y), outputs, strict=True):
            assert torch.equal(step.output, output)
            optimizer.step()
            optimizer.zero_grad()
    assert_identical(dict(net.named_parameters()), dict(twin.named_parameters()))
    assert all(not torch.equal(p, before[n]) for n, p in net.named_parameters())


@pytest.mark.parametrize("name", DUAL_PROP)
def test_frozen_parameters_have_no_hook_to_call(name):
    method = dp.RULES[name]
    net = small_conv_net("tanh", method.feedback)
    calls = watched(net)
    net.chain[1].synapse.weight.requires_grad_(False)
    for _ in method(net).iterate(*image_batch(2)):
        pass
    assert "layers.1.synapse.weight" not in calls
    assert "layers.1.synapse.bias" in calls
