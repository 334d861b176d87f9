"""RecurrentBackprop against autograd through unrolled updates, Newton's twin, back-propagation and EP."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.builders import (
    assert_same,
    autograd_gradient,
    double_batch,
    double_net,
    flat,
    gradient_of,
    image_batch,
    relative_error,
    slope,
    small_conv_net,
)
from tests.oracles.hopfield_twin import Equilibrium, drive, one_hot
from tests.oracles.refused import refused

SIZES = (5, 6, 4, 3)
SETTLED = {"T1": 3000, "T2": 3000, "tolerance": 1e-13}
TOP_DOWN = ("symmetric", "skew", "free")


def settling(top_down: str, seed: int = 0, strength: float = 0.7) -> dp.Net:
    """A net with top-down edges, in float64, its fixed point found to rounding."""
    generator = torch.Generator().manual_seed(seed)
    net = dp.nets.hopfield_mlp(SIZES, top_down=top_down, strength=strength, generator=generator).double()
    with torch.no_grad():
        for layer in net.stack:
            layer.synapse.bias.uniform_(-0.3, 0.3, generator=generator)
    net.tolerance = 1e-14
    return net


def value(output: Tensor, y: Tensor, loss: str) -> Tensor:
    if loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(output, y)
    return 0.5 * (output - one_hot(y, SIZES[-1], output)).square().sum() / len(y)


def unrolled(
    net: dp.Net, top_down: str, x: Tensor, y: Tensor, loss: str, strength: float, damping: float = 0.5
) -> dict[str, Tensor]:
    """The gradient by autograd through 300 damped updates of all layers at once, from zero."""
    W = [layer.synapse.weight for layer in net.stack]
    b = [layer.synapse.bias for layer in net.stack]
    if top_down == "free":
        T = [layer.synapses[1].weight for layer in net.stack[:-1]]
    else:
        T = [{"symmetric": strength, "skew": -strength}[top_down] * w.T for w in W[1:]]
    z = [x, *(x.new_zeros(len(x), n) for n in SIZES[1:])]
    for _ in range(300):
        new = [x]
        for k in range(1, len(z)):
            a = z[k - 1] @ W[k - 1].T + b[k - 1]
            a = torch.tanh(a + z[k + 1] @ T[k - 1].T) if k + 1 < len(z) else a
            new.append(damping * z[k] + (1 - damping) * a)
        z = new
    named = dict(net.named_parameters())
    return dict(zip(named, torch.autograd.grad(value(z[-1], y, loss), list(named.values())), strict=True))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("top_down", TOP_DOWN)
def test_it_is_autograd_through_unrolled_updates(top_down, loss):
    strength = 0.4 if top_down == "skew" else 0.7  # at which 300 of them suffice
    net, (x, y) = settling(top_down, strength=strength), double_batch(4, SIZES[0], SIZES[-1])
    ours = gradient_of(dp.RecurrentBackprop(net, loss=loss, tolerance=1e-13), x, y)
    assert_same(ours, unrolled(net, top_down, x, y, loss, strength), rtol=1e-9)


def test_a_skew_symmetric_net_at_full_strength_needs_the_damping_of_its_states():
    net, (x, y) = settling("skew", strength=1.0), double_batch(4, SIZES[0], SIZES[-1])
    ours = gradient_of(dp.RecurrentBackprop(net, tolerance=1e-13), x, y)
    assert_same(ours, unrolled(net, "skew", x, y, "mse", 1.0, damping=0.8), rtol=1e-9)
    with torch.no_grad():
        z = net(x)
    assert float(dp.RecurrentBackprop(net).backward(x, y).loss) == pytest.approx(float(value(z, y, "mse")))


def ring(seed: int = 0) -> tuple[dp.Net, dict[str, Tensor]]:
    """Two inputs, a self-loop, an edge from the top to the bottom, two outputs; and its weights by name."""
    torch.manual_seed(seed)
    g = dp.Graph()
    u, v = g.input("u"), g.input("v")
    h = g.layer("h", {u: dp.Dense(5, 4)}, "tanh")
    k = g.layer("k", {h: dp.Dense(4, 4), v: dp.Dense(2, 4, bias=False)}, "tanh")
    y = g.layer("y", {k: dp.Dense(4, 3)}, "linear")
    top, self_loop = dp.Dense(3, 4, bias=False), dp.Dense(4, 4, bias=False)
    g.connect(y, h, top)
    g.connect(k, k, self_loop)
    net = g.net(outputs=[h, y], tolerance=1e-14).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.6)
    h, k, y = net.stack
    names = {"hu": h.synapses[0], "hy": h.synapses[1], "kh": k.synapses[0], "kv": k.synapses[1]}
    return net, {**names, "kk": k.synapses[2], "yk": y.synapses[0]}


def test_inputs_outputs_and_loops_of_all_kinds():
    net, A = ring()
    x = (torch.randn(4, 5).double(), torch.randn(4, 2).double())
    targets = (torch.randn(4, 4).double(), torch.tensor([0, 2, 1, 0]))
    rule = dp.RecurrentBackprop(net, loss=["mse", "cross_entropy"], tolerance=1e-13)
    ours = gradient_of(rule, x, targets)
    h, k, y = (x[0].new_zeros(4, n) for n in (4, 4, 3))
    for _ in range(300):
        h, k, y = (
            torch.tanh(A["hu"](x[0]) + A["hy"](y)),
            torch.tanh(A["kh"](h) + A["kv"](x[1]) + A["kk"](k)),
            A["yk"](k),
        )
    loss = 0.5 * (h - targets[0]).square().sum() / 4 + torch.nn.functional.cross_entropy(y, targets[1])
    named = dict(net.named_parameters())
    theirs = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    assert_same(ours, theirs, rtol=1e-9)
    assert float(rule.backward(x, targets).loss) == pytest.approx(float(loss.detach()), abs=1e-12)
    for said, z in zip(rule.predict(x), (h, y), strict=True):
        torch.testing.assert_close(said, z.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_without_cycles_one_sweep_is_back_propagation(kind, loss):
    net, (x, y) = (double_net(SIZES), double_batch(4, SIZES[0], SIZES[-1]))
    if kind == "conv":
        net, (x, y) = small_conv_net(), image_batch(4)
    rule = dp.RecurrentBackprop(net, loss=loss)
    assert rule.backward(x, y).measures["adjoint_steps"] == 1
    assert_same(gradient_of(rule, x, y), autograd_gradient(net, loss, x, y), rtol=1e-12)


# Truncated


@pytest.mark.parametrize("top_down", TOP_DOWN)
def test_no_step_treats_the_states_below_the_output_as_constant(top_down):
    net, (x, y) = settling(top_down), double_batch(4, SIZES[0], SIZES[-1])
    ours = gradient_of(dp.RecurrentBackprop(net, loss="cross_entropy", steps=0), x, y)
    below = net.states(x)[2].detach()
    W, b = net.stack[-1].synapse.weight, net.stack[-1].synapse.bias
    dW, db = torch.autograd.grad(value(below @ W.T + b, y, "cross_entropy"), (W, b))
    torch.testing.assert_close(ours["layers.2.synapse.weight"], dW, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours["layers.2.synapse.bias"], db, rtol=0, atol=1e-12)
    rest = [g for name, g in ours.items() if not name.startswith("layers.2.")]
    assert not any(bool(g.any()) for g in rest)


def test_steps_bring_it_to_the_whole_gradient_by_a_factor_each():
    net, (x, y) = settling("free"), double_batch(4, SIZES[0], SIZES[-1])
    net.damping = 0.0
    whole = gradient_of(dp.RecurrentBackprop(net, tolerance=1e-13), x, y)
    errors = [
        relative_error(gradient_of(dp.RecurrentBackprop(net, steps=n, tolerance=1e-15), x, y), whole)
        for n in (0, 1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-2


# Chains that settle as Hopfield nets


def toy(loss: str) -> tuple[dp.Net, Tensor, Tensor]:
    return double_net(SIZES, "sigmoid"), *double_batch(4, SIZES[0], SIZES[-1])


def reference(rule: dp.Rule) -> dp.Rule:
    """The rule's, to rounding."""
    return dp.RecurrentBackprop.of_hopfield(rule.net, rule.hopfield, loss=rule.losses, tolerance=1e-13)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_reference_of_ep_is_newtons_implicit_gradient(loss):
    net, x, y = toy(loss)
    twin = Equilibrium(net, "sigmoid", x, one_hot(y, SIZES[-1], x), loss)
    rule = reference(dp.EquilibriumProp(net, loss=loss))
    assert_same(gradient_of(rule, x, y), twin.true_gradient(), rtol=1e-10)
    assert float(rule.backward(x, y).loss) == pytest.approx(twin.mean_cost(twin.solve()), abs=1e-11)
    assert [z.shape[1] for z in rule.infer(x, y).plus] == list(SIZES)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("variant", "order"), [("positive", 1), ("negative", 1), ("centred", 2)])
def test_eps_error_falls_with_the_nudge(variant, order, loss):
    net, x, y = toy(loss)
    betas, errors = (0.005, 0.01, 0.02), []
    for beta in betas:
        rule = dp.EquilibriumProp(net, loss=loss, variant=variant, beta=beta, **SETTLED)
        errors.append(relative_error(rule.gradients(x, y), reference(rule).gradients(x, y)))
    assert slope(betas, errors) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("pool", ["softmax", "max"])
def test_pools_are_differentiated_in_the_feedback_too(pool, loss):
    net, (x, y) = small_conv_net("sigmoid", pool=pool), image_batch(3)
    with torch.no_grad():
        for p in net.parameters():
            p.abs_().mul_(0.2)  # where a max-pool's winner is fed what keeps it so
    rule = dp.EquilibriumProp(net, loss=loss, variant="centred", beta=1e-3, **SETTLED)
    assert relative_error(rule.gradients(x, y), reference(rule).gradients(x, y)) < 1e-5


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_chls_reference_is_autograd_through_its_unrolled_free_phase(loss):
    net, x, y = toy(loss)
    rule = dp.ContrastiveHebbian(net, loss=loss, gamma=0.5)
    W = [layer.synapse.weight for layer in net.chain]
    f = [
        torch.sigmoid,
        torch.sigmoid,
        (lambda a: torch.softmax(a, 1)) if loss == "cross_entropy" else (lambda a: a),
    ]
    z = [x, *(x.new_zeros(len(x), n) for n in SIZES[1:])]
    for _ in range(300):
        for k in range(1, 4):
            a = drive(net.chain[k - 1].synapse, z[k - 1])
            z[k] = f[k - 1](a + 0.5 * z[k + 1] @ W[k] if k < 3 else a)
    output = z[3] if loss == "mse" else drive(net.chain[2].synapse, z[2])
    named = dict(net.named_parameters())
    theirs = torch.autograd.grad(value(output, y, loss), list(named.values()))
    assert_same(reference(rule).gradients(x, y), dict(zip(named, theirs, strict=True)), rtol=1e-9)


def test_chls_gradient_is_that_of_its_own_prediction_to_first_order_in_the_gain():
    net, x, y = toy("mse")
    gammas, errors = (0.02, 0.04, 0.08), []
    for gamma in gammas:
        rule = dp.ContrastiveHebbian(net, gamma=gamma, **SETTLED)
        errors.append(relative_error(rule.gradients(x, y), reference(rule).gradients(x, y)))
    assert slope(gammas, errors) == pytest.approx(1, abs=0.1)


# Alignment


@pytest.mark.parametrize("name", list(dp.RULES))
def test_own_is_the_cosine_to_the_rules_reference(name):
    method = dp.RULES[name]
    net = double_net(SIZES, method.activation, feedback=method.feedback)
    x, y = double_batch(4, SIZES[0], SIZES[-1])
    found, rule = dp.alignment(method(net), x, y), method(net)
    cosine, norm_ratio = found
    assert (found.cosine, found.norm_ratio) == (cosine, norm_ratio)
    if name in ("lpom", "dtp"):
        assert found.own is None
        assert rule.reference() is None
    elif name in ("ep", "ep-centred", "hep", "chl"):
        truth, ours = reference(rule).gradients(x, y), rule.gradients(x, y)
        for k in range(3):
            one, other = (
                flat({n: g for n, g in t.items() if n.startswith(f"layers.{k}.")}) for t in (ours, truth)
            )
            assert found.own[k] == pytest.approx(float(one @ other / (one.norm() * other.norm())), abs=1e-6)
        assert min(found.own) > 0.85
    else:
        assert found.own == found.cosine


@pytest.mark.parametrize("top_down", TOP_DOWN)
def test_on_cycles_there_is_only_the_own_gradient(top_down):
    net, (x, y) = settling(top_down), double_batch(4, SIZES[0], SIZES[-1])
    rule = dp.DualProp(net, beta=0.1, schedule=dp.Sweep(2000, tolerance=1e-10, damping=0.5))
    found = dp.alignment(rule, x, y)
    assert found.cosine is None
    assert found.norm_ratio is None
    assert min(found.own) > 0.999
    assert dp.alignment(dp.RecurrentBackprop(net), x, y).own == pytest.approx([1, 1, 1], abs=1e-12)


def test_an_equilibrium_that_is_not_found_gives_no_angle():
    net, (x, y) = double_net(SIZES, "sigmoid"), double_batch(4, SIZES[0], SIZES[-1])
    net.sweeps = 2
    found = dp.alignment(dp.EquilibriumProp(net), x, y)
    assert all(math.isnan(c) for c in found.own)
    assert not any(math.isnan(c) for c in found.cosine)


def test_feedback_weights_of_its_own_leave_ep_without_a_reference():
    net = double_net(SIZES, "sigmoid", feedback="kolen-pollack")
    rule = dp.EquilibriumProp(net)
    assert rule.reference() is None
    with refused(re.escape("net: has kolen-pollack feedback, but a Hopfield net's weights are symmetric")):
        dp.RecurrentBackprop.of_hopfield(net, rule.hopfield)


# Bad input


def test_back_propagation_on_a_cycle_names_who_can():
    with refused("net: edge layer2 -> layer1 closes a cycle, on which Backprop cannot run; rbp and dp can"):
        dp.Backprop(settling("free"))


def test_an_adjoint_that_does_not_settle_says_so():
    net, (x, y) = settling("free"), double_batch(4, SIZES[0], SIZES[-1])
    net.tolerance, net.sweeps = 0.9, 3
    with refused("the adjoint states do not settle within 3 sweeps", dp.DivergenceError):
        dp.RecurrentBackprop(net).backward(x, y)
