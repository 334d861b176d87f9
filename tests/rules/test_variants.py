"""What tells the named variants apart: updates per batch, kept states, feedback weights, random orders."""

from __future__ import annotations

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import (
    assert_identical,
    assert_same,
    autograd_gradient,
    cosine,
    double_batch,
    double_net,
    gradient_of,
    relative_error,
)
from tests.oracles.refused import refused

SIZES = (5, 6, 4, 3)


def built(name: str, activation: str = "tanh", **settings) -> dp.Rule:
    method = dp.RULES[name]
    return method(double_net(SIZES, activation, feedback=method.feedback), **settings)


def batch(n: int = 4, seed: int = 0):
    return double_batch(n, SIZES[0], SIZES[-1], seed=seed)


@pytest.mark.parametrize("name", ["bp", "dp", "l-dp", "p-dp", "r-dp", "kp-dp", "dp-t"])
def test_one_weight_update_per_batch(name):
    assert len(list(built(name).iterate(*batch()))) == 1


@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
def test_ms_dp_updates_as_often_as_it_has_rounds(rounds):
    assert len(list(built("ms-dp", rounds=rounds).iterate(*batch()))) == rounds
    assert len(list(built("ms-dp").iterate(*batch()))) == 3


def test_the_registry_holds_the_published_settings():
    rule = built("dp")
    assert rule.nudge.alpha == 0.5
    assert set(rule.nudge.beta) == {1.0}
    assert rule.schedule == dp.Sweep(1)
    assert (rule.lazy, rule.rounds, rule.nudge.transpose) == (False, 1, False)
    assert built("l-dp").lazy
    assert built("p-dp").schedule == dp.Parallel()
    assert built("r-dp").schedule == dp.Random(100)
    assert built("dp-t").nudge.transpose
    assert built("kp-dp").net.feedback == "kolen-pollack"
    assert built("r-dp", schedule=dp.Random(5)).schedule == dp.Random(5)  # a caller overrides


def test_the_rounds_of_ms_dp_go_on_from_each_others_states():
    """Without a step in between, the second round finds what one more sweep finds."""
    x, y = batch()
    rounds = []
    rule = built("ms-dp", beta=0.5)
    for _ in rule.iterate(x, y):
        rounds.append({n: p.grad.clone() for n, p in rule.net.named_parameters()})
        rule.net.zero_grad(set_to_none=True)
    for n, gradient in enumerate(rounds, 1):
        assert_same(gradient, gradient_of(built("dp", beta=0.5, schedule=dp.Sweep(n)), x, y), rtol=1e-12)
    assert relative_error(rounds[1], rounds[0]) > 1e-4


def test_ms_dp_keeps_nothing_from_batch_to_batch():
    rule = built("ms-dp")
    first = gradient_of(rule, *batch())
    list(rule.iterate(*batch(seed=1)))
    assert_identical(gradient_of(rule, *batch()), first)


def test_the_gradient_of_dp_is_that_of_one_sweep_whatever_came_before():
    rule = built("dp")
    first = gradient_of(rule, *batch())
    gradient_of(rule, *batch(7, seed=1))
    assert_identical(gradient_of(rule, *batch()), first)


# Lazy states


def test_a_lazy_rule_starts_from_zero_and_goes_on_from_what_it_kept():
    rule = built("l-dp", beta=0.5)
    x, y = batch()
    first, second = gradient_of(rule, x, y), gradient_of(rule, x, y)
    assert_same(first, gradient_of(built("dp", beta=0.5), x, y), rtol=1e-12)
    assert_same(second, gradient_of(built("dp", beta=0.5, schedule=dp.Sweep(2)), x, y), rtol=1e-12)


def test_a_smaller_batch_uses_the_first_slots_and_leaves_the_others():
    rule = built("l-dp", beta=0.5)
    x, y = batch(6)
    rule.backward(x, y)
    before = rule.state_dict()
    rule.backward(x[:2] + 1, y[:2])
    after = rule.state_dict()
    for side in ("means", "differences"):
        for k, (old, new) in enumerate(zip(before[side], after[side], strict=True)):
            assert new.shape == old.shape == (6, SIZES[k + 1])
            assert torch.equal(new[2:], old[2:])
            assert not torch.equal(new[:2], old[:2])


def test_slots_are_independent_of_each_other():
    """Sample i of a batch sees slot i alone: a rule for each sample does the same."""
    together = built("l-dp", beta=0.5)
    alone = [built("l-dp", beta=0.5) for _ in range(4)]
    for seed, size in enumerate((2, 4, 1, 3, 4)):
        x, y = batch(size, seed=seed)
        whole = gradient_of(together, x, y)
        parts = [gradient_of(alone[n], x[n : n + 1], y[n : n + 1]) for n in range(size)]
        assert_same({k: sum(p[k] for p in parts) / size for k in whole}, whole, rtol=1e-11)


def test_a_larger_batch_gets_new_slots_at_zero():
    rule = built("l-dp", beta=0.5)
    x, y = batch(6)
    rule.backward(x[:2], y[:2])
    fresh = built("l-dp", beta=0.5).infer(x, y)
    state = rule.infer(x, y)
    for k in range(1, len(SIZES)):
        torch.testing.assert_close(state.plus[k][2:], fresh.plus[k][2:], rtol=1e-12, atol=1e-14)
    assert not torch.allclose(state.plus[1][:2], fresh.plus[1][:2], rtol=1e-6)
    rule.backward(x, y)
    assert all(len(z) == 6 for z in rule.state_dict()["means"])


def test_lazy_states_wait_for_training_not_for_inference():
    rule = built("l-dp")
    assert rule.state_dict()["means"] == []
    rule.infer(*batch())
    rule.predict(batch()[0])
    rule.gradients(*batch())
    dp.alignment(rule, *batch())
    assert rule.state_dict()["means"] == []
    rule.backward(*batch())
    assert [tuple(z.shape) for z in rule.state_dict()["means"]] == [(4, 6), (4, 4), (4, 3)]


def test_kept_states_are_the_rules_own():
    """What a caller does to a step's output or to an inferred state reaches no later batch."""
    for schedule in (dp.Sweep(), dp.Parallel(), dp.Random(30)):
        rule, other = (built("l-dp", schedule=schedule) for _ in range(2))
        for seed in range(3):
            x, y = batch(seed=seed)
            assert_identical(gradient_of(rule, x, y), gradient_of(other, x, y))
            step = rule.backward(x, y)
            other.backward(x, y)
            step.output.fill_(7)
            for z in rule.infer(x, y).plus[1:]:
                z.fill_(7)


# infer


@pytest.mark.parametrize("name", [n for n, m in dp.RULES.items() if issubclass(m.rule, dp.DualProp)])
def test_infer_shows_what_the_next_backward_learns_from_and_leaves_everything(name):
    rule = built(name, beta=0.5)
    for seed in range(3):
        x, y = batch(seed=seed)
        rule.net.zero_grad(set_to_none=True)
        expected = rule.infer(x, y)
        again = rule.infer(x, y)
        for a, b in zip(expected.plus + expected.minus, again.plus + again.minus, strict=True):
            assert torch.equal(a, b)
        assert all(p.grad is None for p in rule.net.parameters())
        frozen = [z.clone() for z in expected.plus + expected.minus]
        rule.backward(x, y)
        for a, b in zip(expected.plus + expected.minus, frozen, strict=True):
            assert torch.equal(a, b)
        for k, layer in enumerate(rule.net.chain, 1):  # MATHS §3, from the states that infer showed
            delta = (expected.minus[k] - expected.plus[k]) / rule.nudge.beta[k - 1] / len(x)
            torch.testing.assert_close(layer.synapse.weight.grad, delta.T @ expected.mean[k - 1])
            torch.testing.assert_close(layer.synapse.bias.grad, delta.sum(0))


@pytest.mark.parametrize("transpose", [False, True])
def test_mean_and_difference_are_what_they_are_called(transpose):
    rule = built("dp", alpha=0.25, beta=0.5, transpose=transpose)
    x, y = batch()
    state = rule.infer(x, y)
    weight = 0.75 if transpose else 0.25
    for k in range(len(SIZES)):
        torch.testing.assert_close(state.difference[k], state.plus[k] - state.minus[k])
        torch.testing.assert_close(state.mean[k], weight * state.plus[k] + (1 - weight) * state.minus[k])
    assert torch.equal(state.plus[0], x)
    assert torch.equal(state.minus[0], x)
    assert not torch.equal(state.plus[1], state.minus[1])


# Random orders


def test_a_random_order_is_drawn_anew_for_every_batch_from_the_rules_own_seed():
    x, y = batch()
    rule, same, other = built("r-dp"), built("r-dp"), built("r-dp", schedule=dp.Random(100, seed=1))
    first = [built("r-dp").backward(x, y).products, rule.backward(x, y).products]
    assert first[0] == first[1]
    same.backward(x, y)
    counts = [(rule.backward(x, y).products, same.backward(x, y).products) for _ in range(5)]
    assert all(a == b for a, b in counts)
    assert len({*first, *(a for a, _ in counts)}) > 1
    assert other.backward(x, y).products != first[0]


# Kolen-Pollack


def test_feedback_weights_get_the_gradient_of_the_weights():
    gradient = gradient_of(built("kp-dp"), *batch())
    assert "layers.0.synapse.feedback" not in gradient  # the first layer sends nothing down
    for k in (1, 2):
        assert torch.equal(gradient[f"layers.{k}.synapse.feedback"], gradient[f"layers.{k}.synapse.weight"])


def test_feedback_goes_through_b_not_through_w():
    rule, (x, y) = built("kp-dp"), batch()
    before = gradient_of(rule, x, y)
    with torch.no_grad():
        rule.net.chain[1].synapse.feedback.zero_()
    after = gradient_of(rule, x, y)
    assert float(after["layers.0.synapse.weight"].abs().max()) == 0
    assert float(before["layers.0.synapse.weight"].abs().max()) > 0
    assert_identical(
        {n: g for n, g in after.items() if n.startswith("layers.2")},
        {n: g for n, g in before.items() if n.startswith("layers.2")},
    )


@pytest.mark.parametrize(("lr", "decay"), [(0.1, 0.5), (0.05, 0.1)])
def test_b_minus_w_decays_by_one_minus_lr_times_weight_decay(lr, decay):
    rule = built("kp-dp", beta=0.5)
    optimizer = torch.optim.SGD(rule.net.parameters(), lr=lr, weight_decay=decay)
    synapse = rule.net.chain[1].synapse
    gap = (synapse.feedback - synapse.weight).detach().clone()
    start = gap.clone()
    for n in range(1, 31):
        optimizer.zero_grad()
        rule.backward(*batch(seed=n))
        optimizer.step()
        new = (synapse.feedback - synapse.weight).detach().clone()
        torch.testing.assert_close(new, (1 - lr * decay) * gap, rtol=1e-9, atol=1e-14)
        gap = new
    torch.testing.assert_close(gap, (1 - lr * decay) ** 30 * start, rtol=1e-9, atol=1e-14)


def test_feedback_weights_align_with_the_weights_and_the_gradient_with_backprop():
    rule, (x, y) = built("kp-dp", beta=0.1), batch(20)
    optimizer = torch.optim.SGD(rule.net.parameters(), lr=0.2, weight_decay=0.05)
    before = dp.feedback_cosines(rule.net)
    for _ in range(800):
        optimizer.zero_grad()
        rule.backward(x, y)
        optimizer.step()
    after = dp.feedback_cosines(rule.net)
    assert len(before) == len(after) == 2
    assert max(before) < 0.9
    assert min(after) > 0.99
    truth = autograd_gradient(rule.net, "mse", x, y)
    assert cosine(gradient_of(rule, x, y), truth, 1) > 0.95


def test_symmetric_nets_have_no_feedback_weights():
    assert dp.feedback_cosines(double_net(SIZES)) == ()
    assert double_net(SIZES).feedback == "symmetric"


# A net of one layer


@pytest.mark.parametrize("name", list(dp.RULES))
def test_one_layer(name):
    method = dp.RULES[name]
    net = double_net((5, 3), feedback=method.feedback)
    x, y = batch()
    gradient = gradient_of(method(net, **({"beta": 1e-6} if "beta" in method.known_settings else {})), x, y)
    if name == "dtp":  # β is not divided out, as published
        gradient = {n: g / 1e-6 for n, g in gradient.items()}
    assert relative_error(gradient, autograd_gradient(net, "mse", x, y)) < 1e-5


def test_layers_without_biases():
    net = dp.Net([dp.Layer(dp.Dense(5, 6, bias=False), "tanh"), dp.Layer(dp.Dense(6, 3, bias=False), "linear")])
    net = net.double()
    x, y = batch()
    gradient = gradient_of(dp.DualProp(net, beta=1e-6), x, y)
    assert set(gradient) == {"layers.0.synapse.weight", "layers.1.synapse.weight"}
    assert relative_error(gradient, autograd_gradient(net, "mse", x, y)) < 1e-8


# State dicts


def test_a_lazy_rule_refuses_states_of_a_net_of_other_sizes():
    rule = built("l-dp")
    rule.backward(*batch())
    for sizes in ((5, 7, 4, 3), (5, 6, 3)):
        other = dp.RULES["l-dp"](double_net(sizes))
        with refused("state"):
            other.load_state_dict(rule.state_dict())
        assert other.state_dict()["means"] == []


def test_a_rule_that_keeps_no_states_takes_none():
    """Else plain DP would start every batch from them for ever."""
    lazy, plain, (x, y) = built("l-dp"), built("dp"), batch()
    lazy.backward(x, y)
    expected = gradient_of(built("dp"), x, y)
    with pytest.raises(dp.DualpropError, match="state"):
        plain.load_state_dict(lazy.state_dict())
    assert_identical(gradient_of(plain, x, y), expected)


OTHERS = [
    (ours, theirs)
    for ours in dp.RULES
    for theirs in ("bp", "dp")
    if set(built(ours).state_dict()) != set(built(theirs).state_dict())  # of one class, or neither keeps anything
]


@pytest.mark.parametrize(("ours", "theirs"), OTHERS)
def test_rules_of_another_class_are_refused(ours, theirs):
    with pytest.raises(dp.DualpropError, match="state"):
        built(ours).load_state_dict(built(theirs).state_dict())
