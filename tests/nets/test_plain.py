"""`net.plain()`: PyTorch's own modules, the same outputs, the same gradients, the same parameters."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import dualprop as dp
from tests.oracles.builders import double_net, image_batch, image_net, small_conv_net
from tests.slow import but_slow

SMALL = {
    "mlp": {"hidden": (9, 8)},
    "vgg_like": {},
    "hopfield_cnn": {"channels": (4, 5), "padding": (1, 0)},
}
POOLS = [dp.MaxPool2d(2), dp.MaxPool2d(3, 2), dp.AvgPool2d(2), dp.AvgPool2d(2, 1), dp.SoftmaxPool2d(2)]


def same(net: dp.Net, x: Tensor) -> nn.Module:
    """Outputs and autograd's gradients of both are the same, to the bit; to rounding, where others make them."""
    plain = net.plain()
    parameters = [p for name, p in net.named_parameters() if not name.endswith("feedback")]
    assert {id(p) for p in plain.parameters()} == {id(p) for p in parameters}
    outputs, gradients = [], []
    for model in (net, plain):
        outputs.append(model(x))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), parameters))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), rtol=1e-4, atol=1e-5)
    return plain


@pytest.mark.parametrize("name", but_slow([n for n in dp.NETS if n != "hopfield_mlp"], "vgg11", "vgg16"))
def test_every_net(name):
    feedback = "symmetric" if name in ("resnet8", "vit_tiny") else "kolen-pollack"
    net = dp.NETS[name]((3, 32, 32), 10, feedback=feedback, **SMALL.get(name, {}))
    plain = same(net, torch.randn(2, 3, 32, 32))
    assert not any(isinstance(m, dp.Synapse | dp.Layer) for m in plain.modules())


def test_several_inputs_and_outputs():
    g = dp.Graph()
    x, u = g.input("x"), g.input("u")
    h = g.layer("h", {x: dp.Dense(5, 4), u: dp.Dense(3, 4, bias=False)}, "tanh")
    y = g.layer("y", {h: dp.Dense(4, 2)}, "linear")
    z = g.layer("z", {h: dp.Identity(), y: dp.Dense(2, 4)}, "relu")
    net, inputs = g.net(outputs=[y, z]).double(), (torch.randn(6, 5).double(), torch.randn(6, 3).double())
    torch.testing.assert_close(net.plain()(*inputs), net(inputs), rtol=0, atol=0)


def test_what_settles_has_no_plain_modules():
    with pytest.raises(dp.DualpropError, match=r"^net: has cycles") as caught:
        dp.NETS["hopfield_mlp"]((8,), 3, hidden=(4,)).plain()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("output", [False, True], ids=["hidden", "output"])
@pytest.mark.parametrize("name", list(dp.POTENTIALS))
def test_every_potential(name, output):
    net = double_net((5, 4, 4, 3), name)
    if output:
        net.chain[-1].potential = dp.POTENTIALS[name]
    same(net, torch.randn(6, 5, dtype=torch.float64))
    a = 2 * torch.randn(6, 5, dtype=torch.float64)
    assert torch.equal(dp.POTENTIALS[name].module()(a), dp.POTENTIALS[name](a))


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_every_pool_in_front_and_behind(pool):
    synapses = [
        dp.Pooled(dp.Conv2d(2, 3, 3, padding=1, stride=2, bias=False), pool),
        dp.Conv2d(3, 6, 1, pool=dp.AvgPool2d(1), groups=3),
        dp.Pooled(dp.Affine(nn.ConvTranspose2d(6, 2, 3)), pool),
        dp.Dense(2 * pool.out_shape((2, *[pool.out_shape((3, 6, 6))[1] + 2] * 2))[1] ** 2, 4),
        dp.Dense(4, 3, bias=False),
    ]
    plain = same(image_net(synapses), image_batch(4, (2, 12, 12))[0])
    assert sum(isinstance(m, nn.Flatten) for m in plain) == 1


def test_a_pool_in_front_of_a_dense_layer():
    same(small_conv_net(), image_batch(4)[0])


def test_weights_are_shared_not_copied():
    net = double_net((4, 4, 4, 3))
    net.chain[1].synapse.weight = net.chain[0].synapse.weight
    plain, x = net.plain(), torch.randn(6, 4, dtype=torch.float64)
    assert plain[1].weight is plain[3].weight is net.chain[0].synapse.weight
    before = net(x)
    plain(x).sum().backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    assert not torch.equal(net(x), before)
    assert torch.equal(net(x), plain(x))


class Doubled(dp.Dense):
    def affine(self, p):
        return 2 * super().affine(p)

    plain = dp.Synapse.plain


def test_a_parametrized_synapse_and_one_of_one_s_own_stand_for_themselves():
    net = double_net((4, 5, 3))
    parametrizations.orthogonal(net.chain[0].synapse)
    net.chain[1].synapse = Doubled(5, 3).double()
    plain = same(net, torch.randn(6, 4, dtype=torch.float64))
    assert plain[0] is net.chain[0].synapse
    assert plain[-1] is net.chain[1].synapse


def test_converted_it_is_dual_propagation():
    """ReLU's differences are those of the rule at α = ½ and one sample a batch."""
    net, x, y = double_net((5, 6, 4, 3), "relu"), torch.randn(1, 5).double(), torch.tensor([2])
    dp.DualProp(net, loss="cross_entropy", beta=0.3).backward(x, y)
    ours = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    model = dp.convert(net.plain(), beta=0.3)
    nn.functional.cross_entropy(model(x), y).backward()
    torch.testing.assert_close([p.grad for p in net.parameters()], ours, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="ONNX is not installed"
)
@pytest.mark.parametrize("make", [small_conv_net, lambda: double_net((72, 7, 3), "shifted-sigmoid")])
def test_onnx(tmp_path, make):
    import onnxruntime

    plain, x = make().float().plain(), image_batch(4)[0].float()
    torch.onnx.export(plain, (x,), tmp_path / "net.onnx", dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), plain(x).detach(), rtol=1e-4, atol=1e-5)
