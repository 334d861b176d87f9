"""What `convert` refuses and what it warns of: one line that names the module."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp


def test_an_unknown_activation_is_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.PReLU(), nn.ReLU())
    with pytest.warns(UserWarning, match=r"^1: left alone, PReLU \(not known to `convert`\)"):
        dp.convert(net)


@pytest.mark.parametrize(
    ("make", "settings", "named"),
    [
        (lambda: nn.Linear(2, 2), {}, "module: Linear has no activation"),
        (lambda: 3, {}, "module"),
        (lambda: nn.Sequential(nn.ReLU()), {"alpha": 2}, "alpha=2"),
        (lambda: nn.Sequential(nn.ReLU()), {"beta": 0}, "beta=0"),
        (lambda: nn.Sequential(nn.ReLU()), {"beta": float("inf")}, "beta=inf"),
        (lambda: nn.Sequential(nn.ReLU()), {"reduction": "men"}, "'mean'"),
        (lambda: nn.Sequential(nn.ReLU()), {"exclude": ["1"]}, "exclude: '1'"),
        (lambda: nn.Sequential(nn.ReLU()), {"exclude": ["0"]}, "module: Sequential has no activation"),
        (lambda: nn.Sequential(dp.convert(nn.Sequential(nn.ReLU()))), {}, "module: 0 is converted already"),
        (lambda: dp.convert(nn.Sequential(nn.ReLU())), {}, "module: Sequential is converted already"),
    ],
)
def test_bad_input(make, settings, named):
    module = make()
    with pytest.raises(dp.DualpropError) as caught:
        dp.convert(module, **settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_batch_is_refused():
    with pytest.raises(dp.DualpropError, match="batch of 0"):
        dp.convert(nn.Sequential(nn.ReLU()))(torch.zeros(0, 3))


def test_what_was_never_converted():
    with pytest.raises(dp.DualpropError, match="Linear is not converted"):
        dp.conversion(nn.Linear(2, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_batch_that_is_not_finite_is_refused(value):
    module, x = dp.convert(nn.Sequential(nn.Linear(6, 4), nn.ReLU())), torch.randn(5, 6)
    x[3, 2] = value
    with pytest.raises(dp.DualpropError, match=r"^x: NaN or infinite inputs$"):
        module(x)
    with torch.no_grad():
        assert module(x).shape == (5, 4)  # what is only asked for an output gives one
    torch.compile(module, fullgraph=True, backend="eager")(x)


def test_inputs_that_are_no_floats_are_not_looked_at():
    class Real(nn.Module):
        def forward(self, x):
            return torch.relu(x.real)

    assert dp.convert(Real())(torch.randn(2, 3, dtype=torch.complex64)).shape == (2, 3)
    assert dp.convert(nn.Sequential(nn.Embedding(4, 3), nn.ReLU()))(torch.arange(4)).shape == (4, 3)


@pytest.mark.parametrize(
    ("make", "bound"), [(nn.ReLU, None), (nn.Tanh, 2.0), (nn.Hardtanh, 2.0), (nn.Sigmoid, 1.0)]
)
def test_incoming_gradients_that_are_not_finite(make, bound):
    a = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    g = torch.tensor([[float("nan"), float("inf"), 1.0]], dtype=torch.float64)
    dp.convert(nn.Sequential(make()), beta=0.5)(a).backward(g)
    assert torch.isnan(a.grad[0, 0])
    assert float(a.grad[0, 1]) == (float("inf") if bound is None else bound / 0.5)  # (f(∞) - f(-∞)) / βB
    assert torch.isfinite(a.grad[0, 2])


class Strange(nn.Module):
    """Functions that `convert` does not know, in two submodules, beside one that it does."""

    class Gate(nn.Module):
        def forward(self, x):
            return F.glu(F.mish(x))

    def __init__(self):
        super().__init__()
        self.gate = self.Gate()

    def forward(self, x):
        return torch.selu(F.mish(self.gate(F.relu(x))))


@pytest.mark.parametrize("compiled", [False, True])
def test_an_unknown_function_is_warned_of_once_when_it_is_called(compiled):
    module = dp.convert(Strange())
    if compiled:
        module = torch.compile(module, fullgraph=True, backend="eager")
    x = torch.randn(3, 4, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module(x).sum().backward()
        module(x)
    end = "is not known to `convert`; it keeps its ordinary derivative"
    ours = [str(w.message) for w in caught if "convert" in str(w.message)]
    assert ours == [f"Strange, gate: `mish` {end}", f"gate: `glu` {end}", f"Strange: `selu` {end}"]


def test_what_is_excluded_is_not_warned_of():
    module = dp.convert(nn.Sequential(Strange.Gate(), nn.ReLU()), exclude="0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(torch.randn(3, 4))


@pytest.mark.parametrize(
    "call",
    [
        F.mish,
        F.selu,
        torch.selu_,
        F.celu,
        torch.celu,
        F.softsign,
        F.logsigmoid,
        F.glu,
        F.hardshrink,
        F.tanhshrink,
        F.softshrink,
        lambda x: F.threshold(x, 0.1, 0.0),
        lambda x: F.prelu(x, torch.tensor([0.1])),
        lambda x: x.prelu(torch.tensor([0.1])),
        F.rrelu,
    ],
)
def test_every_unknown_function(call):
    class Calls(nn.Module):
        def forward(self, x):
            return call(torch.tanh(x))

    module, x = dp.convert(Calls()), torch.randn(2, 4)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"` is not known to `convert`"):
        z = module(x)
    torch.manual_seed(0)
    assert torch.equal(z, call(torch.tanh(x)))


def test_a_module_that_was_warned_of_is_not_warned_of_again():
    net = nn.Sequential(nn.Linear(2, 2), nn.Mish(), nn.ReLU())
    with pytest.warns(UserWarning, match=r"^1: left alone, Mish"):
        dp.convert(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(torch.randn(3, 2))
