"""Every activation, however it is called, sends the finite difference of the definition back."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp
from dualprop.convert.activations import CALLS as KNOWN
from dualprop.convert.activations import UNKNOWN, Activation
from dualprop.nets.kernels.activations import ACTIVATIONS

A = {
    "relu": lambda a: a.clamp(min=0),
    "leaky": lambda a: torch.where(a > 0, a, 0.2 * a),
    "relu6": lambda a: a.clamp(0, 6),
    "hardtanh": lambda a: a.clamp(-0.5, 2),
    "hardsigmoid": lambda a: (a / 6 + 0.5).clamp(0, 1),
    "hardswish": lambda a: a * (a / 6 + 0.5).clamp(0, 1),
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "tanh": lambda a: (torch.exp(a) - torch.exp(-a)) / (torch.exp(a) + torch.exp(-a)),
    "silu": lambda a: a / (1 + torch.exp(-a)),
    "gelu": lambda a: 0.5 * a * (1 + torch.erf(a / 2**0.5)),
    "elu": lambda a: torch.where(a > 0, a, 1.5 * (torch.exp(a) - 1)),
    "softplus": lambda a: torch.log(1 + torch.exp(2 * a)) / 2,
}

CALLS = {
    "relu": [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        F.relu,
        torch.relu,
        torch.relu_,
        lambda a: a.relu(),
        lambda a: a.relu_(),
        lambda a: F.relu(a, True),
        lambda a: F.relu(input=a, inplace=True),
    ],
    "leaky": [nn.LeakyReLU(0.2), lambda a: F.leaky_relu(a, 0.2, True), lambda a: F.leaky_relu_(a, 0.2)],
    "relu6": [nn.ReLU6(), F.relu6],
    "hardtanh": [nn.Hardtanh(-0.5, 2), nn.Hardtanh(-0.5, 2, inplace=True), lambda a: F.hardtanh(a, -0.5, 2)],
    "hardsigmoid": [nn.Hardsigmoid(), F.hardsigmoid],
    "hardswish": [nn.Hardswish(), F.hardswish],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, F.sigmoid, lambda a: a.sigmoid(), lambda a: a.sigmoid_()],
    "tanh": [nn.Tanh(), torch.tanh, F.tanh, lambda a: a.tanh(), lambda a: a.tanh_()],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True), F.silu],
    "gelu": [nn.GELU(), F.gelu, lambda a: F.gelu(a, approximate="none")],
    "elu": [nn.ELU(1.5), lambda a: F.elu(a, 1.5, True), lambda a: F.elu(input=a, alpha=1.5)],
    "softplus": [nn.Softplus(2), lambda a: F.softplus(a, 2), lambda a: F.softplus(a, beta=2)],
}


class Around(nn.Module):
    """A function as a module that anybody might write; the input is copied so that it may be overwritten."""

    def __init__(self, call):
        super().__init__()
        self.call, self.probe = call, nn.Tanh()

    def forward(self, a):
        return self.call(a.clone())


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_what_goes_back_is_the_finite_difference(name, call, alpha):
    torch.manual_seed(0)
    a, w = 2 * torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    beta, f = 0.7, A[name]
    module = dp.convert(Around(copy.deepcopy(call)), alpha=alpha, beta=beta)
    drive = a.clone().requires_grad_()
    z = module(drive)
    torch.testing.assert_close(z, f(a), rtol=1e-12, atol=1e-12)
    (w * z).sum(1).mean().backward()
    delta = -beta * w  # of each sample, whatever the batch
    expected = -(f(a + alpha * delta) - f(a - (1 - alpha) * delta)) / (beta * 6)
    torch.testing.assert_close(drive.grad, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("alpha", [0.2, 0.5])
@pytest.mark.parametrize("name", CALLS)
def test_in_bfloat16_it_is_right_to_the_last_bits(name, alpha, layout):
    """The definition in double precision, rounded once: two units in the last place of the largest g."""
    torch.manual_seed(0)
    shape, beta = (8, 16, 64, 64), 0.5  # large enough for blocks
    a, g = (torch.randn(shape).bfloat16().contiguous(memory_format=layout) for _ in range(2))
    a.requires_grad_()
    module = dp.convert(Around(copy.deepcopy(CALLS[name][0])), alpha=alpha, beta=beta)
    module(a).backward(g)
    with torch.no_grad():
        up, down = a.double() + (1 - alpha) * beta * 8 * g.double(), a.double() - alpha * beta * 8 * g.double()
        error = (a.grad.double() - (A[name](up) - A[name](down)) / (beta * 8)).abs()
    assert a.grad.dtype == torch.bfloat16
    assert a.grad.is_contiguous(memory_format=layout)
    assert bool((error <= 2 * 2**-8 * g.double().abs() + 1e-6).all())


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_a_relu_is_exact_for_the_smallest_nudges(alpha):
    """Where no nudge reaches the kink, what goes back is g or zero to the last bit."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        a, g = torch.randn(4, 100).to(dtype).requires_grad_(), torch.randn(4, 100).to(dtype)
        dp.convert(Around(F.relu), alpha=alpha, beta=1e-7)(a).backward(g)
        assert bool((a.abs() > 1e-5).all())
        assert torch.equal(a.grad, torch.where(a > 0, g, 0.0))


def test_in_place_calls_overwrite_their_input():
    class Reuses(nn.Module):
        def forward(self, x):
            a = 2 * x
            a.relu_()
            b = 3 * x
            F.relu(b, inplace=True)
            return a + b

    x = torch.tensor([[-1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    module = dp.convert(Reuses(), beta=1e-3)
    z = module(x)
    assert z.tolist() == [[0.0, 10.0]]
    z.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 5.0]], dtype=torch.float64))


def test_the_nudge_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    x, y = torch.randn(4, 6, dtype=torch.float64), torch.arange(4) % 3

    def gradient(x, y, **settings):
        converted = dp.convert(copy.deepcopy(net), beta=2.0, **settings)
        F.cross_entropy(converted(x), y, reduction=settings.get("reduction", "mean")).backward()
        return [p.grad for p in converted.parameters()]

    once = gradient(x, y)
    for twice in (gradient(x.repeat(2, 1), y.repeat(2)), [g / 4 for g in gradient(x, y, reduction="sum")]):
        for ours, theirs in zip(once, twice, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_table_knows_pytorch_s_modules_and_functions(name):
    """Every function that it finds for a module computes what the module does, at its defaults."""
    known, kind = ACTIVATIONS[name], getattr(nn, name)
    read = {f: call for f, call in KNOWN.items() if isinstance(call, Activation) and call.name == name}
    assert bool(read) is (name not in UNKNOWN.values()) is (known.f is not None)
    if known.f is None:
        return
    a = 2 * torch.randn(6, 5)
    assert torch.equal(known.f(a, *known.settings.values()), kind()(a))
    for function, call in read.items():
        given = a.clone()
        assert torch.equal(function(given), kind()(a))
        assert torch.equal(given, kind()(a) if call.in_place else a)
