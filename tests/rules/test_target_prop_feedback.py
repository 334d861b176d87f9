"""The gradients and losses of feedback maps against autograd on the published losses; their noise."""

from __future__ import annotations

import pytest
import torch

import dualprop as dp
from dualprop.engines.feedback_maps import FEEDBACK_LOSSES, Block, FeedbackMap
from dualprop.nets.devices import Draws
from dualprop.nets.synapses import Pooled
from tests.oracles.builders import image_batch, image_net
from tests.oracles.dtp_twin import LOSSES, TwinBlock, operand

SYNAPSES = {
    "dense": (lambda: dp.Dense(7, 4), (7,)),
    "dense on a max-pooled image": (lambda: dp.Dense(8, 4, pool=dp.MaxPool2d(2)), (2, 4, 4)),
    "convolution": (lambda: dp.Conv2d(2, 3, 3, padding=1), (2, 5, 5)),
    "stride 2, a row left over": (lambda: dp.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 6)),
    "groups and dilation": (lambda: dp.Conv2d(4, 6, 2, dilation=2, groups=2), (4, 5, 5)),
    "max-pool in front": (lambda: dp.Conv2d(2, 3, 3, padding=1, pool=dp.MaxPool2d(2)), (2, 6, 6)),
    "without bias": (lambda: dp.Conv2d(2, 3, 3, bias=False), (2, 5, 5)),
    "max-pool behind": (lambda: Pooled(dp.Conv2d(2, 3, 3, padding=1), dp.MaxPool2d(2)), (2, 5, 5)),
    "average-pool behind": (lambda: Pooled(dp.Conv2d(2, 3, 3), dp.AvgPool2d(2)), (2, 6, 6)),
}


class Given(Draws):
    """Hands out prepared tensors in place of noise."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self.tensors = list(tensors)

    def like(self, z, dtype):
        noise = self.tensors.pop(0)
        assert noise.shape == z.shape
        return noise.to(dtype, copy=True)


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear", "elu", "softmax"])
@pytest.mark.parametrize("synapse", SYNAPSES)
@pytest.mark.parametrize("feedback", FEEDBACK_LOSSES)
def test_gradient_and_loss_are_those_of_the_published_loss(feedback, synapse, activation):
    make, shape = SYNAPSES[synapse]
    layer, loss, generator = dp.Layer(make(), activation).double(), FEEDBACK_LOSSES[feedback], torch.Generator()
    g = FeedbackMap(layer, generator.manual_seed(0), biased=loss.biased).double()
    below = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for p in (*layer.parameters(), *g.parameters()):
            p.normal_(0, 0.4, generator=generator)
        block = Block.of(layer, below, torch.float64)
    dx, dy = (0.3 * torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in (block.p, block.z))
    twin = TwinBlock(layer, g.weight, g.bias)
    value = LOSSES[feedback](twin, operand(layer, below), dx, dy)
    expected = torch.autograd.grad(value, list(g.parameters()))
    with torch.no_grad():
        ours = loss.gradient(g, block, Given(dx, dy))()
    assert len(expected) == (2 if loss.biased else 1)
    for p, gradient in zip(g.parameters(), expected, strict=True):
        assert float(gradient.norm()) > 1e-3
        torch.testing.assert_close(p.grad, gradient, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours, value.detach(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("feedback", FEEDBACK_LOSSES)
def test_a_gradient_leaves_state_and_operand_alone(feedback):
    """Noise is added in memory of its own, for every activation, that which is none included."""
    for activation in ("linear", "relu", "tanh"):
        layer = dp.Layer(dp.Dense(4, 3), activation)
        g = FeedbackMap(layer, torch.Generator(), biased=FEEDBACK_LOSSES[feedback].biased)
        with torch.no_grad():
            block = Block.of(layer, torch.randn(5, 4), torch.float32)
            kept = [t.detach().clone() for t in (block.p, block.a, block.z, block.image)]
            FEEDBACK_LOSSES[feedback].gradient(g, block, Draws(torch.Generator(), 0.1))()
            g.difference(block.state + 1, block)
        for t, before in zip((block.p, block.a, block.z, block.image), kept, strict=True):
            assert torch.equal(t, before)


def test_noise_has_its_deviation_and_the_layout_of_what_it_is_added_to():
    image = torch.zeros(8, 16, 20, 20).to(memory_format=torch.channels_last)
    for z in (image, image.contiguous(), torch.zeros(8, 6400)):
        noise = Draws(torch.Generator().manual_seed(0), 0.3, in_memory=True).like(z, torch.float32)
        assert noise.shape == z.shape
        assert noise.stride() == z.stride()
        assert float(noise.mean()) == pytest.approx(0, abs=0.005)  # of 51200 numbers
        assert float(noise.std()) == pytest.approx(0.3, rel=0.02)


def test_noise_is_the_same_in_every_precision():
    z = torch.zeros(5, 7)
    single, double = (
        Draws(torch.Generator().manual_seed(0), 0.1).like(z, t) for t in (torch.float32, torch.float64)
    )
    assert torch.equal(single.double(), double)


def test_a_step_of_a_map_is_one_of_sgd_with_momentum_in_the_order_of_the_layers():
    """Two inner steps of two maps, with the literal losses and the same noise."""
    net = dp.nets.mlp([4, 5, 6, 3], "tanh").double()
    rule = dp.DifferenceTargetProp(net, K=2, sigma=[0.1, 0.2], feedback_lr=[0.3, 0.5], feedback_momentum=0.8)
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    twins = [
        TwinBlock(layer, g.weight.detach().clone()) for layer, g in zip(net.chain[1:], rule.maps, strict=True)
    ]
    drawn = torch.Generator()
    drawn.set_state(rule.generator.get_state())
    seed = int(torch.randint(2**62, (), generator=drawn))
    noise = torch.Generator().manual_seed(seed)
    p = net.chain[0](x).detach()
    for twin, sigma, lr in zip(twins, (0.1, 0.2), (0.3, 0.5), strict=True):
        z = twin.forward(p)[0].detach()
        velocity = torch.zeros_like(twin.weight)
        for _ in range(2):
            dx, dy = (torch.empty(t.shape).normal_(0, sigma, generator=noise).double() for t in (p, z))
            weight = twin.weight.requires_grad_()
            (gradient,) = torch.autograd.grad(LOSSES["l-drl"](twin, p, dx, dy), weight)
            velocity = 0.8 * velocity + gradient
            twin.weight = (weight - lr * velocity).detach()
        p = z
    rule.backward(x, y)
    for g, twin in zip(rule.maps, twins, strict=True):
        torch.testing.assert_close(g.weight.detach(), twin.weight, rtol=1e-12, atol=1e-14)


def test_rates_that_nobody_has_chosen_fit_noise_and_places():
    """10⁻³/(σ² P): 4 x 4 and 2 x 2 places, then a dense layer."""
    synapses = [
        dp.Conv2d(2, 3, 3),
        dp.Conv2d(3, 4, 3),
        Pooled(dp.Conv2d(4, 4, 1), dp.MaxPool2d(2)),
        dp.Dense(16, 3),
    ]
    rates = [1e-3 / (0.3**2 * 16), 1e-3 / (0.2**2 * 4), 1e-3 / 0.1**2]
    weights = []
    for chosen in (None, rates):
        net = image_net(synapses)
        rule = dp.DifferenceTargetProp(net, sigma=[0.3, 0.2, 0.1], K=2, feedback_lr=chosen)
        rule.backward(*image_batch(4, (2, 8, 8)))
        weights.append([g.weight.detach() for g in rule.maps])
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda g: dp.nets.mlp([50, 400, 300], generator=g), (50,)),
        (lambda g: dp.nets.vgg([[8], [16]], [], 300, (3, 24, 24), generator=g), (3, 24, 24)),
    ],
    ids=["wide", "large maps"],
)
def test_rates_that_nobody_has_chosen_let_wide_nets_and_large_maps_learn(make, shape):
    """The loss, at first |B v|² of random maps, is less than half of that after 60 steps; none diverges."""
    losses = []
    for steps in (1, 60):
        generator = torch.Generator().manual_seed(0)
        rule = dp.DifferenceTargetProp(make(generator), K=steps)
        step = rule.backward(torch.randn(10, *shape, generator=generator), torch.zeros(10, 300))
        losses.append(step.measures["feedback_loss"])
    assert losses[1] < 0.5 * losses[0]
