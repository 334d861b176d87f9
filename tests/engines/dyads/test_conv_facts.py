"""The facts of MATHS §4 that convolutions and pools could spoil: orders as slopes, equality with reverse mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dualprop as dp
from tests.oracles.builders import (
    autograd_gradient,
    gradient_of,
    image_batch,
    image_net,
    relative_error,
    slope,
    small_conv_net,
)

ALPHAS = (0.0, 0.25, 0.5, 1.0)


def pooled_net(pool: dp.synapses.Pool, feedback: str = "symmetric") -> dp.Net:
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 4, 3, padding=1, pool=pool, feedback=feedback),
        dp.Dense(4, 5, pool=pool, feedback=feedback),
        dp.Dense(5, 3, feedback=feedback),
    ]
    return image_net(synapses, "tanh")


def winners(rule: dp.DualProp, x: Tensor, y: Tensor) -> list[Tensor]:
    """Where the maxima of the final mean are, for every max-pool."""
    mean = rule.infer(x, y).mean
    seen = [layer.synapse.linearise(z)[1] for layer, z in zip(rule.net.chain, mean, strict=False)]
    return [w for s in seen for w in s.memory]


@pytest.mark.parametrize(("alpha", "order"), [(0.0, 1), (0.5, 2), (1.0, 1)])
@pytest.mark.parametrize("pool", [dp.AvgPool2d(2), dp.MaxPool2d(2)], ids=str)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_fact_1_the_error_s_order_in_the_nudge(loss, pool, alpha, order):
    """With a max-pool for nudges so small that no winner changes."""
    net, (x, y) = pooled_net(pool), image_batch(4)
    truth = autograd_gradient(net, loss, x, y)
    betas, errors = (0.1, 0.01, 0.001), []
    for beta in betas:
        rule = dp.DualProp(net, loss=loss, alpha=alpha, beta=beta)
        errors.append(relative_error(gradient_of(rule, x, y), truth))
        unmoved = winners(dp.DualProp(net, loss=loss, alpha=alpha, beta=1e-9), x, y)
        assert all(torch.equal(a, b) for a, b in zip(winners(rule, x, y), unmoved, strict=True))
    assert slope(betas, errors) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("schedule", [dp.Sweep(2), dp.Parallel(), dp.Random([1, 2, 3, 4, 3, 2, 1])], ids=str)
@pytest.mark.parametrize("activation", sorted(dp.POTENTIALS))
def test_fact_6_small_nudges_recover_backprop(activation, schedule):
    net, (x, y) = small_conv_net(activation), image_batch(4)
    ours = gradient_of(dp.DualProp(net, beta=1e-6, schedule=schedule), x, y)
    assert relative_error(ours, autograd_gradient(net, "mse", x, y)) < 1e-7


def test_fact_4_parallel_updates_and_sweeps_share_their_fixed_point():
    net, (x, y) = small_conv_net("tanh"), image_batch(2)
    sweeps, parallel = (dp.DualProp(net, beta=0.2, schedule=s) for s in (dp.Sweep(60), dp.Parallel(200)))
    once = dp.DualProp(net, beta=0.2).infer(x, y)
    fixed, reached = sweeps.infer(x, y), parallel.infer(x, y)
    assert float((once.plus[1] - fixed.plus[1]).abs().max()) > 1e-6
    for a, b in zip(fixed.plus + fixed.minus, reached.plus + reached.minus, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "hard-tanh": nn.Hardtanh}


def sequential(net: dp.Net, activation: str) -> nn.Sequential:
    """The same net as anyone would write it in PyTorch, with the same weights."""
    modules: list[nn.Module] = []
    for layer in net.chain:
        synapse, behind = layer.synapse.core, layer.synapse.behind
        if synapse.pool is not None:
            modules.append(nn.MaxPool2d(synapse.pool.size, synapse.pool.stride))
        if isinstance(synapse, dp.Conv2d):
            modules.append(
                nn.Conv2d(synapse.in_channels, synapse.out_channels, 3, padding=synapse.geometry.padding)
            )
        else:
            modules += [nn.Flatten(), nn.Linear(synapse.in_features, synapse.out_features)]
        modules[-1].weight, modules[-1].bias = (
            nn.Parameter(p.detach().clone()) for p in (synapse.weight, synapse.bias)
        )
        if behind is not None:
            modules.append(nn.MaxPool2d(behind.size, behind.stride))
        modules.append(ACTIVATIONS[activation]())
    return nn.Sequential(*modules[:-1])


def converted(
    net: dp.Net, activation: str, alpha: float, beta: float, x: Tensor, y: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """What the runtime-efficient engine makes: gradients by the drives, and by the parameters in order."""
    module = dp.convert(sequential(net, activation), alpha=alpha, beta=beta)
    drives: list[Tensor] = []

    def keep(m, inputs, output):
        output.retain_grad()
        drives.append(output)

    for m, above in zip(module, [*module[1:], ACTIVATIONS[activation]()], strict=True):
        if isinstance(above, ACTIVATIONS[activation]):
            m.register_forward_hook(keep)
    nn.functional.cross_entropy(module(x), y).backward()
    return [a.grad for a in drives], [p.grad for p in module.parameters()]


NETS = {
    "mlp": lambda activation: image_net(
        [dp.Dense(12, 9), dp.Dense(9, 8), dp.Dense(8, 7), dp.Dense(7, 3)], activation
    ),
    "vgg": lambda activation: nonzero(dp.nets.vgg([[4, 5], [6]], [7], 3, (2, 9, 8), activation)),
    "hopfield_cnn": lambda activation: nonzero(
        dp.nets.hopfield_cnn(3, (2, 9, 8), activation, channels=(4, 5), padding=(1, 0))
    ),
}
BATCHES = {"mlp": (12,), "vgg": (2, 9, 8), "hopfield_cnn": (2, 9, 8)}


def nonzero(net: dp.Net) -> dp.Net:
    """In double precision, with biases that are not zero."""
    for layer in net.double().chain:
        nn.init.uniform_(layer.synapse.core.bias, -0.3, 0.3)
    return net


@pytest.mark.parametrize("beta", [1e-3, 0.5, 3.0])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", NETS)
def test_fact_5_differences_of_one_sweep_are_those_of_the_converted_module(kind, activation, alpha, beta):
    """z_k^+ - z_k^- = -βB times the gradient by the drive a_k, for any nudge; hence the biases' gradients too."""
    net, (x, y) = NETS[kind](activation), image_batch(5, BATCHES[kind])
    rule = dp.DualProp(net, loss="cross_entropy", alpha=alpha, beta=beta)
    by_drive, by_parameter = converted(net, activation, alpha, beta, x, y)
    state = rule.infer(x, y)
    assert len(by_drive) == len(net)
    for k, gradient in enumerate(by_drive, 1):
        torch.testing.assert_close(state.difference[k], -beta * 5 * gradient, rtol=1e-10, atol=1e-14)
    ours = gradient_of(rule, x, y)
    for (name, g), theirs in zip(ours.items(), by_parameter, strict=True):
        if name.endswith("bias") or name.startswith("layers.0"):  # the input is never nudged
            torch.testing.assert_close(g, theirs, rtol=1e-10, atol=1e-13 / beta)  # the states' rounding over β


@pytest.mark.parametrize(("alpha", "transpose"), [(0.5, False), (0.25, True), (1.0, True)])
@pytest.mark.parametrize("activation", ["relu", "hard-tanh"])
@pytest.mark.parametrize("kind", NETS)
def test_fact_5_weight_gradients_agree_where_no_nudge_crosses_a_kink(kind, activation, alpha, transpose):
    """And no winner changes: symmetric or transposed nudges then leave the mean at the activity."""
    net, (x, y) = NETS[kind](activation), image_batch(5, BATCHES[kind])
    rule = dp.DualProp(net, loss="cross_entropy", alpha=alpha, beta=1e-4, transpose=transpose)
    _, by_parameter = converted(net, activation, alpha, 1e-4, x, y)
    for (name, g), theirs in zip(gradient_of(rule, x, y).items(), by_parameter, strict=True):
        torch.testing.assert_close(g, theirs, rtol=1e-8, atol=1e-9 * float(theirs.abs().max()), msg=name)


@pytest.mark.parametrize("kind", NETS)
def test_fact_5_weight_gradients_differ_where_a_nudge_crosses_a_kink(kind):
    """The state engine multiplies by the nudged mean: above the first layer, for large nudges."""
    net, (x, y) = NETS[kind]("relu"), image_batch(5, BATCHES[kind])
    ours = gradient_of(dp.DualProp(net, loss="cross_entropy", beta=3.0), x, y)
    _, by_parameter = converted(net, "relu", 0.5, 3.0, x, y)
    for (name, g), theirs in zip(ours.items(), by_parameter, strict=True):
        same = torch.allclose(g, theirs, rtol=1e-6, atol=1e-9)
        assert same is (name.endswith("bias") or name.startswith("layers.0")), name
