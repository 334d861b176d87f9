"""`convert(..., kolen_pollack=True)`: the signal goes down through B, which learns what W learns."""

import copy
import io
import math
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import dualprop as dp
from tests.convert.test_convert import cosine, gradients, sequential
from tests.oracles.builders import double_batch, double_net
from tests.oracles.finite_difference import FUNCTIONS, difference


def affine(layer, x):
    """A layer by plain autograd: value and W's gradient from a detached input, the input's through a fixed B."""

    def with_weights(x, weight, bias):
        call = F.linear if isinstance(layer, nn.Linear) else layer._conv_forward  # neither of which calls hooks
        return call(x, weight, bias)

    back = with_weights(x, layer.feedback.detach(), None)
    return with_weights(x.detach(), layer.weight, layer.bias) + back - back.detach()


def slow_twin(net, x, alpha, beta):
    """A Sequential of Linear, Conv2d, ReLU, Tanh and Flatten with every vector-Jacobian product written out."""
    for m in net:
        if isinstance(m, nn.Linear | nn.Conv2d):
            x = affine(m, x)
        elif isinstance(m, nn.ReLU | nn.Tanh):
            x = difference(x, FUNCTIONS["tanh" if isinstance(m, nn.Tanh) else "relu"], beta * len(x), alpha)
        else:
            x = x.flatten(1)
    return x


def double(*modules, **settings):
    torch.manual_seed(3)
    net = nn.Sequential(*modules).double()
    return dp.convert(net, kolen_pollack=True, **settings)


def by_name(net):
    return {name: p.grad for name, p in net.named_parameters()}


NETS = {
    "dense": lambda: (nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Linear(7, 3)),
    "tokens": lambda: (nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5), nn.Flatten(), nn.Tanh(), nn.Linear(20, 3)),
}
CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "1x1": {"kernel_size": 1},
    "no bias": {"kernel_size": 3, "bias": False},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride that leaves a rest": {"kernel_size": 2, "stride": 3},
    "groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "dilation": {"kernel_size": 2, "dilation": (2, 1)},
    "unequal": {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1)},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even kernel": {"kernel_size": (2, 4), "padding": "same", "dilation": (1, 3)},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflect": {"kernel_size": (3, 5), "padding": (1, 2), "padding_mode": "reflect", "stride": 2},
    "replicate, same": {"kernel_size": 4, "padding": "same", "padding_mode": "replicate"},
}


def convolutional(settings):
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, **settings)
    width = second(first(torch.zeros(1, 2, 8, 8))).flatten(1).shape[1]
    return first, nn.ReLU(), second, nn.Tanh(), nn.Flatten(), nn.Linear(width, 3)


CASES = {
    **{name: (make, (4, 6) if name == "tokens" else (6,)) for name, make in NETS.items()},
    **{name: (lambda s=s: convolutional(s), (2, 8, 8)) for name, s in CONVOLUTIONS.items()},
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("alpha", [0.5, 0.2])
@pytest.mark.parametrize("name", CASES)
def test_every_gradient_is_that_of_the_slow_twin(name, alpha):
    make, shape = CASES[name]
    net = double(*make(), alpha=alpha, beta=0.7)
    plain = copy.deepcopy(net)
    x = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    y = torch.arange(5) % 3
    with torch.no_grad():
        expected_output = net(x)  # without gradients, the modules' own forward
    output = net(x)
    assert torch.equal(output, expected_output)
    F.cross_entropy(output, y).backward()
    ours, by_x, x.grad = by_name(net), x.grad, None
    F.cross_entropy(slow_twin(plain, x, alpha, 0.7), y).backward()
    torch.testing.assert_close(by_x, x.grad, rtol=1e-9, atol=1e-14)
    for parameter, expected in by_name(plain).items():
        if not parameter.endswith("feedback"):
            torch.testing.assert_close(ours[parameter], expected, rtol=1e-9, atol=1e-14)
    for m in net:
        if isinstance(m, nn.Linear | nn.Conv2d):
            assert torch.equal(m.feedback.grad, m.weight.grad)
            assert m.feedback.grad.data_ptr() != m.weight.grad.data_ptr()


def test_both_engines_agree_where_no_nudge_crosses_a_kink():
    net = double_net((6, 9, 8, 7, 4), "relu", feedback="kolen-pollack")
    x, y = double_batch(5, 6, 4)
    module = dp.convert(sequential(net), beta=1e-6, kolen_pollack=True)
    with torch.no_grad():
        for layer, linear in zip(net.chain[1:], module[2::2], strict=True):
            linear.feedback.copy_(layer.synapse.feedback)
    ordinary = gradients(sequential(net), x, y)
    F.cross_entropy(module(x), y).backward()
    dp.DualProp(net, loss="cross_entropy", beta=1e-6).backward(x, y)
    for layer, linear in zip(net.chain, module[::2], strict=True):
        for name in ("weight", "bias"):
            ours, theirs = getattr(linear, name).grad, getattr(layer.synapse, name).grad
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    assert abs(cosine([module[0].weight.grad], [ordinary[0]])) < 0.9  # B is not W


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_difference_of_the_weights_decays_geometrically(momentum):
    rate, decay = 0.1, 0.2
    net = double(*convolutional(CONVOLUTIONS["groups"]), beta=1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    layers = [m for m in net if hasattr(m, "feedback")]
    assert len(layers) == 3
    differences = [[(m.feedback - m.weight).detach().norm()] for m in layers]
    initial = [m.weight.detach().clone() for m in layers]
    for _ in range(60):
        x = torch.randn(7, 2, 8, 8, dtype=torch.float64)
        optimizer.zero_grad()
        F.cross_entropy(net(x), torch.arange(7) % 3).backward()
        optimizer.step()
        for m, of in zip(layers, differences, strict=True):
            of.append((m.feedback - m.weight).detach().norm())
    for m, of, first in zip(layers, differences, initial, strict=True):
        assert (m.weight - first).norm() > 0.1
        if momentum:  # the larger root of r^2 - (1 + momentum - rate·decay) r + momentum, if real
            trace = 1 + momentum - rate * decay
            assert trace**2 < 4 * momentum  # complex: an oscillation that shrinks by √momentum a step
            assert of[-1] < 3 * momentum**30 * of[0]
        else:
            ratios = [float(after / before) for before, after in pairwise(of)]
            assert ratios == pytest.approx([1 - rate * decay] * 60, rel=1e-9)


def test_feedback_is_drawn_as_pytorch_draws_weights():
    def module():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2))

    def feedback(seed):
        generator = torch.Generator().manual_seed(seed)
        net = dp.convert(module(), kolen_pollack=True, generator=generator)
        return net[0].feedback, net[2].feedback

    dense, conv = feedback(5)
    torch.manual_seed(5)
    expected = torch.empty(9, 6)
    nn.init.kaiming_uniform_(expected, a=math.sqrt(5))
    assert torch.equal(dense, expected)
    bound = 1 / math.sqrt(2 * 3 * 3)  # of a uniform distribution: 1/√fan_in, as the documentation of Conv2d says
    assert 0.9 * bound < float(conv.detach().abs().max()) < bound
    assert not torch.equal(feedback(6)[0], dense)
    net = module()
    before = torch.get_rng_state()
    dp.convert(net, kolen_pollack=True, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(net[2].feedback, conv)


class Small(nn.Module):
    """Convolutions, batch norm, a residual connection, attention and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(self.second(x)) + x
        x = x.flatten(2).transpose(1, 2)
        return self.head((self.attention(x, x, x, need_weights=False)[0] + x).mean(1))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return dp.convert(Small(), kolen_pollack=True), torch.randn(6, 3, 8, 8), torch.arange(6) % 4


def test_state_dict_has_the_feedback_weights_and_nothing_else_more(small):
    module, *_ = small
    more = set(module.state_dict()) - set(Small().state_dict())
    assert more == {"first.feedback", "second.feedback", "head.feedback"}
    assert set(dp.convert(Small()).state_dict()) == set(Small().state_dict())
    assert dp.conversion(module).feedback == {"first": "Conv2d", "second": "Conv2d", "head": "Linear"}
    assert dp.conversion(module).left_alone["attention"] == "MultiheadAttention (symmetric feedback)"
    assert "feedback weights: 2 Conv2d, 1 Linear; left alone: " in str(dp.conversion(module))


@pytest.mark.slow
def test_copies_pickles_and_compiled_modules_do_the_same(small):
    module, x, y = small
    module.eval()
    expected = gradients(module, x, y)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = dp.convert(Small(), kolen_pollack=True).eval()
    loaded.load_state_dict(module.state_dict())
    others = {
        "copy": copy.deepcopy(module),
        "pickle": torch.load(file, weights_only=False),
        "state_dict": loaded,
        "compiled": torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager"),
        "channels_last": copy.deepcopy(module).to(memory_format=torch.channels_last),
    }
    for name, other in others.items():
        images = x.contiguous(memory_format=torch.channels_last) if name == "channels_last" else x
        for ours, theirs in zip(gradients(other, images, y), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_channels_last_is_never_left():
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last)
    dp.convert(module, kolen_pollack=True)
    assert module[2].feedback.is_contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    module(x).square().mean().backward()
    for tensor in (x, module[0].weight, module[2].weight, module[2].feedback):
        assert tensor.grad.is_contiguous(memory_format=torch.channels_last)


def test_autocast(small):
    module, x, y = small
    expected = gradients(module, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x)
        with torch.no_grad():
            assert module(x).dtype == output.dtype == torch.bfloat16
        ours = gradients(module, x, y)
    assert all(g.dtype == torch.float32 for g in ours)
    assert cosine(ours, expected) > 0.999
    half = dp.convert(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), kolen_pollack=True)
    seen = []
    half[0].register_forward_hook(lambda module, args, y: seen.append(y.grad_fn.saved_tensors[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        half(torch.randn(2, 3))
    assert seen == [torch.bfloat16]  # what is kept for the backward pass is small, too


class Standardised(nn.Conv2d):
    """A layer with a forward of its own: who knows what its adjoint is."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


def test_what_keeps_symmetric_feedback_is_reported():
    frozen = nn.Linear(4, 4).requires_grad_(False)
    net = nn.Sequential(
        nn.Conv1d(3, 3, 1),
        nn.ConvTranspose2d(3, 3, 1),
        Standardised(3, 3, 1),
        frozen,
        nn.Sequential(nn.Linear(4, 4)),
        nn.Linear(4, 4),
        weight_norm(nn.Linear(4, 4)),
        nn.ReLU(),
        torchvision.ops.MLP(4, [4, 4]),
    )
    made = dp.conversion(dp.convert(net, kolen_pollack=True, exclude=["4"]))
    assert set(made.feedback) == {"5", "8.0", "8.3"}
    alone = {name: why for name, why in made.left_alone.items() if "Dropout" not in why}
    assert alone == {
        "0": "Conv1d (symmetric feedback)",
        "1": "ConvTranspose2d (symmetric feedback)",
        "2": "Standardised (symmetric feedback)",
        "3": "Linear (frozen, symmetric feedback)",
        "4": "excluded",
        "6": "Linear (weight computed from others, symmetric feedback)",
    }
    assert not hasattr(net[2], "feedback")
    assert not hasattr(net[4][0], "feedback")


def taken():
    linear = nn.Linear(2, 2)
    linear.feedback = "yes"
    return nn.Sequential(nn.ReLU(), linear)


@pytest.mark.parametrize(
    ("make", "settings", "named"),
    [
        (taken, {"kolen_pollack": True}, "module: 1 has an attribute `feedback`"),
        (lambda: nn.Sequential(nn.ReLU(), nn.LazyLinear(2)), {"kolen_pollack": True}, "module: 1 has no weights"),
        (lambda: nn.ReLU(), {"kolen_pollack": 1}, "kolen_pollack=1: must be true or false"),
        (lambda: nn.ReLU(), {"generator": torch.Generator()}, "generator: "),
        (lambda: nn.Linear(2, 2), {"kolen_pollack": True}, "module: Linear has no activation"),
    ],
)
def test_bad_input(make, settings, named):
    module = make()
    before = list(module.state_dict())
    with pytest.raises(dp.DualpropError) as caught:
        dp.convert(module, **settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(module.state_dict()) == before


class TiedToTable(nn.Module):
    """A read-out with the weights of the table of words, as in language models."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 5)
        self.hidden = nn.Linear(5, 5)
        self.out = nn.Linear(5, 7, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(self.words(x))))


def apart(net):
    made = dp.conversion(net).feedback
    modules = [net.get_submodule(name) for name in made]
    return [float((m.weight - m.feedback).detach().norm()) for m in modules]


def two_that_share():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(6, 3)), torch.randn(5, 6)


def one_twice():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(6, 3)), torch.randn(5, 6)


def table():
    return TiedToTable(), torch.randint(7, (5,))


def pruned():
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    prune.random_unstructured(net[2], "weight", 0.5)
    return net, torch.randn(5, 6)


@pytest.mark.parametrize(
    ("make", "alone"),
    [
        (two_that_share, {}),
        (one_twice, {}),
        (
            table,
            {
                "words": "Embedding (symmetric feedback)",
                "out": "Linear (weight shared with Embedding, symmetric feedback)",
            },
        ),
        (pruned, {"2": "Linear (weight computed from others, symmetric feedback)"}),
    ],
)
def test_feedback_weights_decay_towards_weights_that_others_use(make, alone):
    """‖B - W‖ falls as by decay alone wherever there is a B; where W learns what B cannot, there is none."""
    torch.manual_seed(2)
    net, x = make()
    dp.convert(net.double(), kolen_pollack=True)
    x, y = x.double() if x.is_floating_point() else x, torch.arange(5) % 3
    assert dp.conversion(net).left_alone == alone
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    before = apart(net)
    assert before
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert apart(net) == pytest.approx([0.99**20 * d for d in before], rel=1e-9)


def test_a_layer_that_is_pruned_after_its_conversion_is_refused():
    net = dp.convert(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), kolen_pollack=True)
    prune.random_unstructured(net[2], "weight", 0.5)
    with pytest.raises(dp.DualpropError, match="the weight of 2 is computed from others since"):
        net(torch.randn(5, 6))
    dp.unconvert(net)
    assert dp.conversion(dp.convert(net, kolen_pollack=True)).feedback == {"0": "Linear"}


@pytest.mark.slow  # the neighbours' kinds above take no import of seconds
def test_modules_of_other_libraries_that_hold_weights_are_reported():
    transformers = pytest.importorskip("transformers")
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 11, "n_positions": 6}
    net = dp.convert(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)), kolen_pollack=True)
    made = dp.conversion(net)
    held = {n for n, m in net.named_modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))}
    assert held == {*made.feedback, *(n for n, why in made.left_alone.items() if "symmetric" in why)}
    assert made.left_alone["transformer.h.0.mlp.c_fc"] == "Conv1D (symmetric feedback)"
    assert made.left_alone["lm_head"] == "Linear (weight shared with Embedding, symmetric feedback)"


@pytest.mark.parametrize("shared", [False, True])
def test_a_hook_of_a_weight_reaches_its_feedback_weights(shared):
    """A mask and a bound, set before and after the conversion; where W is shared, of the sum over its layers."""
    layers = [nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)]
    if shared:
        layers[2].weight = layers[0].weight
    net, (x, y) = double(*layers, beta=2.0), double_batch(8, 6, 3)
    F.cross_entropy(net(x), y).backward()
    whole = net[2].weight.grad.clone()
    torch.testing.assert_close(net[2].feedback.grad, whole)
    net.zero_grad()
    mask, bound = (torch.rand(6, 6) > 0.5).double(), float(whole.abs().median())
    net[2].weight.register_hook(lambda g: (g * mask).clamp(-bound, bound))
    for _ in range(2):  # hooks are followed once, however often the module is called
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()
        torch.testing.assert_close(net[2].feedback.grad, (whole * mask).clamp(-bound, bound))
        torch.testing.assert_close(net[2].feedback.grad, net[2].weight.grad)
    other = copy.deepcopy(net)  # which has neither hook
    other.zero_grad()
    F.cross_entropy(other(x), y).backward()
    torch.testing.assert_close(other[2].feedback.grad, whole)
