"""`conversion`: what forward passes met, what they left ordinary, what no forward pass has met."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp
from tests.oracles.finite_difference import FUNCTIONS, difference


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s + x * s * (1 - s))


TABLE = {"tanh": torch.tanh, "relu": F.relu}


class Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


CONVERTED = {
    "expit": (torch.special.expit, "Sigmoid", "sigmoid"),
    "clamp": (lambda x: x.clamp(min=0), "ReLU", "relu"),
    "clamp by position": (lambda x: torch.clamp(x, 0), "ReLU", "relu"),
    "clamp in place": (lambda x: (1.0 * x).clamp_(min=0), "ReLU", "relu"),
    "clamp_min": (lambda x: torch.clamp_min(x, 0.0), "ReLU", "relu"),
    "clip": (lambda x: x.clip(-1, 1), "Hardtanh", "hardtanh"),
    "maximum": (lambda x: torch.maximum(x, torch.tensor(0.0)), "ReLU", "relu"),
    "maximum of zeros": (lambda x: torch.maximum(torch.zeros_like(x), x), "ReLU", "relu"),
    "max": (lambda x: x.max(x.new_zeros(())), "ReLU", "relu"),
    "table": (lambda x: TABLE["tanh"](x), "Tanh", "tanh"),
    "builtin": (torch._C._nn.silu, "SiLU", "silu"),
}


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("compiled", [False, True])
def test_activations_by_other_names(name, compiled):
    call, kind, function = CONVERTED[name]
    torch.manual_seed(0)
    x, w = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, 3, dtype=torch.float64)
    module = dp.convert(Calls(call), beta=2.0)
    run = torch.compile(module, backend="eager", fullgraph=True) if compiled else module
    (ours,) = torch.autograd.grad((w * run(x)).sum() / 4, x)
    (expected,) = torch.autograd.grad((w * difference(x, FUNCTIONS[function], 8.0)).sum() / 4, x)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert dp.conversion(module).converted == {"": kind}
    assert dp.conversion(module).left_alone == {}


def left_alone():
    @torch.jit.script
    def scripted(x):
        return torch.relu(x) * 2

    return {
        "autograd.Function": (Swish.apply, "Swish (own autograd function)"),
        "jit.script": (scripted, "ReLU (ordinary derivative)"),
        "aten": (torch.ops.aten.tanh, "Tanh (ordinary derivative)"),
        "another clamp": (lambda x: x.clamp(min=0.1), "clamp (ordinary derivative)"),
        "a maximum": (lambda x: torch.maximum(x, 2 * x), "maximum (ordinary derivative)"),
        "zeros written to": (
            lambda x: torch.maximum(x, torch.zeros_like(x).add_(1)),
            "maximum (ordinary derivative)",
        ),
    }


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:.*own autograd", "ignore:.*scripted"
)
def test_what_cannot_be_converted_is_mentioned_after_a_forward_pass():
    for call, said in left_alone().values():
        x = torch.randn(4, 3, requires_grad=True)
        module = dp.convert(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), Calls(call), nn.Linear(3, 3)))
        assert dp.conversion(module).left_alone == {}
        (ours,) = torch.autograd.grad(module[2](x).sum(), x)
        (plain,) = torch.autograd.grad(call(x).sum(), x)
        assert torch.equal(ours, plain)
        module(x)
        (name, met), *others = dp.conversion(module).left_alone.items()
        assert (name, others) == ("2", [])
        assert met.removesuffix(", a function (scripted)") == said  # as the profiler of a script has made of it
        assert dp.conversion(module).converted == {"1": "Tanh"}
        assert f"left alone: 1 {said}" in str(dp.conversion(module))


def _written_over(x):
    z = 1 * x
    z[z < 0] = 0
    return z


BY_HAND = {
    "where": (lambda x: torch.where(x > 0, x, 0.0), "where"),
    "product": (lambda x: x * (x > 0), "mul"),
    "product with a number": (lambda x: x.ge(0).to(x.dtype) * x, "mul"),
    "sign": (lambda x: (x + x.sign() * x) / 2, "mul"),
    "masked_fill": (lambda x: x.masked_fill(~(x > 0), 0), "masked_fill"),
    "written over": (_written_over, "setitem"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_activations_by_a_comparison_are_mentioned_and_warned_of_once(name):
    call, function = BY_HAND[name]
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), Calls(call), nn.Tanh()))
    x = torch.randn(4, 3)
    with pytest.warns(UserWarning, match=rf"^1: `{function} \(by a comparison, ordinary derivative\)`") as said:
        module(x).add(module(x))
    assert len(said) == 1
    assert dp.conversion(module).left_alone == {"1": f"{function} (by a comparison, ordinary derivative)"}


def test_comparisons_of_what_does_not_learn_are_no_activations():
    """Masks of attention, dropout by hand, an excluded part."""
    module = nn.Sequential(nn.Linear(3, 3), Calls(lambda x: x * (torch.rand(3) > 0.5)), nn.Tanh(), Calls(F.relu))
    module.append(Calls(lambda x: torch.where(x > 0, x, 0.0)))
    dp.convert(module, exclude="4")
    x = torch.randn(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(x)
    assert dp.conversion(module).left_alone == {"4": "excluded"}


@pytest.mark.parametrize("name", ["sin", "erf", "abs", "atan", "exp"])
def test_other_functions_of_single_numbers_are_mentioned(name):
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), Calls(getattr(torch, name)), nn.Tanh()))
    module(torch.randn(4, 3))
    assert dp.conversion(module).left_alone == {"1": f"{name} (ordinary derivative)"}


def test_an_own_autograd_function_is_warned_of_once():
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Calls(Swish.apply)))
    with pytest.warns(UserWarning, match=r"^2: `Swish \(own autograd function\)` keeps its ordinary derivative"):
        module(torch.randn(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(torch.randn(2, 3))


def test_what_excluded_modules_do_is_not_mentioned():
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Calls(torch.ops.aten.tanh)), exclude="2")
    module(torch.randn(2, 3))
    assert dp.conversion(module).left_alone == {"2": "excluded"}


class Encoder(nn.Module):
    """A method of its own beside forward, whose activation is a function."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(6, 5), nn.Tanh())

    def encode(self, x):
        return F.gelu(self.layer(x))

    def forward(self, x):
        return torch.sigmoid(self.layer(x))


OUTSIDE = "GELU (method encode, ordinary outside of a forward pass)"


def test_a_method_that_forward_does_not_call_is_not_converted_and_said_so():
    """Its modules are; the functions of its own code are ordinary, before and after a forward pass."""
    torch.manual_seed(0)
    module = dp.convert(Encoder().double(), beta=3.0)
    assert dp.conversion(module).converted == {"": "Sigmoid", "layer.1": "Tanh"}  # as the code names them
    assert dp.conversion(module).left_alone == {"": OUTSIDE}
    x = torch.randn(4, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad(module.encode(x).mean(0).sum(), module.layer[0].weight)
    by_hand = difference(F.linear(x, module.layer[0].weight, module.layer[0].bias), FUNCTIONS["tanh"], 3.0 * 4)
    (expected,) = torch.autograd.grad(F.gelu(by_hand).mean(0).sum(), module.layer[0].weight)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-14)
    module(x)
    assert str(dp.conversion(module)) == f"converted: 1 Sigmoid, 1 Tanh; left alone: 1 {OUTSIDE}"


class Branching(Encoder):
    """Forward calls the method where it is asked to."""

    def forward(self, x, deep=False):
        return self.encode(x) if deep else super().forward(x)


def test_what_no_forward_pass_met_is_said():
    module = dp.convert(Branching())
    assert dp.conversion(module).converted == {"": "GELU, Sigmoid", "layer.1": "Tanh"}  # as the code names them
    module(torch.randn(3, 6))
    assert dp.conversion(module).converted == {"": "Sigmoid", "layer.1": "Tanh"}
    assert dp.conversion(module).not_met == {"": "GELU"}
    assert str(dp.conversion(module)) == "converted: 1 Sigmoid, 1 Tanh; not met: 1 GELU; left alone: nothing"
    module(torch.randn(3, 6), deep=True)
    assert dp.conversion(module).converted == {"": "GELU, Sigmoid", "layer.1": "Tanh"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated")
def test_torch_script_says_what_to_script():
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    with pytest.raises(RuntimeError, match=r"give it dualprop.unconvert\(copy.deepcopy\(model\)\)"):
        torch.jit.script(module)
    x = torch.randn(2, 3)
    assert torch.equal(torch.jit.script(dp.unconvert(copy.deepcopy(module)))(x), module(x))


def test_a_model_without_any_activation_met_is_warned_of():
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), Calls(torch.ops.aten.tanh)))
    with pytest.warns(UserWarning, match="^Sequential: its forward pass met no activation to convert"):
        module(torch.randn(2, 3))


def test_forward_passes_without_gradient_count_for_nothing():
    module = dp.convert(nn.Sequential(nn.Linear(3, 3), nn.Tanh()))
    with torch.no_grad():
        module(torch.randn(2, 3))
    assert dp.conversion(module).met == {}
