"""What a batch is: B known or told, gates apart, losses of other weights, warnings of shapes that contradict B."""

import copy
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

import dualprop as dp
from tests.oracles.finite_difference import FUNCTIONS, difference
from tests.slow import but_slow

BETA = 3.0


def double(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


class Net(nn.Module):
    """Two layers over the last dimension, however the samples lie."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 9).double(), nn.Linear(9, 3).double()

    def forward(self, *args, **kwargs):
        (x,) = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor) and a.shape[-1] == 6]
        return self.last(torch.tanh(self.first(x)))

    def by_hand(self, x, s):
        return self.last(difference(self.first(x), FUNCTIONS["tanh"], s))


class Images(Net):
    """A list of samples, as detection models take it."""

    def forward(self, images):
        return super().forward(torch.stack(images))


class Named(Net):
    def forward(self, mask, x):
        return super().forward(x)


def graph(x):
    return torch.tensor([[0, 1], [1, 2]]), x


CASES = {
    "a number": (Net, {"batch": 5}, lambda x: (x,)),
    "a dimension": (Net, {"batch": dp.BatchDim(1)}, lambda x: (x.view(1, 5, 6).expand(4, 5, 6) * 1,)),
    "the last but one": (Net, {"batch": dp.BatchDim(-2)}, lambda x: (x.view(1, 5, 6).expand(4, 5, 6) * 1,)),
    "a function": (Images, {"batch": len}, lambda x: (list(x),)),
    "a list by its name": (Images, {"batch": dp.BatchDim(argument="images")}, lambda x: (list(x),)),
    "an argument": (Named, {"batch": dp.BatchDim(argument="x")}, graph),
    "an argument by a function": (Named, {"batch": lambda mask, x: len(x)}, graph),
    "one sample": (Net, {"batch": 1}, lambda x: (x[0],)),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_b_is_what_it_is_said_to_be(name, compiled):
    make, settings, arguments = CASES[name]
    x = double(5, 6)
    args = arguments(x)
    module = dp.convert(make(), beta=BETA, **settings)
    run = torch.compile(module, backend="eager", fullgraph=True) if compiled else module
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*B = ")
        output = run(*args)
    n = 1 if name == "one sample" else 5
    ours = torch.autograd.grad(output.square().sum() / n, list(module.parameters()))
    (inner,) = (
        torch.stack(a) if isinstance(a, list) else a for a in args if isinstance(a, list) or a.shape[-1] == 6
    )
    theirs = torch.autograd.grad(module.by_hand(inner, BETA * n).square().sum() / n, list(module.parameters()))
    same(ours, theirs)
    assert compiled or dp.conversion(module).samples == n


def test_packed_sequences_count_by_themselves():
    class Packed(Net):
        def forward(self, packed):
            return super().forward(packed.data)

    sequences = [double(n, 6, seed=n) for n in (4, 3, 1)]
    module = dp.convert(Packed(), beta=BETA)
    packed = pack_sequence(sequences)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = module(packed)
    ours = torch.autograd.grad(output.square().sum() / 3, list(module.parameters()))
    theirs = torch.autograd.grad(
        module.by_hand(packed.data, BETA * 3).square().sum() / 3, list(module.parameters())
    )
    same(ours, theirs)


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (0, "batch=0"),
        (True, "batch=True"),
        ("x", "batch='x'"),
        (2.0, "batch=2.0"),
    ],
)
def test_what_is_no_batch_is_refused(batch, named):
    with pytest.raises(dp.DualpropError, match=f"^{re.escape(named)}"):
        dp.convert(
            Net(),
            batch=batch()
            if "BatchDim" in getattr(batch, "__qualname__", "BatchDim") and callable(batch)
            else batch,
        )


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (dp.BatchDim(4), r"Net: batch=BatchDim\(dim=4, argument=None\) for a tensor of 2 dimensions"),
        (dp.BatchDim(argument="y"), "Net: no batch in its argument 'y'"),
        (lambda x: "5", "batch: returned '5'"),
        (lambda x: 0, "x: a batch of 0 samples"),
    ],
)
def test_a_call_without_such_a_batch_is_refused(batch, named):
    with pytest.raises(dp.DualpropError, match=f"^{named}"):
        dp.convert(Net(), batch=batch)(double(5, 6))


class Gated(nn.Module):
    """Activations of parameters, of a buffer and of the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.gate, self.scale = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(3))
        self.register_buffer("table", torch.randn(16, 2))
        self.position = nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 1))
        self.query = nn.Parameter(torch.randn(1, 8))

    def place(self, act):
        """By hand, or by the module called with its table."""
        if act is None:
            return self.position(self.table)
        return self.position[2](act("gelu", self.position[0](self.table), False))

    def compute(self, x, act, position=None):
        gate, scale = act("tanh", 2 * self.gate, False), act("softplus", self.scale, False)
        position = (self.place(act) if position is None else position).view(2, 8).mean(0)
        mask = act("sigmoid", torch.stack([self.gate, position]).sum(0), False)
        query = act("silu", self.query.expand(len(x), 8) * 1.5, True)
        return self.last(act("tanh", self.first(x), True) * gate * mask + position + query) * scale

    def forward(self, x):
        calls = {"tanh": torch.tanh, "softplus": F.softplus, "sigmoid": torch.sigmoid, "silu": F.silu}
        return self.compute(x, lambda name, a, _: calls[name](a), self.place(None))

    def by_hand(self, x, samples, gates):
        return self.compute(x, lambda name, a, own: difference(a, FUNCTIONS[name], samples if own else gates))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("compiled", [False, True])
def test_what_has_no_samples_is_nudged_as_their_mean(reduction, compiled):
    module, x, y = dp.convert(Gated().double(), beta=BETA, reduction=reduction), double(8, 6), torch.arange(8) % 3
    run = torch.compile(module, backend="eager", fullgraph=True) if compiled else module
    parameters = list(module.parameters())
    ours = torch.autograd.grad(F.cross_entropy(run(x), y, reduction=reduction), parameters)
    samples, gates = (8 * BETA, BETA) if reduction == "mean" else (BETA, BETA / 8)
    theirs = torch.autograd.grad(
        F.cross_entropy(module.by_hand(x, samples, gates), y, reduction=reduction), parameters
    )
    same(ours, theirs)
    assert dp.conversion(module).without_batch == {"": "Sigmoid, Softplus, Tanh", "position.1": "GELU"}
    assert "without a batch: 1 GELU, 1 Sigmoid, Softplus, Tanh; " in str(dp.conversion(module))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_sample_twice_is_the_same_gradient(reduction):
    """Also for a gate whose length, 8, is a multiple of the batch."""
    module, x, y = dp.convert(Gated().double(), beta=BETA, reduction=reduction), double(8, 6), torch.arange(8) % 3
    once = torch.autograd.grad(F.cross_entropy(module(x), y, reduction=reduction), list(module.parameters()))
    for times in (2, 32):
        c = 1 if reduction == "mean" else 1 / times
        with dp.scaled_loss(times=c):
            loss = F.cross_entropy(module(x.repeat(times, 1)), y.repeat(times), reduction=reduction) * c
        same(torch.autograd.grad(loss, list(module.parameters())), once)


class Positions(nn.Module):
    """Small nets over tables of positions: in a buffer of a part that its parent reads, or made by each call."""

    def __init__(self, table):
        super().__init__()
        self.table, self.owner = table, nn.Module()
        self.owner.register_buffer("places", torch.linspace(0, 1, 16).view(16, 1))
        self.first, self.place, self.last = nn.Linear(6, 8), nn.Linear(1, 8), nn.Linear(8, 3)
        self.words = nn.Embedding(16, 1)

    def compute(self, x, act):
        places = TABLES[self.table](self, self.first.weight)
        return self.last(self.first(x) * act(self.place(places)).mean(0))

    def forward(self, x):
        return self.compute(x, torch.tanh)


TABLES = {
    "buffer of a part": lambda m, like: m.owner.places,
    "arange": lambda m, like: torch.arange(16, dtype=like.dtype)[:, None],
    "linspace": lambda m, like: torch.linspace(-1, 1, 16, dtype=like.dtype).view(16, 1),
    "meshgrid": lambda m, like: torch.meshgrid(2 * [torch.arange(4.0)], indexing="ij")[0].reshape(16, 1).to(like),
    "eye": lambda m, like: torch.eye(16, dtype=like.dtype).sum(1, keepdim=True),
    "embedding": lambda m, like: m.words(torch.arange(16)),
}


@pytest.mark.parametrize("compiled", but_slow([False, True], True))
@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_positions_has_no_samples(table, compiled):
    """However many positions there are: 16 are a multiple of 2 and of 8 samples."""
    torch.manual_seed(0)
    module = Positions(table).double()
    run = dp.convert(module, beta=BETA)
    run = torch.compile(run, backend="eager", fullgraph=True) if compiled else run
    parameters = [p for name, p in module.named_parameters() if table == "embedding" or "words" not in name]
    for n in (2, 8, 5):
        x, y = double(n, 6), torch.arange(n) % 3
        theirs = module.compute(x, lambda a: difference(a, FUNCTIONS["tanh"], BETA))
        theirs = torch.autograd.grad(F.cross_entropy(theirs, y), parameters)
        same(torch.autograd.grad(F.cross_entropy(run(x), y), parameters), theirs)


def test_losses_that_are_scaled_accumulated_or_dense():
    """Each is the mean over samples again, once it is said what the loss is divided by and multiplied with."""
    module, x = dp.convert(Net(), beta=BETA), double(5, 6)
    parameters = list(module.parameters())
    once = torch.autograd.grad(module(x).square().sum(1).mean(), parameters)
    with dp.scaled_loss(times=65536.0):
        loss = module(x).square().sum(1).mean() * 65536
    same([g / 65536 for g in torch.autograd.grad(loss, parameters)], once)
    with dp.scaled_loss(times=1 / 4):
        loss = module(x).square().sum(1).mean() / 4
    same([g * 4 for g in torch.autograd.grad(loss, parameters)], once)
    unscaled = torch.autograd.grad(module(x).square().sum(1).mean() * 65536, parameters)
    assert not torch.allclose(unscaled[0] / 65536, once[0], rtol=0.1)
    tokens = double(5, 7, 6)
    with dp.scaled_loss(divided_by=35):
        dense = torch.autograd.grad(module(tokens).square().sum(2).mean(), parameters)
    flat = torch.autograd.grad(module(tokens.flatten(0, 1)).square().sum(1).mean(), parameters)
    same(dense, flat)
    same(torch.autograd.grad(module(x).square().sum(1).mean(), parameters), once)  # outside, all is as before


@pytest.mark.slow
def test_a_scaled_loss_reaches_gates_too_and_compiled_modules():
    module, x, y = dp.convert(Gated().double(), beta=BETA), double(8, 6), torch.arange(8) % 3
    parameters = list(module.parameters())
    for run in (module, torch.compile(module, backend="eager", fullgraph=True)):
        for scale in (1024.0, 512.0):
            with dp.scaled_loss(times=scale):
                ours = torch.autograd.grad(F.cross_entropy(run(x), y) * scale, parameters)
            theirs = torch.autograd.grad(F.cross_entropy(module.by_hand(x, 8 * BETA, BETA), y), parameters)
            same([g / scale for g in ours], theirs)


@pytest.mark.parametrize(
    ("name", "value"), [("divided_by", 0), ("times", -1.0), ("times", float("inf")), ("times", "2")]
)
def test_weights_of_losses_are_positive(name, value):
    with pytest.raises(dp.DualpropError, match=f"^{name}={re.escape(repr(value))}: must be a number"):
        dp.scaled_loss(**{name: value})


class Attended(Net):
    def forward(self, mask, x):
        return super().forward(x) * mask.mean()


@pytest.mark.parametrize(
    ("make", "args", "said"),
    [
        (
            Images,
            (list(double(4, 6)),),
            "Images: B = 6, of the first tensor, but an argument is a list of 4 tensors",
        ),
        (
            Attended,
            (torch.ones(7, 7).double(), double(4, 6)),
            "B = 7, of the first tensor, but another has 4 in dim",
        ),
        (
            Net,
            (double(6)[None].expand(4, 6)[0],),
            r"Net \(Tanh\): a drive of shape \(9,\) has no dimension for B = 6",
        ),
    ],
)
def test_shapes_that_speak_against_b_are_warned_of_once(make, args, said):
    module = dp.convert(make())
    with pytest.warns(UserWarning, match=said):
        module(*args)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(*args)
        dp.convert(make(), batch=4)(*args)


def test_nudges_below_rounding_are_warned_of_once():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1))
    torch.manual_seed(0)
    x = 100 * torch.randn(2, 3, 128, 128)
    module = dp.convert(copy.deepcopy(net))
    with pytest.warns(UserWarning, match=r"^1 \(Tanh\): nudges of .* of the drives, whose rounding is 1e-07"):
        (module(x) - 1).square().mean().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (module(x) - 1).square().mean().backward()
        module = dp.convert(copy.deepcopy(net))
        with dp.scaled_loss(divided_by=2 * 128 * 128):
            (module(x) - 1).square().mean().backward()
