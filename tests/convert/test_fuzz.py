"""Random small modules against finite differences written out a second time, without any hook or mode.

`DUALPROP_EXAMPLES=2000 pytest tests/convert/test_fuzz.py` for a longer search.
"""

from __future__ import annotations

import copy
import os
import warnings

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import dualprop as dp
from tests.oracles.finite_difference import FUNCTIONS, difference

WIDTH = 4
MODULES = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}
CALLS = {
    "relu": [F.relu, torch.relu, lambda a: a.clamp(min=0), lambda a: (1 * a).relu_()],
    "tanh": [torch.tanh, lambda a: a.tanh(), F.tanh, lambda a: (1 * a).tanh_()],
    "sigmoid": [torch.sigmoid, torch.special.expit, lambda a: a.sigmoid()],
    "silu": [F.silu, lambda a: F.silu(1 * a, inplace=True)],
    "gelu": [F.gelu],
    "softplus": [F.softplus],
    "elu": [F.elu, lambda a: F.elu(1 * a, inplace=True)],
    "hardtanh": [F.hardtanh, lambda a: a.clamp(-1, 1), lambda a: torch.clip(a, min=-1, max=1)],
}


class Step(nn.Module):
    """One step of a program: it takes z and the input x, and gives the next z."""

    def run(self, z, x, act):
        """The step with act(name, a, k, samples) in place of each activation."""
        raise NotImplementedError

    def forward(self, z, x):
        return self.run(z, x, lambda name, a, k, samples: CALLS[name][k % len(CALLS[name])](a))


class Function(Step):
    def __init__(self, name, k):
        super().__init__()
        self.name, self.k = name, k

    def run(self, z, x, act):
        return act(self.name, z, self.k, True)


class Module(Step):
    """An activation that is a module."""

    def __init__(self, name):
        super().__init__()
        self.name, self.act = name, MODULES[name]()

    def run(self, z, x, act):
        return act(self.name, z, 0, True)

    def forward(self, z, x):
        return self.act(z)


class Linear(Step):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def run(self, z, x, act):
        return self.layer(z)


class Gate(Step):
    """The activation of a parameter, without samples, times z; of twice its length it is halved again."""

    def __init__(self, name, k, double):
        super().__init__()
        self.name, self.k = name, k
        self.gate = nn.Parameter(torch.randn(2 * WIDTH if double else WIDTH))

    def run(self, z, x, act):
        gate = act(self.name, 1.5 * self.gate, self.k, False)
        return z * gate.view(-1, WIDTH).sum(0)


class Table(Step):
    """A small net over a buffer."""

    def __init__(self, name, k):
        super().__init__()
        self.name, self.k, self.layer = name, k, nn.Linear(2, WIDTH)
        self.register_buffer("table", torch.randn(6, 2))

    def run(self, z, x, act):
        return z + act(self.name, self.layer(self.table), self.k, False).mean(0)


class Residual(Step):
    """Steps inside a step, beside a way around; perhaps computed again in the backward pass."""

    def __init__(self, steps, again):
        super().__init__()
        self.steps, self.again = nn.ModuleList(steps), again

    def run(self, z, x, act):
        inner = z
        for step in self.steps:
            inner = step.run(inner, x, act)
        return z + inner

    def body(self, z, x):
        """Functions without the hooks of their steps, which a checkpoint computes again as such."""
        for step in self.steps:
            z = step.forward(z, x) if isinstance(step, Function | Gate) else step(z, x)
        return z

    def forward(self, z, x):
        return z + (checkpoint(self.body, z, x, use_reentrant=False) if self.again else self.body(z, x))


class Branches(Step):
    """A list of two ways, stacked; and the input once more."""

    def __init__(self, a, b):
        super().__init__()
        self.ways = nn.ModuleList([a, b])

    def run(self, z, x, act):
        return torch.stack([way.run(z, x, act) for way in self.ways]).sum(0) + x.mean(-1, keepdim=True)

    def forward(self, z, x):
        return torch.stack([way(z, x) for way in self.ways]).sum(0) + x.mean(-1, keepdim=True)


class Program(nn.Module):
    def __init__(self, steps, kind):
        super().__init__()
        self.first, self.steps, self.last = nn.Linear(3, WIDTH), nn.ModuleList(steps), nn.Linear(WIDTH, 2)
        self.kind = kind

    def inputs(self, x, side):
        """What forward takes: a tensor, one in a container, or two of them."""
        return {"tensor": (x,), "list": ([x, None],), "mapping": ({"scale": 2.0, "x": x},), "several": (x, side)}[
            self.kind
        ]

    def opened(self, given):
        return given[0] if self.kind == "list" else given["x"] if self.kind == "mapping" else given

    def forward(self, given, side=None):
        x = self.opened(given)
        z = self.first(x)
        if side is not None:
            z = z * torch.tanh(side).mean(-1, keepdim=True)
        for step in self.steps:
            z = step(z, x)
        return self.last(z)

    def by_hand(self, x, side, act, excluded):
        z = self.first(x)
        if self.kind == "several":
            z = z * torch.tanh(side).mean(-1, keepdim=True)
        for k, step in enumerate(self.steps):
            plain = k in excluded
            z = step.run(z, x, (lambda name, a, k, own: FUNCTIONS[name](a)) if plain else act)
        return self.last(z)


@st.composite
def steps(draw, layers, depth=0):
    """A step; layers may be shared, also with steps elsewhere."""
    kinds = ["function", "module", "linear", "shared", "gate", "table"] + (
        ["residual", "branches"] if depth < 2 else []
    )
    kind, k = draw(st.sampled_from(kinds)), draw(st.integers(0, 3))
    if kind == "function":
        return Function(draw(st.sampled_from(sorted(CALLS))), k)
    if kind == "module":
        return Module(draw(st.sampled_from(sorted(MODULES))))
    if kind in ("linear", "shared"):
        if kind == "linear" or not layers:
            layer = nn.Linear(WIDTH, WIDTH)
            plain = [other for other in layers if "weight" in other._parameters]
            if k == 1 and plain:
                layer.weight = draw(st.sampled_from(plain)).weight
            layers.append(parametrizations.weight_norm(layer) if k == 0 else layer)
        return Linear(draw(st.sampled_from(layers)))
    if kind == "gate":
        return Gate(draw(st.sampled_from(sorted(CALLS))), k, draw(st.booleans()))
    if kind == "table":
        return Table(draw(st.sampled_from(sorted(CALLS))), k)
    if kind == "residual":
        inner = draw(st.lists(steps(layers, depth + 1), min_size=1, max_size=3))
        return Residual(inner, draw(st.booleans()))
    return Branches(draw(steps(layers, depth + 1)), draw(steps(layers, depth + 1)))


@st.composite
def programs(draw):
    torch.manual_seed(draw(st.integers(0, 1000)))
    layers = []
    made = draw(st.lists(steps(layers), min_size=1, max_size=5))
    if draw(st.booleans()):
        made.append(made[0])  # the very same step once more
    return Program(made, draw(st.sampled_from(["tensor", "list", "mapping", "several"]))).double()


@settings(
    max_examples=int(os.environ.get("DUALPROP_EXAMPLES", "50")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    program=programs(),
    n=st.integers(1, 5),
    alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    beta=st.sampled_from([0.3, 1.0, 4.0]),
    reduction=st.sampled_from(["mean", "sum"]),
    scale=st.sampled_from([None, 8.0]),
    dense=st.booleans(),
    left=st.integers(-1, 5),
    copied=st.booleans(),
)
def test_any_module(program, n, alpha, beta, reduction, scale, dense, left, copied):
    shape = (n, 3, 3) if dense else (n, 3)
    side = torch.randn(shape, dtype=torch.float64)
    x, target = torch.randn(shape, dtype=torch.float64), torch.randn((*shape[:-1], 2), dtype=torch.float64)
    excluded = {left} if left < len(program.steps) - 1 and left >= 0 else set()
    excluded |= {k for k, step in enumerate(program.steps) for e in tuple(excluded) if step is program.steps[e]}
    plain = copy.deepcopy(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [f"steps.{k}" for k in excluded]
        dp.convert(program, alpha=alpha, beta=beta, reduction=reduction, exclude=names)
        module = copy.deepcopy(program) if copied else program
        terms = x[..., 0].numel() if dense else n
        factor = 1.0 if scale is None else scale
        divided = (terms if dense else None) if reduction == "mean" else None
        with dp.scaled_loss(divided_by=divided, times=factor):
            loss = (module(*module.inputs(x, side)) - target).square().sum() * factor
        loss = loss / terms if reduction == "mean" else loss
        ours = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    s = beta * (terms if reduction == "mean" else 1) / factor
    gates = s / (terms if reduction == "mean" else n)
    act = lambda name, a, k, own: difference(a, FUNCTIONS[name], s if own else gates, alpha)  # noqa: E731
    loss = (plain.by_hand(x, side, act, excluded) - target).square().sum() * factor
    loss = loss / terms if reduction == "mean" else loss
    theirs = torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True)
    for (name, _), a, b in zip(plain.named_parameters(), ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None and bool(b.isfinite().all()):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9 * (1 + float(b.abs().max())), msg=name)
