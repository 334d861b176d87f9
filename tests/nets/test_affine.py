"""Any affine module as a synapse: its adjoint, its gradients, its twin, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dualprop as dp
from tests.oracles.builders import autograd_gradient, gradient_of, image_batch, relative_error
from tests.oracles.refused import refused


class TwoWeights(nn.Module):
    """z V^T W^T + b: affine in z, with two weights, and one parameter that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5, bias=False), nn.Linear(5, 3)
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, z):
        return self.second(self.first(z.flatten(1)))


class Gain(nn.Module):
    """A weight that nobody knows how to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2, 2))

    def forward(self, z):
        return z.flatten(1) @ self.gain


MODULES = {
    "transposed convolution": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 4, 4)),
    "depthwise convolution": (lambda: nn.Conv2d(2, 2, 3, groups=2, padding=1), (2, 5, 4)),
    "upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (2, 3, 4)),
    "two weights": (TwoWeights, (4,)),
    "a chain": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4)), (2, 3, 3)),
    "batch norm in evaluation": (lambda: nn.BatchNorm2d(2).eval(), (2, 3, 3)),
}
POOLS = [None, dp.MaxPool2d(2), dp.AvgPool2d(2, stride=1)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_drive_adjoint_and_gradients_are_those_of_autograd(name):
    make, shape = MODULES[name]
    module = make().double()
    synapse, z = dp.Affine(module), normal(3, *shape)
    out = synapse.out_shape(shape)
    with torch.no_grad():
        assert module(z).shape == (3, *out)
        assert torch.equal(synapse(z), module(z))
    delta, v, w = normal(3, *out, seed=1), normal(3, *shape, seed=2), z.clone().requires_grad_()
    parameters = dict(module.named_parameters())
    truth = torch.autograd.grad((delta * module(w)).sum(), [w, *parameters.values()], allow_unused=True)
    with torch.no_grad():
        back = synapse.adjoint(delta, z)
        linear = synapse(v) - synapse(torch.zeros_like(v))
        torch.testing.assert_close((delta * linear).sum(), (back * v).sum())
        torch.testing.assert_close(back, truth[0])
        for times in (1, 2):
            synapse.add_grad(delta, z)
            for parameter, expected in zip(parameters.values(), truth[1:], strict=True):
                if expected is None:
                    assert parameter.grad is None
                else:
                    torch.testing.assert_close(parameter.grad, times * expected)
    assert back.grad_fn is None


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_behind_a_pool_it_does_as_the_library_s_own_convolution(pool):
    own = dp.Conv2d(2, 3, 2, stride=2, padding=1, pool=pool).double()
    module = nn.Conv2d(2, 3, 2, stride=2, padding=1).double()
    with torch.no_grad():
        module.weight.copy_(own.weight)
        module.bias.copy_(own.bias.normal_())
    synapse, z = dp.Affine(module, pool=pool), normal(3, 2, 5, 6)
    assert synapse.out_shape((2, 5, 6)) == own.out_shape((2, 5, 6))
    delta = normal(3, *own.out_shape((2, 5, 6)), seed=1)
    with torch.no_grad():
        torch.testing.assert_close(synapse(z), own(z))
        torch.testing.assert_close(synapse.adjoint(delta, z), own.adjoint(delta, z))
        own.add_grad(delta, z)
        synapse.add_grad(delta, z)
    torch.testing.assert_close(module.weight.grad, own.weight.grad)
    torch.testing.assert_close(module.bias.grad, own.bias.grad)


@pytest.mark.parametrize("name", ["transposed convolution", "two weights", "a chain"])
def test_a_twin_carries_the_feedback_and_gets_the_gradients(name):
    make, shape = MODULES[name]
    module = make().double()
    if name == "two weights":
        module.register_parameter("unused", None)  # a twin is of modules that can draw all they have
    synapse = dp.Affine(module, feedback="kolen-pollack").double()
    pairs = synapse.feedback_pairs()
    assert len(pairs) == sum(p.ndim > 1 for p in module.parameters()) > 0
    assert all(w.shape == b.shape and not torch.equal(w, b) for w, b in pairs)
    assert len(list(synapse.feedback.parameters())) == len(pairs)  # no biases
    z, delta = normal(3, *shape), normal(3, *synapse.out_shape(shape), seed=1)
    with torch.no_grad():
        synapse.add_grad(delta, z)
        for w, b in pairs:
            assert float(w.grad.abs().max()) > 0
            assert torch.equal(w.grad, b.grad)
            assert w.grad.data_ptr() != b.grad.data_ptr()
        back = synapse.adjoint(delta, z)
        for w, b in pairs:
            w.copy_(b)
        torch.testing.assert_close(back, dp.Affine(module).adjoint(delta, z))


def test_only_what_is_not_frozen_gets_a_gradient():
    module = nn.ConvTranspose2d(2, 3, 3)
    synapse = dp.Affine(module, feedback="kolen-pollack")
    module.weight.requires_grad_(False)
    delta = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        synapse.add_grad(delta, torch.randn(2, 2, 4, 4))
    assert module.weight.grad is None
    torch.testing.assert_close(module.bias.grad, delta.sum((0, 2, 3)))
    module.bias.requires_grad_(False)
    synapse.zero_grad()
    with torch.no_grad():
        synapse.add_grad(delta, torch.randn(2, 2, 4, 4))
    assert all(p.grad is None for p in synapse.parameters())


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
def test_a_net_of_affine_modules_learns_as_backprop_for_small_nudges(feedback):
    generator = torch.Generator().manual_seed(0)
    net = dp.Net(
        [
            dp.Layer(dp.Affine(nn.Conv2d(2, 3, 3, padding=1)), "tanh"),
            dp.Layer(dp.Affine(nn.ConvTranspose2d(3, 2, 2, stride=2), pool=dp.AvgPool2d(2)), "tanh"),
            dp.Layer(dp.Affine(nn.Upsample(scale_factor=2, mode="bilinear")), "tanh"),
            dp.Layer(dp.Affine(nn.Sequential(nn.Flatten(), nn.Linear(288, 3)), feedback=feedback), "linear"),
        ]
    ).double()
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.3, 0.3, generator=generator)
        for w, b in net.chain[-1].synapse.feedback_pairs():
            b.copy_(w)
    assert net.feedback == feedback
    x, y = image_batch(3)
    parameters = {n: p for n, p in net.named_parameters() if ".feedback." not in n}
    ours = gradient_of(dp.DualProp(net, beta=1e-5), x, y)
    output = net(x)
    loss = 0.5 * (output - torch.eye(3, dtype=torch.float64)[y]).square().sum() / 3
    truth = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    assert relative_error({n: ours[n] for n in truth}, truth) < 1e-8
    if feedback == "symmetric":
        assert relative_error(ours, autograd_gradient(net, "mse", x, y)) < 1e-8


NOT_AFFINE = {
    "ReLU": (nn.ReLU(), (2, 3, 3)),
    "BatchNorm2d": (nn.BatchNorm2d(2), (2, 3, 3)),
    "Dropout": (nn.Dropout(0.5), (2, 3, 3)),
    "Softmax": (nn.Softmax(1), (6,)),
    "LayerNorm": (nn.LayerNorm(6), (6,)),
    "MaxPool2d": (nn.MaxPool2d(2), (2, 4, 4)),
    "Sequential": (nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(0.5)), (6,)),
}


@pytest.mark.parametrize("name", NOT_AFFINE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_affine_is_refused_by_name_before_anything_is_learned(name, dtype):
    module, shape = NOT_AFFINE[name]
    size = module.to(dtype)(torch.zeros(2, *shape, dtype=dtype))[0].numel()
    net = dp.Net([dp.Layer(dp.Affine(module), "relu"), dp.Layer(dp.Dense(size, 3).to(dtype), "linear")])
    with refused(f"^module: {name} is not affine"):
        dp.DualProp(net).backward(torch.randn(2, *shape, dtype=dtype), torch.tensor([0, 1]))
    assert all(p.grad is None for p in net.parameters())


def test_the_rounding_of_low_precision_products_is_no_curvature():
    with torch.autocast("cpu", torch.bfloat16):
        assert dp.Affine(nn.Conv2d(3, 8, 4, stride=4)).out_shape((3, 32, 32)) == (8, 8, 8)


def test_dropout_and_batch_norm_in_evaluation_are_affine():
    for module in (nn.Dropout(0.5).eval(), nn.BatchNorm2d(2).eval()):
        assert dp.Affine(module).out_shape((2, 3, 3)) == (2, 3, 3)


def test_other_bad_modules_in_one_line():
    for make, match in (
        (lambda: dp.Affine(torch.relu), r"^module"),
        (lambda: dp.Affine(nn.Linear(4, 3), pool=nn.MaxPool2d(2)), r"^pool"),
        (lambda: dp.Affine(nn.Linear(4, 3)).out_shape((5,)), r"^module: Linear does not take \(5,\)"),
        (lambda: dp.Affine(nn.Conv2d(2, 3, 3)).out_shape((2, 2, 2)), r"^module: Conv2d does not take"),
        (lambda: dp.Affine(Gain(), feedback="kolen-pollack"), r"^module: Gain has no reset_parameters"),
        (lambda: dp.Affine(nn.Linear(4, 3), feedback="bogus"), "unknown feedback 'bogus'"),
    ):
        with refused(match):
            make()
