"""What a weight is: a parameter, or made of parameters by a parametrization or mask, or used by several layers."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import dualprop as dp
from tests.oracles.builders import double_batch, double_net, gradient_of, image_batch, image_net, suited
from tests.slow import but_slow

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")


class Scaled(nn.Module):
    """A parametrization of one's own: s V, with s of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, weight):
        return self.scale * weight


def _mask(module):
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(module.weight.shape, generator=generator) > 0.4).double()
    prune.custom_from_mask(module, "weight", mask)


def _old(norm):
    def apply(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            norm(module)

    return apply


KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": lambda module: parametrize.register_parametrization(module, "weight", Scaled()),
    "bias": lambda module: parametrize.register_parametrization(module, "bias", Scaled()),
    "prune": _mask,
    "weight_norm by a hook": _old(nn.utils.weight_norm),
    "spectral_norm by a hook": _old(nn.utils.spectral_norm),
}
LAYERS = (0, 1, 2)


def dense(method):
    return double_net((6, 7, 5, 4), **suited(method, "tanh")), double_batch(5, 6, 4)


def conv(method):
    own = {"feedback": method.feedback}
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 3, 3, padding=1, pool=dp.POOLS[method.pool](2), **own),
        dp.Pooled(dp.Conv2d(3, 4, 2, **own), dp.AvgPool2d(1)),
        dp.Dense(4, 3, **own),
    ]
    return image_net(synapses, suited(method, "tanh")["activation"]), image_batch(3, (2, 4, 4))


def applied(net, kind, layers=LAYERS):
    """The net with its layers parametrised; those below keep their first one plain."""
    for k in layers:
        KINDS[kind](net.chain[k].synapse.core)
    return net.double()


def weights_of(net):
    """(W, b) of each layer as the next step will read them, with autograd's graph; moves no vectors of `net`."""
    read = copy.deepcopy(dict(net.named_buffers()))
    made = []
    for layer in net.chain:
        synapse = layer.synapse.core
        for hook in synapse._forward_pre_hooks.values():
            hook(synapse, ())
        made.append((synapse.weight, synapse.bias))
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if not torch.equal(buffer, read[name]):
                buffer.copy_(read[name])
    return made


def plain_twin(net, plain, made):
    with torch.no_grad():
        for layer, (weight, bias) in zip(plain.chain, made, strict=True):
            layer.synapse.core.weight.copy_(weight)
            layer.synapse.core.bias.copy_(bias)
    return plain


SYMMETRIC = [name for name, method in dp.RULES.items() if method.feedback == "symmetric"]


@pytest.mark.parametrize("kind", but_slow(KINDS, *{*KINDS} - {"weight_norm", "spectral_norm", "prune"}))
@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("make", [dense, conv])
def test_the_gradient_goes_on_to_what_a_weight_is_made_of(make, name, kind):
    """∂/∂W of a net with the same W as plain parameters, times ∂W/∂(what it is made of) by autograd."""
    method = dp.RULES[name]
    net, (x, y) = make(method)
    plain = copy.deepcopy(net)
    applied(net, kind)
    made = weights_of(net)
    plain_twin(net, plain, made)
    by_weight = gradient_of(method(plain), x, y)
    pairs = [
        (weight, by_weight[f"{at}.{which}"])
        for k, own in enumerate(made)
        for at in [next(n for n in by_weight if n.startswith(f"layers.{k}.") and n.endswith("bias"))[:-5]]
        for which, weight in zip(("weight", "bias"), own, strict=True)
    ]
    named = {n: p for n, p in net.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(
        [weight for weight, _ in pairs], list(named.values()), [g for _, g in pairs], allow_unused=True
    )
    ours = gradient_of(method(net), x, y)
    assert set(ours) == set(named)
    for (n, _), theirs in zip(named.items(), expected, strict=True):
        torch.testing.assert_close(ours[n], theirs, rtol=1e-9, atol=1e-13, msg=n)


@pytest.mark.parametrize("kind", but_slow(["spectral_norm", "spectral_norm by a hook"], "spectral_norm by a hook"))
@pytest.mark.parametrize("name", but_slow(SYMMETRIC, *{*SYMMETRIC} - {"bp", "dp", "dtp", "chl", "lpom", "rbp"}))
def test_a_step_moves_the_vectors_of_spectral_norm_once_and_all_else_leaves_them(name, kind):
    method = dp.RULES[name]
    net, (x, y) = conv(method)
    applied(net, kind)
    moved = copy.deepcopy(net)
    rule, other = method(net), method(moved)
    other.backward(x, y)
    before = copy.deepcopy(net.state_dict())
    rule.predict(x)
    rule.infer(x, y)
    rule.gradients(x, y)
    dp.alignment(rule, x, y)
    assert all(torch.equal(value, before[n]) for n, value in net.state_dict().items())
    rule.backward(x, y)
    vectors = [n for n, _ in net.named_buffers()]
    for n in vectors:
        assert torch.equal(net.state_dict()[n], moved.state_dict()[n]), n
        assert not torch.equal(net.state_dict()[n], before[n]), n
    net.load_state_dict(before)
    for layer in net.chain[:3]:
        synapse = layer.synapse.core
        for hook in synapse._forward_pre_hooks.values():
            hook(synapse, ())
        synapse.weight.sum()
    for n in vectors:
        torch.testing.assert_close(net.state_dict()[n], moved.state_dict()[n], msg=n)


def tied_net(method, *, shared):
    """6-5-5-5-4 with the same W in layers 2 and 3: one parameter of two synapses, or one synapse in two layers."""
    net = double_net((6, 5, 5, 5, 4), **suited(method, "tanh"))
    first, second = net.chain[1], net.chain[2]
    if shared == "synapse":
        second.synapse = first.synapse
    else:
        second.synapse.weight = first.synapse.weight
    return net


def untied(net):
    """A copy in which each layer has weights of its own."""
    plain = copy.deepcopy(net)
    plain.chain[2].synapse = copy.deepcopy(plain.chain[2].synapse)
    return plain


@pytest.mark.parametrize("shared", ["parameter", "synapse"])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_layers_that_share_a_weight_add_their_gradients(name, shared):
    method = dp.RULES[name]
    net, (x, y) = tied_net(method, shared=shared), double_batch(5, 6, 4)
    alone = gradient_of(method(untied(net)), x, y)
    calls = []
    weight = net.chain[1].synapse.weight
    weight.register_hook(lambda g: calls.append(g.clone()))
    weight.register_post_accumulate_grad_hook(lambda p: calls.append(p.grad.clone()))
    ours = gradient_of(method(net), x, y)
    total = alone["layers.1.synapse.weight"] + alone["layers.2.synapse.weight"]
    if name != "dtp":  # whose maps are drawn one after the other, each of its own layer
        torch.testing.assert_close(ours["layers.1.synapse.weight"], total, rtol=1e-10, atol=1e-14)
    rounds = 1
    assert len(calls) == 2 * rounds
    assert all(torch.equal(call, ours["layers.1.synapse.weight"]) for call in calls)
    found = dp.alignment(method(net), x, y)
    assert all(abs(c) <= 1 + 1e-9 for c in found.cosine)  # none is NaN


@pytest.mark.parametrize("name", list(dp.RULES))
def test_hooks_of_parameters_mask_gradients(name):
    """As in training with a fixed mask."""
    method = dp.RULES[name]
    net, (x, y) = conv(method)
    whole = gradient_of(method(net), x, y)
    masks, counts = {}, dict.fromkeys(whole, 0)
    for n, p in net.named_parameters():
        masks[n] = (torch.rand_like(p) > 0.5).double()

        def mask(g, n=n):
            counts[n] += 1
            return g * masks[n]

        p.register_hook(mask)
    masked = gradient_of(method(net), x, y)
    assert set(counts.values()) == {1}
    for n, g in masked.items():
        at = masks.get(n.replace("feedback", "weight")) * masks[n]  # B gets what W gets
        torch.testing.assert_close(g, whole[n] * at, rtol=1e-10, atol=1e-14, msg=n)


def graph(wrap, *, cyclic):
    """Edges of every kind that holds weights; wrap(module) is done to each of these before it is used."""
    g = dp.Graph()
    torch.manual_seed(4)
    x = g.input("x")
    h = g.layer("h", {x: wrap(dp.Dense(6, 5))}, "tanh")
    up = g.layer(
        "i", {h: wrap(dp.Dense(5, 5)), x: dp.Local(nn.Sequential(wrap(nn.Linear(6, 5)), nn.Tanh()))}, "tanh"
    )
    y = g.layer("y", {up: dp.Affine(wrap(nn.Linear(5, 4))), h: wrap(dp.Dense(5, 4))}, "linear")
    if cyclic:
        g.connect(up, h, dp.Transposed(g.edge(h, up), scale=0.3))
    return g.net([y], **({"tolerance": 1e-13} if cyclic else {})).double()


def owners(net):
    """The modules whose weights are parametrised, by name."""
    return {n: m for n, m in net.named_modules() if isinstance(m, dp.Dense | nn.Linear)}


@pytest.mark.parametrize("kind", [None, "own", "weight_norm", "prune"])
@pytest.mark.parametrize("name", ["bp", "dp"])
def test_hooks_are_called_once_whatever_holds_the_parameter(name, kind):
    """A gradient three times as large, of parameters in synapses, modules and parametrizations alike."""
    torch.manual_seed(5)
    net = graph(lambda module: module if kind is None else KINDS[kind](module) or module, cyclic=False)
    x, y = double_batch(5, 6, 4)
    whole, calls = gradient_of(dp.RULES[name](net), x, y), []
    for n, p in net.named_parameters():
        p.register_hook(lambda g, n=n: (calls.append(n), 3 * g)[1])
    with dp.counting():
        tripled = gradient_of(dp.RULES[name](net), x, y)
    assert sorted(calls) == sorted(whole)
    for n, g in tripled.items():
        torch.testing.assert_close(g, 3 * whole[n], rtol=1e-10, atol=1e-14, msg=n)


@pytest.mark.parametrize("name", ["bp", "dp"])
def test_alignment_makes_no_step_of_an_optimizer_in_a_hook(name):
    net, (x, y) = dense(dp.RULES[name])
    before, expected = copy.deepcopy(net.state_dict()), dp.alignment(dp.RULES[name](net), x, y)

    def step(p):
        p.data.sub_(p.grad)

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step)
    assert dp.alignment(dp.RULES[name](net), x, y) == expected
    assert all(torch.equal(before[n], p) for n, p in net.state_dict().items())
    dp.RULES[name](net).backward(x, y)
    assert not any(torch.equal(before[n], p) for n, p in net.state_dict().items())


@pytest.mark.parametrize(
    "kind",
    but_slow(
        ["weight_norm", "spectral_norm", "own", "prune", "spectral_norm by a hook"],
        "own",
        "spectral_norm by a hook",
    ),
)
@pytest.mark.parametrize(
    ("rule", "cyclic"),
    [
        (dp.Backprop, False),
        (dp.DualProp, False),
        (lambda net: dp.DualProp(net, schedule=dp.Sweep(4)), True),
        (lambda net: dp.DualProp(net, schedule=dp.Sweep(300, tolerance=1e-12)), True),
        (dp.RecurrentBackprop, True),
    ],
    ids=["bp", "dp", "dp-cycles", "dp-settled", "rbp"],
)
def test_edges_of_every_kind_in_graphs(rule, cyclic, kind):
    def wrap(module):
        KINDS[kind](module)
        return module

    net, plain = graph(wrap, cyclic=cyclic), graph(lambda module: module, cyclic=cyclic)
    x, y = double_batch(5, 6, 4)
    vectors = {n: b.clone() for n, b in net.named_buffers()}
    twin = copy.deepcopy(net.state_dict())
    made = {}
    for n, module in owners(net).items():
        for hook in module._forward_pre_hooks.values():
            hook(module, ())
        made[n] = module.weight
        with torch.no_grad():
            owners(plain)[n].weight.copy_(made[n])
            owners(plain)[n].bias.copy_(module.bias)
    once = {n: b.clone() for n, b in net.named_buffers()}
    by_weight = gradient_of(rule(plain), x, y)
    named = {n: p for n, p in net.named_parameters() if p.requires_grad}
    weights = [(weight, by_weight[f"{n}.weight"]) for n, weight in made.items()]
    biases = [(module.bias, by_weight[f"{n}.bias"]) for n, module in owners(net).items()]
    values, gradients = zip(*weights, *biases, strict=True)
    expected = dict(zip(named, torch.autograd.grad(values, list(named.values()), gradients), strict=True))
    with torch.no_grad():
        for n, b in net.named_buffers():
            if not torch.equal(b, vectors[n]):
                b.copy_(twin[n])
    ours = gradient_of(rule(net), x, y)
    assert set(ours) == set(expected)
    for n, theirs in expected.items():
        torch.testing.assert_close(ours[n], theirs, rtol=1e-8, atol=1e-12, msg=n)
    for n, b in net.named_buffers():
        torch.testing.assert_close(b, once[n], msg=n)


def kp_tied():
    net = tied_net(dp.RULES["kp-dp"], shared="parameter")
    net.chain[0].synapse = dp.Affine(nn.Linear(6, 5), feedback="kolen-pollack").double()
    return net


def kp_one_synapse():
    return tied_net(dp.RULES["kp-dp"], shared="synapse")


def kp_pruned():
    net = double_net((6, 5, 5, 4), feedback="kolen-pollack")
    _mask(net.chain[1].synapse)
    prune.random_unstructured(net.chain[2].synapse, "weight", 0.3)
    return net


def kp_masked():
    """By a hook on the gradient, W and B at zero where the mask is."""
    net = double_net((6, 5, 5, 4), feedback="kolen-pollack")
    synapse = net.chain[1].synapse
    mask = (torch.rand_like(synapse.weight) > 0.5).double()
    synapse.weight.register_hook(lambda g: g * mask)
    return net


@pytest.mark.parametrize("make", [kp_tied, kp_one_synapse, kp_pruned, kp_masked])
def test_feedback_weights_decay_towards_the_weights_whatever_these_are(make):
    """‖B - W‖ falls as by decay alone, for B moves as W does [Kolen, Pollack 1994]."""
    net = make()
    rule = dp.RULES["kp-dp"](net, beta=0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)

    def apart():
        with torch.no_grad(), dp.synapses.frozen_weights(net.synapses):
            return [float((w - b).norm()) for s in net.synapses for w, b in s.feedback_pairs()]

    before = apart()
    moved = net.chain[2].synapse.feedback.detach().clone()
    for seed in range(20):
        optimizer.zero_grad()
        rule.backward(*double_batch(5, 6, 4, seed=seed))
        optimizer.step()
    assert apart() == pytest.approx([0.99**20 * d for d in before], rel=1e-9)
    assert (
        float((net.chain[2].synapse.feedback.detach() - 0.99**20 * moved).norm()) > 0.01
    )  # it has learnt besides


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal", "own", "weight_norm by a hook"])
def test_feedback_weights_of_a_weight_that_moves_by_no_gradient_of_its_own_are_refused(kind):
    net = applied(double_net((6, 7, 5, 4), feedback="kolen-pollack"), kind, layers=(1,))
    rule = dp.RULES["kp-dp"](net)
    with pytest.raises(dp.DualpropError, match=r"^net: the weight of a Dense is computed from others") as caught:
        rule.backward(*double_batch(5, 6, 4))
    assert "\n" not in str(caught.value)
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(dp.DualpropError, match=r"^module: the weights of a Linear are computed from others"):
        dp.Affine(_of(kind), feedback="kolen-pollack")


def _of(kind):
    module = nn.Linear(3, 2)
    KINDS[kind](module)
    return module


@pytest.mark.parametrize("name", list(dp.RULES))
def test_hooks_of_modules_are_called_once_a_batch_or_warned_of_once(name):
    method = dp.RULES[name]
    net, (x, y) = dense(method)
    _mask(net.chain[0].synapse)  # computes a weight: nothing to warn of
    rule, calls = method(net), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.backward(x, y)
    net.chain[1].synapse.register_forward_hook(lambda *args: calls.append(1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            rule.backward(x, y)
    assert len(caught) == (0 if name == "bp" else 1)
    assert all("Dense (layers.1.synapse) has hooks" in str(one.message) for one in caught)
    assert name != "bp" or len(calls) == 2


@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_rule_on_pruned_weights_can_be_copied_with_its_net(name):
    method = dp.RULES[name]
    net, (x, y) = dense(method)
    applied(net, "prune")
    rule = method(net)
    ours = gradient_of(rule, x, y)
    other = copy.deepcopy(net)
    theirs = gradient_of(method(other), x, y)
    assert all(torch.equal(g, theirs[n]) for n, g in ours.items())


@pytest.mark.parametrize("prune_it", [False, True])
def test_feedback_weights_learn_beside_a_frozen_weight(prune_it):
    net = double_net((6, 5, 5, 4), feedback="kolen-pollack")
    synapse, (x, y) = net.chain[1].synapse, double_batch(5, 6, 4)
    if prune_it:
        prune.custom_from_mask(synapse, "weight", torch.ones(5, 5, dtype=torch.float64))
    free = gradient_of(dp.RULES["kp-dp"](net), x, y)
    (synapse.weight_orig if prune_it else synapse.weight).requires_grad_(False)
    frozen = gradient_of(dp.RULES["kp-dp"](net), x, y)
    assert set(free) - set(frozen) == {f"layers.1.synapse.weight{'_orig' * prune_it}"}
    assert torch.equal(frozen["layers.1.synapse.feedback"], free["layers.1.synapse.feedback"])


class OwnSynapse(dp.Affine):
    """Learns a weight that it has computed itself, and outside of autograd's graph."""

    def hebbian(self, delta, p):
        dp.synapses.accumulate(2 * self.module.weight, delta.T @ p)


def test_a_weight_computed_without_a_graph_cannot_learn_in_silence():
    net = dp.Net([dp.Layer(OwnSynapse(nn.Linear(6, 4)), "linear")]).double()
    with pytest.raises(dp.DualpropError, match=r"^weight: of shape .4, 6., computed without autograd's graph"):
        dp.DualProp(net, beta=0.1).backward(*double_batch(5, 6, 4))


@pytest.mark.parametrize("name", SYMMETRIC)
def test_weights_may_be_parametrised_and_plain_again_while_a_rule_is_bound(name):
    method = dp.RULES[name]
    net, (x, y) = dense(method)
    rule = method(net.float())
    parametrizations.weight_norm(net.chain[0].synapse)
    net.double()
    assert {n for n, p in net.named_parameters() if p.requires_grad} == set(gradient_of(rule, x, y))
    parametrize.remove_parametrizations(net.chain[0].synapse, "weight")
    assert {n for n, p in net.named_parameters()} == set(gradient_of(rule, x, y))
