"""`convert`: what it changes, what it leaves, what it works with, what it refuses."""

import copy
import io
import logging

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dualprop as dp
from tests.oracles.builders import double_batch, double_net
from tests.slow import but_slow


def gradients(module, x, y):
    module.zero_grad()
    F.cross_entropy(module(x), y).backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def cosine(ours, theirs):
    a, b = (torch.cat([g.flatten() for g in side]).double() for side in (ours, theirs))
    return float(a @ b / (a.norm() * b.norm()))


def sequential(net):
    """The same net as anybody would write it."""
    names = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
    modules = []
    for k, layer in enumerate(net.chain):
        linear = nn.Linear(layer.synapse.in_features, layer.synapse.out_features).double()
        linear.load_state_dict({"weight": layer.synapse.weight, "bias": layer.synapse.bias})
        modules.append(linear)
        if k < len(net) - 1:
            kind = next(name for name, potential in dp.POTENTIALS.items() if potential == layer.potential)
            modules.append(names[kind]())
    return nn.Sequential(*modules)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_both_engines_send_the_same_differences(activation, alpha):
    """MATHS fact 5: a bias's gradient is the layer's difference, whichever engine makes it."""
    net = double_net((6, 9, 8, 7, 4), activation)
    x, y = double_batch(5, 6, 4)
    module = dp.convert(sequential(net), alpha=alpha, beta=1.0)
    F.cross_entropy(module(x), y).backward()
    dp.DualProp(net, loss="cross_entropy", alpha=alpha, beta=1.0).backward(x, y)
    for layer, linear in zip(net.chain, module[::2], strict=True):
        torch.testing.assert_close(layer.synapse.bias.grad, linear.bias.grad, rtol=1e-9, atol=1e-13)


def test_both_engines_agree_where_no_nudge_crosses_a_kink():
    net = double_net((6, 9, 8, 7, 4), "relu")
    x, y = double_batch(5, 6, 4)
    module = dp.convert(sequential(net), beta=1e-6)
    F.cross_entropy(module(x), y).backward()
    dp.DualProp(net, loss="cross_entropy", beta=1e-6).backward(x, y)
    for p, q in zip(net.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-9)


def test_the_error_is_of_second_order_at_one_half_and_first_elsewhere():
    net = sequential(double_net((6, 9, 8, 4), "tanh"))
    x, y = double_batch(5, 6, 4)
    true = gradients(net, x, y)
    for alpha, slope in ((0.5, 2), (1.0, 1), (0.0, 1)):
        errors = []
        for beta in (0.1, 0.01):
            ours = gradients(dp.convert(copy.deepcopy(net), alpha=alpha, beta=beta), x, y)
            errors.append(sum(float((a - b).square().sum()) for a, b in zip(ours, true, strict=True)) ** 0.5)
        assert torch.log10(torch.tensor(errors[0] / errors[1])) == pytest.approx(slope, abs=0.05)


class Written(nn.Module):
    """Functions and methods, a block that is checkpointed, and something to exclude."""

    def __init__(self):
        super().__init__()
        self.first, self.block, self.last = (
            nn.Linear(6, 9),
            nn.Sequential(nn.Linear(9, 9), nn.GELU()),
            nn.Linear(9, 3),
        )
        self.gate = nn.Sequential(nn.Linear(9, 9), nn.Sigmoid())
        self.checkpointed = False

    def forward(self, x):
        x = F.relu(self.first(x))
        block = checkpoint(self.block, x, use_reentrant=False) if self.checkpointed else self.block(x)
        return self.last((block * self.gate(x)).tanh())


@pytest.fixture
def written():
    torch.manual_seed(0)
    return Written(), torch.randn(5, 6), torch.arange(5) % 3


def reloaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


OTHERS = {
    "copy": copy.deepcopy,
    "pickle": reloaded,
    "compiled": lambda module: torch.compile(copy.deepcopy(module), fullgraph=True),
}


@pytest.mark.parametrize("name", but_slow(OTHERS, "compiled"))
def test_copies_pickles_and_compiled_modules_do_the_same(name, written):
    module, x, y = written
    ordinary = gradients(module, x, y)
    module = dp.convert(module, beta=3.0)
    expected = gradients(module, x, y)
    assert cosine(expected, ordinary) < 0.9999
    other = OTHERS[name](module)
    for ours, theirs in zip(gradients(other, x, y), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert dp.conversion(getattr(other, "_orig_mod", other)) is not dp.conversion(module)


def test_checkpointing_changes_nothing(written):
    module, x, y = written
    module = dp.convert(module, beta=3.0)
    expected = gradients(module, x, y)
    module.checkpointed = True
    for ours, theirs in zip(gradients(module, x, y), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_autocast(written):
    module, x, y = written
    module = dp.convert(module)
    expected = gradients(module, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(module, x, y)
    assert all(g.dtype == torch.float32 for g in ours)
    assert cosine(ours, expected) > 0.999


def test_excluded_modules_keep_their_derivative(written):
    module, x, y = written
    everything = gradients(dp.convert(copy.deepcopy(module), beta=5.0), x, y)
    without = dp.convert(copy.deepcopy(module), beta=5.0, exclude=["gate"])
    assert not all(map(torch.equal, gradients(without, x, y), everything))
    assert dp.conversion(without).left_alone == {"gate": "excluded"}
    a = torch.randn(4, 9, requires_grad=True)
    (ours,) = torch.autograd.grad(without.gate(a).sum(), a)
    (ordinary,) = torch.autograd.grad(module.gate(a).sum(), a)
    assert torch.equal(ours, ordinary)


def test_the_report(written, caplog):
    with caplog.at_level(logging.INFO, "dualprop"):
        module = dp.convert(written[0])
    assert dp.conversion(module).converted == {"": "ReLU, Tanh", "block.1": "GELU", "gate.1": "Sigmoid"}
    assert str(dp.conversion(module)) in caplog.text
    model = dp.convert(torchvision.models.resnet18())
    units = sum(isinstance(m, nn.ReLU) for m in model.modules())
    assert f"{units} ReLU" in str(dp.conversion(model))
    assert "20 BatchNorm2d (ordinary derivative)" in str(dp.conversion(model))


@pytest.mark.parametrize("activation", ["relu", "leaky-relu", "hard-tanh", "hard-sigmoid", "sigmoid", "tanh"])
def test_a_net_of_this_library_is_converted_like_any_module(activation):
    net = dp.nets.mlp([5, 7, 6, 3], activation, generator=torch.Generator().manual_seed(0)).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    states = dp.DualProp(net, loss="cross_entropy", beta=1e-5).gradients(x, y)
    converted = dp.convert(net, beta=1e-5)
    assert len(dp.conversion(converted).converted) == 2
    torch.nn.functional.cross_entropy(converted(x), y).backward()
    for name, p in converted.named_parameters():
        torch.testing.assert_close(p.grad, states[name], rtol=1e-5, atol=1e-9)
