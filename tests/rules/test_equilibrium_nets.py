"""The relaxing rules on every kind of net: autocast, feedback weights, affine modules, layouts, frozen weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dualprop as dp
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
    relative_error,
    small_conv_net,
)
from tests.oracles.hopfield_twin import ACTIVATIONS, Published, one_hot
from tests.rules.test_equilibrium_prop import behind, front, of_layers

RULES: dict[str, Callable[..., dp.Rule]] = {
    "ep": lambda net, **s: dp.EquilibriumProp(net, **{"beta": 0.3, "T1": 9, "T2": 6, **s}),
    "ep-centred": lambda net, **s: dp.EquilibriumProp(
        net, **{"variant": "centred", "beta": 0.3, "T1": 9, "T2": 6, **s}
    ),
    "hep": lambda net, **s: dp.HolomorphicEP(net, **{"beta": 0.3, "N": 4, "T1": 9, "T2": 6, **s}),
    "hep in noise": lambda net, **s: dp.HolomorphicEP(
        net, **{"beta": 0.3, "N": 4, "noise": 0.02, "T1": 9, "T2": 6, **s}
    ),
    "chl": lambda net, **s: dp.ContrastiveHebbian(net, **{"gamma": 0.4, "T1": 9, "T2": 6, **s}),
}
each_rule = pytest.mark.parametrize("name", list(RULES))
each_loss = pytest.mark.parametrize("loss", ["mse", "cross_entropy"])


# bf16


@each_loss
@pytest.mark.parametrize("name", ["ep-centred", "hep", "hep in noise", "chl"])
@pytest.mark.parametrize("pool", [None, dp.AvgPool2d, dp.SoftmaxPool2d])
def test_under_autocast_gradients_are_float32_and_near_those_without(pool, name, loss):
    net, (x, y) = double_net((20, 32, 32, 5), "sigmoid"), double_batch(64, 20, 5)
    if pool is not None:
        net, (x, y) = image_net(behind(pool(2), pool(2, 1)), "sigmoid"), image_batch(64)
    net, x = net.float(), x.float()
    expected = gradient_of(RULES[name](net, loss=loss, T1=20, T2=10), x, y)
    rule = RULES[name](net, loss=loss, T1=20, T2=10)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradient_of(rule, x, y)
        assert rule.predict(x).dtype == torch.float32
        assert all(z.dtype == torch.float32 for z in rule.infer(x, y).plus)
    assert all(g.dtype == torch.float32 for g in ours.values())
    for k in range(1, len(net) + 1):  # feedback is added before anything is rounded to the states' type
        assert cosine(ours, expected, k) > 0.99, k
    assert relative_error(ours, expected) > 1e-5  # products were in bf16


def test_under_autocast_the_contrast_of_states_is_in_their_precision():
    """∂E/∂W = -z_k z_{k-1}^T of plus less that of minus: nearly equal numbers, which bf16 would lose."""
    net, (x, y) = double_net((20, 32, 32, 5), "sigmoid").float(), double_batch(64, 20, 5)
    rule = RULES["ep-centred"](net, beta=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        ours, state = gradient_of(rule, x.float(), y), rule.infer(x.float(), y)
    parts = [(w / 0.1, [z.double() for z in side]) for w, side in ((1, state.plus[1:]), (-1, state.minus[1:]))]
    expected = contrast(net, x, parts)
    assert relative_error({n: g.double() for n, g in ours.items()}, expected) < 1e-5


@each_loss
@each_rule
def test_weights_may_change_within_one_autocast(name, loss):
    """Which keeps their low-precision copies."""
    net, (x, y) = double_net((5, 6, 4, 3), "sigmoid").float(), double_batch(4, 5, 3)
    x = x.float()

    def seen() -> tuple[Tensor, dict[str, Tensor]]:
        rule = RULES[name](net, loss=loss)
        return rule.predict(x), gradient_of(rule, x, y)

    with torch.autocast("cpu", torch.bfloat16):
        before, _ = seen()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1.5)
        output, gradient = seen()
    with torch.autocast("cpu", torch.bfloat16):
        expected, of_another = seen()
    assert not torch.equal(before, expected)
    assert torch.equal(output, expected)
    assert_identical(gradient, of_another)


@each_rule
def test_double_precision_is_untouched_by_autocast(name):
    net, (x, y) = double_net((5, 6, 4, 3), "sigmoid"), double_batch(4, 5, 3)
    expected = gradient_of(RULES[name](net), x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert_identical(gradient_of(RULES[name](net), x, y), expected)


# Feedback weights


def relaxed(net: dp.Net, x: Tensor, states: list[Tensor], steps: int, gain: float, force) -> list[Tensor]:
    """All layers at once: z_k <- f(W_k z_{k-1} + b_k + γ B_{k+1}^T z_{k+1}), with the force on the last."""
    kind = states[0].dtype
    real = [layer.synapse for layer in net.chain]
    W, B = ([p.detach().to(kind) for p in ps] for ps in ([s.weight for s in real], [s.feedback for s in real[1:]]))
    b, f = [s.bias.detach() for s in real], ACTIVATIONS["sigmoid"]
    for _ in range(steps):
        below, new = [x.to(kind), *states], []
        for k, z in enumerate(states):
            a = below[k] @ W[k].T + b[k]
            a = a + (gain * states[k + 1] @ B[k] if k + 1 < len(states) else force(z))
            new.append(a if k + 1 == len(net) else f(a))
        states = new
    return states


def contrast(net: dp.Net, x: Tensor, parts, scale=lambda k: 1.0) -> dict[str, Tensor]:
    """The batch mean of Re Σ_t w_t ∂E(z^t)/∂W for W, b and B, whose gradient is that of W."""
    gradient = {}
    for k, layer in enumerate(net.chain):
        z = [(w, [x.to(states[0].dtype), *states]) for w, states in parts]
        outer = -sum((w * s[k + 1].T @ s[k]).real for w, s in z) * scale(k + 1) / len(x)
        gradient[f"layers.{k}.synapse.weight"] = outer
        gradient[f"layers.{k}.synapse.bias"] = (
            -sum((w * s[k + 1].sum(0)).real for w, s in z) * scale(k + 1) / len(x)
        )
        if layer.synapse.feedback is not None:
            gradient[f"layers.{k}.synapse.feedback"] = outer
    return gradient


@pytest.fixture
def kolen_pollack() -> tuple[dp.Net, Tensor, Tensor, Tensor]:
    net = double_net((5, 6, 4, 3), "sigmoid", feedback="kolen-pollack")
    x, y = double_batch(4, 5, 3)
    return net, x, y, one_hot(y, 3, x)


def zeros(x: Tensor) -> list[Tensor]:
    return [x.new_zeros(len(x), n) for n in (6, 4, 3)]


def test_equilibria_with_feedback_weights(kolen_pollack):
    net, x, y, target = kolen_pollack
    free = relaxed(net, x, zeros(x), 9, 1.0, lambda z: 0)
    circle = [0.3, 0.3j, -0.3, -0.3j]
    spread = [z.to(torch.complex128) for z in free]
    ends = [relaxed(net, x, spread, 6, 1.0, lambda z, b=b: -b * (z - target)) for b in circle]
    ours = gradient_of(RULES["hep"](net, order="synchronous"), x, y)
    assert_same(ours, contrast(net, x, [(1 / (4 * b), z) for b, z in zip(circle, ends, strict=True)]), rtol=1e-11)
    ours = gradient_of(RULES["ep-centred"](net, order="synchronous"), x, y)
    assert_same(ours, contrast(net, x, [(1 / 0.6, ends[0]), (-1 / 0.6, ends[2])]), rtol=1e-11)
    symmetric = double_net((5, 6, 4, 3), "sigmoid")
    assert relative_error(gradient_of(RULES["ep-centred"](symmetric), x, y), ours) > 0.1


def test_a_read_out_with_feedback_weights(kolen_pollack):
    net, x, y, target = kolen_pollack
    W, b, B = (getattr(net.chain[-1].synapse, name).detach() for name in ("weight", "bias", "feedback"))

    def error(z: Tensor) -> Tensor:
        return torch.softmax(z @ W.T + b, 1) - target

    free = relaxed(net, x, zeros(x)[:2], 9, 1.0, lambda z: 0)
    ends = relaxed(net, x, free, 6, 1.0, lambda z: -0.3 * error(z) @ B)
    expected = contrast(dp.Net(net.chain[:2]), x, [(1 / 0.3, ends), (-1 / 0.3, free)])
    delta = error(ends[-1]) / len(x)
    expected["layers.2.synapse.weight"] = expected["layers.2.synapse.feedback"] = delta.T @ ends[-1]
    expected["layers.2.synapse.bias"] = delta.sum(0)
    rule = RULES["ep"](net, loss="cross_entropy", order="synchronous")
    assert_same(gradient_of(rule, x, y), expected, rtol=1e-11)


def test_clamped_states_with_feedback_weights(kolen_pollack):
    net, x, y, target = kolen_pollack
    free = relaxed(net, x, zeros(x), 9, 0.4, lambda z: 0)
    states = [*free[:-1], target]
    for _ in range(6):
        states = [*relaxed(net, x, states, 1, 0.4, lambda z: 0)[:-1], target]
    expected = contrast(net, x, [(1, states), (-1, free)], lambda k: 0.4 ** (k - 3))
    assert_same(gradient_of(RULES["chl"](net, order="synchronous"), x, y), expected, rtol=1e-11)


# Nets without hidden layers, without biases


@pytest.mark.parametrize("name", ["ep", "ep-centred", "hep", "chl"])
def test_a_read_out_alone_learns_by_backprop(name):
    net, (x, y) = double_net((5, 3)), double_batch(4, 5, 3)
    rule = RULES[name](net, loss="cross_entropy")
    assert_same(gradient_of(rule, x, y), autograd_gradient(net, "cross_entropy", x, y), rtol=1e-12)
    torch.testing.assert_close(rule.predict(x), net(x).detach())


@each_loss
@pytest.mark.parametrize("name", ["ep-centred", "hep"])
def test_nets_without_biases(name, loss):
    synapses = [dp.Dense(5, 6, bias=False), dp.Dense(6, 4, bias=False), dp.Dense(4, 3, bias=False)]
    net, (x, y) = image_net(synapses, "sigmoid"), double_batch(4, 5, 3)
    twin = Published(net, of_layers(net, "sigmoid", loss), x, one_hot(y, 3, x), loss=loss, order="even-odd")
    free = twin.free(9)
    expected = twin.hep(free, 6, 0.3, 4) if name == "hep" else twin.ep(free, 6, 0.3, -0.3)
    assert_same(gradient_of(RULES[name](net, loss=loss), x, y), expected, rtol=1e-11)


# Affine modules


def modules(feedback: str = "symmetric") -> list[dp.Synapse]:
    """A strided convolution, a transposed one behind a pool, a linear module."""
    return [
        dp.Affine(nn.Conv2d(2, 3, 3, stride=2, padding=1)),
        dp.Affine(nn.ConvTranspose2d(3, 2, 2), pool=dp.AvgPool2d(2, 1), feedback=feedback),
        dp.Affine(nn.Sequential(nn.Flatten(), nn.Linear(18, 3)), feedback=feedback),
    ]


@each_loss
@pytest.mark.parametrize("name", ["ep-centred", "hep"])
def test_affine_modules_step_by_step(name, loss):
    net, (x, y) = image_net(modules(), "sigmoid"), image_batch(4)
    twin = Published(net, of_layers(net, "sigmoid", loss), x, one_hot(y, 3, x), loss=loss, order="even-odd")
    free = twin.free(9)
    expected = twin.hep(free, 6, 0.3, 4) if name == "hep" else twin.ep(free, 6, 0.3, -0.3)
    assert_same(gradient_of(RULES[name](net, loss=loss), x, y), expected, rtol=1e-11)


@each_rule
def test_feedback_weights_of_affine_modules_get_the_gradients_of_their_twins(name):
    net, (x, y) = image_net(modules("kolen-pollack"), "sigmoid"), image_batch(4)
    gradient = gradient_of(RULES[name](net), x, y)
    for twin, of in (("1.synapse.feedback", "1.synapse.module"), ("2.synapse.feedback.1", "2.synapse.module.1")):
        ours = gradient[f"layers.{twin}.weight"]
        assert torch.equal(ours, gradient[f"layers.{of}.weight"])
        assert float(ours.abs().max()) > 0


# Layouts, frozen weights, what inference shows


@each_loss
@each_rule
@pytest.mark.parametrize("made", [front, behind])
def test_images_may_lie_channels_last(made, name, loss):
    net, (x, y) = image_net(made(dp.SoftmaxPool2d(2), dp.SoftmaxPool2d(2, 1)), "sigmoid"), image_batch(4)
    rows = gradient_of(RULES[name](net, loss=loss), x, y)
    last = x.to(memory_format=torch.channels_last)
    assert_same(gradient_of(RULES[name](net, loss=loss), last, y), rows, rtol=1e-10)
    net.to(memory_format=torch.channels_last)
    gradient = gradient_of(RULES[name](net, loss=loss), last, y)
    assert_same(gradient, rows, rtol=1e-10)
    assert all(p.grad.stride() == p.stride() for p in net.parameters())


@each_rule
def test_frozen_weights_behind_pools(name):
    net, (x, y) = image_net(behind(dp.SoftmaxPool2d(2), dp.AvgPool2d(2, 1)), "sigmoid"), image_batch(4)
    full = gradient_of(RULES[name](net), x, y)
    for frozen, p in net.named_parameters():
        p.requires_grad_(False)
        assert_same(gradient_of(RULES[name](net), x, y), {n: g for n, g in full.items() if n != frozen})
        p.requires_grad_(True)


@each_loss
@each_rule
def test_inference_shows_all_layers_and_the_read_out_as_the_last(name, loss):
    net, (x, y) = small_conv_net("sigmoid"), image_batch(4)
    net = image_net(front(dp.AvgPool2d(2), dp.AvgPool2d(2, 1)), "sigmoid") if "hep" in name else net
    state = RULES[name](net, loss=loss).infer(x, y)
    for side in (state.plus, state.minus):
        assert [tuple(z.shape[1:]) for z in side] == net.shapes((2, 6, 6))
        assert torch.equal(side[0], x)
        if loss == "cross_entropy" and name != "chl":
            torch.testing.assert_close(side[-1], net.chain[-1].synapse(side[-2]).detach())
    assert float((state.plus[-1] - state.minus[-1]).abs().max()) > 1e-3
