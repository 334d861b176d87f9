"""Difference target propagation against its definition, and what it tends to."""

from __future__ import annotations

import io

import pytest
import torch

import dualprop as dp
from dualprop.nets.synapses import Pooled
from tests.oracles.builders import (
    assert_identical,
    assert_same,
    autograd_gradient,
    cosine,
    double_batch,
    double_net,
    gradient_of,
    image_batch,
    image_net,
    slope,
    small_conv_net,
)
from tests.oracles.dtp_twin import TwinBlock, operand, twin_gradient, twin_targets
from tests.oracles.products import Products
from tests.rules.conformance import CHECKS, PROBLEMS, tensors

SIZES = (5, 8, 7, 6, 3)


def pooled_net(activation: str = "tanh") -> dp.Net:
    """Max-pools behind two convolutions, one of them strided, then a dense layer: the published kind of block."""
    synapses = [
        Pooled(dp.Conv2d(2, 3, 3, padding=1), dp.MaxPool2d(2)),
        Pooled(dp.Conv2d(3, 4, 2, padding=1), dp.MaxPool2d(2)),
        dp.Dense(16, 3),
    ]
    return image_net(synapses, activation)


def averaged_net(activation: str = "tanh") -> dp.Net:
    """An average-pool behind a strided convolution that reads a max-pooled state."""
    synapses = [
        dp.Conv2d(2, 3, 3, padding=2),
        Pooled(dp.Conv2d(3, 4, 3, stride=2, padding=1, pool=dp.MaxPool2d(2, 1)), dp.AvgPool2d(2)),
        dp.Dense(16, 3),
    ]
    return image_net(synapses, activation)


NETS = {
    "tanh": lambda: double_net(SIZES, "tanh"),
    "relu": lambda: double_net(SIZES, "relu"),
    "softmax": lambda: double_net(SIZES, "softmax"),
    "kolen-pollack": lambda: double_net(SIZES, "tanh", feedback="kolen-pollack"),
    "pools in front": small_conv_net,
    "pools in front, relu": lambda: small_conv_net("relu"),
    "pools behind": pooled_net,
    "pools behind, elu": lambda: pooled_net("elu"),
    "both": averaged_net,
}


def batch_for(net: dp.Net, n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images = not isinstance(net.chain[0].synapse.core, dp.Dense)
    return image_batch(n, seed=seed) if images else double_batch(n, SIZES[0], SIZES[-1], seed=seed)


def transposes(rule: dp.DifferenceTargetProp) -> None:
    """Make every feedback map that of the net's own weights."""
    with torch.no_grad():
        for g, layer in zip(rule.maps, rule.net.chain[1:], strict=True):
            g.weight.copy_(layer.synapse.core.weight)


# Targets and gradients


@pytest.mark.parametrize("feedback", ["l-drl", "plain"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", NETS)
def test_targets_and_gradients_are_those_of_the_definition(name, loss, feedback):
    net = NETS[name]()
    x, y = batch_for(net)
    rule = dp.DifferenceTargetProp(net, loss=loss, beta=0.7, K=3, feedback=feedback)
    rule.backward(x, y)
    vars(rule)["K"] = (0,) * len(rule.K)
    state = rule.infer(x, y)
    for ours, theirs in zip(state.plus[1:], twin_targets(rule, x, y), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    gradient = {n: g for n, g in gradient_of(rule, x, y).items() if not n.endswith("feedback")}
    assert_same(gradient, twin_gradient(rule, x, y), rtol=1e-10)


def test_the_states_are_those_of_the_feed_forward_pass():
    net = small_conv_net()
    x, y = image_batch(4)
    state = dp.DifferenceTargetProp(net).infer(x, y)
    z = x
    for layer, minus, mean in zip(net.chain, state.minus[1:], state.mean[1:], strict=True):
        z = layer(z).detach()
        torch.testing.assert_close(minus, z, rtol=1e-13, atol=1e-14)
        assert torch.equal(mean, minus)
    assert torch.equal(state.plus[0], x)


def test_maps_that_invert_their_blocks_make_every_layer_hit_its_target():
    """A layer that was given its target below would answer with its target: F_k(t_{k-1}) = t_k."""
    net = double_net((5, 5, 5, 5), "linear")
    rule = dp.DifferenceTargetProp(net, beta=0.5, K=0)
    with torch.no_grad():
        for g, layer in zip(rule.maps, net.chain[1:], strict=True):
            g.weight.copy_(torch.linalg.inv(layer.synapse.weight).t())
    x, y = double_batch(6, 5, 5)
    targets = rule.infer(x, y).plus
    for layer, below, above in zip(net.chain[1:], targets[1:-1], targets[2:], strict=True):
        torch.testing.assert_close(layer(below).detach(), above, rtol=1e-10, atol=1e-12)
        assert float((below - above).norm()) > 0.1


def test_a_linear_net_with_transposed_maps_learns_as_by_back_propagation_whatever_beta():
    net = double_net(SIZES, "linear")
    x, y = double_batch(6, SIZES[0], SIZES[-1])
    truth = autograd_gradient(net, "mse", x, y)
    for beta in (1.0, 0.1):
        rule = dp.DifferenceTargetProp(net, beta=beta, K=0)
        transposes(rule)
        assert_same({n: g / beta for n, g in gradient_of(rule, x, y).items()}, truth, rtol=1e-11)


def test_the_error_against_linearised_feedback_is_of_first_order_in_beta():
    """For tanh, G = W^T f sends e_k down as W^T (f'(z_k) e_k); as β falls the update per β tends to that."""
    net = double_net(SIZES, "tanh")
    x, y = double_batch(6, SIZES[0], SIZES[-1])
    drives, states = [], [x]
    for layer in net.chain:
        drives.append(layer.synapse(states[-1]).detach())
        states.append(layer.potential(drives[-1]))
    limit = {}
    e = states[-1] - torch.eye(SIZES[-1], dtype=x.dtype)[y]
    for k in range(len(net), 0, -1):
        hidden = k < len(net)
        delta = e * (1 - torch.tanh(drives[k - 1]) ** 2) if hidden else e
        limit[f"layers.{k - 1}.synapse.weight"] = delta.t() @ states[k - 1] / 6
        limit[f"layers.{k - 1}.synapse.bias"] = delta.mean(0)
        e = (e * (1 - torch.tanh(states[k]) ** 2) if hidden else e) @ net.chain[k - 1].synapse.weight.detach()
    betas, errors = [0.3, 0.1, 0.03, 0.01], []
    for beta in betas:
        rule = dp.DifferenceTargetProp(net, beta=beta, K=0)
        transposes(rule)
        ours = gradient_of(rule, x, y)
        errors.append(sum(float((g / beta - limit[n]).norm() ** 2) for n, g in ours.items()) ** 0.5)
    assert slope(betas, errors) == pytest.approx(1, abs=0.05)


# What the feedback maps learn


def trained(net: dp.Net, x: torch.Tensor, y: torch.Tensor, sigma: float, lr: float) -> dp.DifferenceTargetProp:
    """A rule whose maps have had 1500 steps on one batch, the last of them small, and take no more."""
    kept = None
    for part in (1.0, 0.2, 0.02):
        rule = dp.DifferenceTargetProp(net, beta=1e-3, K=500, sigma=sigma, feedback_lr=part * lr)
        if kept is not None:
            for g, weight in zip(rule.maps, kept, strict=True):
                g.weight.data.copy_(weight)
        rule.backward(x, y)
        kept = [g.weight.detach() for g in rule.maps]
    vars(rule)["K"] = (0,) * len(rule.K)
    return rule


def jacobians(rule: dp.DifferenceTargetProp, x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of G_k, and of the block k transposed, as matrices at the first sample."""
    z = x[:1]
    for layer in rule.net.chain[: k - 1]:
        z = layer(z).detach()
    block, g = rule.net.chain[k - 1], rule.maps[k - 2]
    p = operand(block, z)
    twin = TwinBlock(block, g.weight.detach())
    above, winners = twin.forward(p)
    forward = torch.autograd.functional.jacobian(lambda p: twin.forward(p)[0], p)
    back = torch.autograd.functional.jacobian(lambda z: twin.backward(z, winners, p.shape), above.detach())
    return back.reshape(p.numel(), -1), forward.reshape(-1, p.numel()).t()


LINEAR = {
    "dense": lambda: double_net(SIZES, "linear"),
    "pools in front": lambda: small_conv_net("linear"),
    "in front and behind": lambda: averaged_net("linear"),
}


@pytest.mark.parametrize(
    ("name", "sigma", "lr"),
    [("dense", 0.1, 1.0), ("pools in front", 0.1, 0.1), ("in front and behind", 0.1, 0.2)],
)
def test_ldrl_drives_a_linear_map_to_the_transpose_of_the_forward_jacobian(name, sigma, lr):
    """Whereupon the update per β is back-propagation's."""
    net = LINEAR[name]()
    x, y = batch_for(net, 40)
    rule = trained(net, x, y, sigma, lr)
    for k in range(2, len(net) + 1):
        ours, theirs = jacobians(rule, x, k)
        assert float(torch.cosine_similarity(ours.flatten(), theirs.flatten(), 0)) > 0.99
        assert float((ours - theirs).norm() / theirs.norm()) < 0.05
    truth, update = autograd_gradient(net, "mse", x, y), gradient_of(rule, x, y)
    for k in range(1, len(net) + 1):
        assert cosine(update, truth, k) > 0.99
    error, size = (
        sum(float(g.norm() ** 2) for g in gs) ** 0.5
        for gs in ([update[n] / rule.beta - g for n, g in truth.items()], truth.values())
    )
    assert error < 0.05 * size


def test_before_it_has_learnt_the_update_is_not_that_of_back_propagation():
    net = double_net(SIZES, "linear")
    x, y = batch_for(net, 40)
    update = gradient_of(dp.DifferenceTargetProp(net, beta=1e-3, K=0), x, y)
    truth = autograd_gradient(net, "mse", x, y)
    assert cosine(update, truth, 4) > 0.99
    assert max(abs(cosine(update, truth, k)) for k in (1, 2, 3)) < 0.9


@pytest.mark.parametrize("name", ["tanh", "pools behind, elu"])
def test_ldrl_aligns_a_nonlinear_net_too(name):
    net = NETS[name]()
    x, y = batch_for(net, 40)
    rule = trained(net, x, y, 0.05, 2.0 if name == "tanh" else 0.3)
    truth, update = autograd_gradient(net, "mse", x, y), gradient_of(rule, x, y)
    for k in range(1, len(net) + 1):
        assert cosine(update, truth, k) > 0.95


def test_reconstruction_learns_an_inverse():
    """Of a square linear block, bias and all: G(F(p)) = p, and so every layer hits its target."""
    net = double_net((5, 4, 4), "linear")
    with torch.no_grad():  # well away from singular
        net.chain[1].synapse.weight.copy_(torch.eye(4) + 0.2 * net.chain[1].synapse.weight)
    x, y = double_batch(60, 5, 4)
    rule = dp.DifferenceTargetProp(net, K=3000, sigma=0.5, feedback_lr=0.05, feedback="plain")
    rule.backward(x, y)
    (g,) = rule.maps
    w, b = net.chain[1].synapse.weight.detach(), net.chain[1].synapse.bias.detach()
    torch.testing.assert_close(g.weight.detach().t() @ w, torch.eye(4, dtype=w.dtype), rtol=0, atol=1e-3)
    torch.testing.assert_close(g.bias.detach(), -torch.linalg.solve(w, b), rtol=0, atol=1e-3)


# What is kept, and what is left alone


@pytest.mark.parametrize(
    "check",
    [
        "its_state_goes_through_a_file_and_the_run_goes_on_bit_exactly",
        "a_state_dict_is_a_snapshot",
        "predict_and_gradients_and_alignment_touch_nothing",
        "gives_every_parameter_a_gradient",
        "single_precision_agrees_with_double",
        "learns",
    ],
)
@pytest.mark.parametrize("problem", ["dense", "conv"])
def test_plain_difference_target_propagation_conforms(check, problem):
    CHECKS[check](dp.Method(dp.DifferenceTargetProp, "plain", {"feedback": "plain"}), PROBLEMS[problem])


@pytest.mark.parametrize("feedback", ["l-drl", "plain"])
def test_maps_momenta_and_noise_go_on_where_a_file_left_them(feedback):
    net = small_conv_net()
    whole, resumed = (
        dp.DifferenceTargetProp(net, K=[3, 1, 2], sigma=[0.1, 0.2, 0.3], feedback=feedback, seed=seed)
        for seed in (0, 1)
    )
    whole.backward(*image_batch(4))
    assert all(optimizer.state for optimizer in whole.optimizers)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for rule in (whole, resumed):
        for seed in (1, 2):
            rule.backward(*image_batch(5, seed=seed))
    assert_identical(tensors(resumed.state_dict()), tensors(whole.state_dict()))


def test_maps_stay_as_they_are_where_k_is_zero_and_where_nothing_is_learnt():
    net = double_net(SIZES)
    x, y = double_batch(6, SIZES[0], SIZES[-1])
    rule = dp.DifferenceTargetProp(net, K=[0, 4, 0])
    before = [g.weight.detach().clone() for g in rule.maps]
    rule.infer(x, y)
    rule.predict(x)
    rule.gradients(x, y)
    assert all(torch.equal(g.weight, b) for g, b in zip(rule.maps, before, strict=True))
    step = rule.backward(x, y)
    assert [torch.equal(g.weight, b) for g, b in zip(rule.maps, before, strict=True)] == [True, False, True]
    assert set(step.measures) == {"feedback_loss"}
    still = dp.DifferenceTargetProp(net, K=0)
    kept = tensors(still.state_dict())
    assert still.backward(x, y).measures == {}
    assert_identical(tensors(still.state_dict()), kept)


def test_maps_and_momenta_follow_the_net_to_another_precision():
    net = dp.nets.mlp([5, 6, 3])
    rule = dp.DifferenceTargetProp(net)
    x, y = double_batch(4, 5, 3)
    rule.backward(x.float(), y)
    net.double()
    net.zero_grad()
    rule.backward(x, y)
    (momentum,) = (state["momentum_buffer"] for state in rule.optimizers[0].state.values())
    assert rule.maps[0].weight.dtype == momentum.dtype == torch.float64


@pytest.mark.parametrize("feedback", ["l-drl", "plain"])
@pytest.mark.parametrize("make", [small_conv_net, lambda: double_net(SIZES)], ids=["conv", "dense"])
def test_every_product_is_counted(make, feedback):
    net = make()
    x, y = batch_for(net)
    rule = dp.DifferenceTargetProp(net, K=[2] + [1] * (len(net) - 2), feedback=feedback)
    with Products() as seen:
        step = rule.backward(x, y)
    assert step.products == len(seen.made) - len(net)  # the gradients' own do not count
    assert step.products == 2 * len(net) - 1 + len(net) * {"l-drl": 4, "plain": 3}[feedback]


def test_a_net_of_one_layer_has_no_maps():
    net = double_net((5, 3))
    x, y = double_batch(6, 5, 3)
    rule = dp.DifferenceTargetProp(net, beta=0.5)
    assert rule.maps == []
    update, truth = gradient_of(rule, x, y), autograd_gradient(net, "mse", x, y)
    assert_same({n: g / 0.5 for n, g in update.items()}, truth, rtol=1e-12)
