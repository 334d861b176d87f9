"""Ready-made nets that are graphs: residual, attention, top-down."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import dualprop as dp
from tests.oracles.refused import refused
from tests.slow import but_slow


def residual(activation: str = "tanh") -> tuple[dp.Net, torch.Tensor]:
    net = dp.nets.resnet8(in_shape=(3, 8, 8), width=8, activation=activation).double()
    return net, torch.randn(4, 3, 8, 8, dtype=torch.float64)


def attention(activation: str = "tanh") -> tuple[dp.Net, torch.Tensor]:
    net = dp.nets.vit_tiny(in_shape=(3, 8, 8), width=12, depth=2, activation=activation).double()
    return net, torch.randn(4, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("make", [residual, attention])
def test_the_error_against_back_propagation_is_of_second_order(make):
    net, x = make()
    y = torch.randint(10, (4,))
    true = torch.cat([g.flatten() for g in dp.Backprop(net, loss="cross_entropy").gradients(x, y).values()])
    errors = []
    for beta in (1.0, 0.1, 0.01):
        ours = dp.DualProp(net, loss="cross_entropy", beta=beta).gradients(x, y).values()
        errors.append(float((torch.cat([g.flatten() for g in ours]) - true).norm() / true.norm()))
    assert math.log10(errors[0] / errors[2]) / 2 == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("make", [residual, attention])
def test_with_relu_every_layer_points_where_back_propagation_does(make):
    net, x = make("relu")
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.01)
    assert min(dp.alignment(rule, x, torch.randint(10, (4,))).cosine) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["parallel", f"random:{4 * 6**2}"])
def test_in_any_order_a_residual_net_learns_as_by_back_propagation(schedule):
    digits = dp.data.load("digits")
    x, y = digits.train.images[:100].float() / 255, digits.train.labels[:100]
    net = dp.nets.resnet8(10, (1, 8, 8), stages=2, width=8)
    rule = dp.DualProp(net, loss="cross_entropy", schedule=schedule)
    assert (len(net), net.wiring.is_chain) == (6, False)
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=1e-2), []
    for step in range(12):
        if step % 4 == 0:
            assert min(dp.alignment(rule, x, y).cosine) > 0.9
        losses.append(float(rule.backward(x, y).loss))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("top_down", ["symmetric", "skew", "free"])
def test_a_hopfield_net_predicts_its_free_fixed_point_and_learns(top_down):
    net = dp.nets.hopfield_mlp([6, 9, 8, 4], top_down=top_down, strength=0.3).double()
    net.tolerance = 1e-12
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.randint(4, (5,))
    states = net.states(x)
    for k, layer in enumerate(net.stack, 1):
        drives = (states[net.wiring.edges[e][0]] for e in net.wiring.into[k])
        torch.testing.assert_close(layer(*drives), states[k], rtol=0, atol=1e-9)
    schedule = dp.Sweep(300, tolerance=1e-10, damping=0.3)
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.1, schedule=schedule)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    losses = []
    for _ in range(10):
        step = rule.backward(x, y)
        assert step.measures["residual"] <= 1e-10
        losses.append(float(step.loss))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("top_down", but_slow(["symmetric", "skew", "free"], "symmetric", "free"))
def test_as_it_comes_a_hopfield_net_settles_in_float32_trained_or_not(top_down):
    digits = dp.data.load("digits")
    x, y = digits.train.images.float().flatten(1) / 255, digits.train.labels
    settings = dp.recipes.load("mnist-hopfield")
    net = dp.nets.hopfield_mlp([64, 64, 64, 10], top_down=top_down)
    rule = dp.DualProp(net, loss=settings.loss, **settings.rule_settings)
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr)
    rule.predict(x)
    for step in range(42):
        part = slice(100 * (step % 14), 100 * (step % 14 + 1))
        assert rule.backward(x[part], y[part]).measures["steps"] < 30
        optimizer.step()
        optimizer.zero_grad()
    accuracy = (rule.predict(x).argmax(1) == y).float().mean()
    assert accuracy > 0.8


def test_a_fixed_point_is_found_in_full_precision_where_products_are_not():
    net, x = dp.nets.hopfield_mlp([6, 9, 4]), torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        low = dp.DualProp(net).predict(x)
    assert torch.equal(low, net(x))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_rounding_moves_does_not_grow(precision):
    """A tolerance below it is reached on no batch, and none of them says that its states diverge."""
    schedule = dp.Sweep(40, tolerance=1e-12, damping=0.25)
    net = dp.nets.hopfield_mlp([64, 32, 32, 10], top_down="skew")
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.5, schedule=schedule)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        for _ in range(8):
            step = rule.backward(torch.rand(20, 64), torch.randint(10, (20,)))
            assert (step.measures["steps"], step.measures["residual"] > 0) == (40, True)


def test_attention_is_pytorch_s():
    net = dp.nets.vit_tiny(in_shape=(3, 8, 8), width=12, heads=3, depth=1).double()
    module, z = net.stack[1].synapses[1].module, torch.randn(2, 4, 12, dtype=torch.float64)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    theirs.in_proj_weight, theirs.in_proj_bias = module.read.weight, module.read.bias
    theirs.out_proj.weight, theirs.out_proj.bias = module.write.weight, module.write.bias
    normed = module.norm(z)
    torch.testing.assert_close(module(z), theirs(normed, normed, normed)[0])


def test_tied_weights_are_one_parameter():
    tied, free = (len(list(dp.nets.hopfield_mlp([6, 9, 4], top_down=t).parameters())) for t in ("skew", "free"))
    assert (tied, free) == (4, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dp.nets.resnet8(in_shape=(3, 30, 30)), r"^in_shape=\(3, 30, 30\).*the side a multiple of 4"),
        (lambda: dp.nets.resnet8(in_shape=(3, 32, 28)), r"^in_shape=\(3, 32, 28\)"),
        (lambda: dp.nets.resnet8(width=12), "^width=12: must be a multiple of 8"),
        (lambda: dp.nets.resnet8(feedback="kolen-pollack"), "^feedback='kolen-pollack'"),
        (lambda: dp.nets.vit_tiny(in_shape=(3, 30, 30)), r"^in_shape=\(3, 30, 30\)"),
        (lambda: dp.nets.vit_tiny(width=11), "^width=11: must be a multiple of heads=2"),
        (lambda: dp.nets.hopfield_mlp([784]), r"^sizes=\[784\]"),
        (lambda: dp.nets.hopfield_mlp([784, 10, 10], top_down="skewed"), "^unknown top-down edge 'skewed'"),
        (lambda: dp.Backprop(dp.nets.hopfield_mlp([6, 5, 4])), "^net: edge layer2 -> layer1 closes a cycle"),
        (lambda: dp.RULES["dtp"](dp.nets.resnet8()), "^net: DifferenceTargetProp runs on chains"),
        (
            lambda: dp.RULES["ep"](dp.nets.hopfield_mlp([6, 5, 4])),
            r"^net: edge layer2 -> layer1: joins.*strength=1",
        ),
    ],
)
def test_refusals(make, message):
    with refused(message):
        make()


@pytest.mark.parametrize("method", ["ep", "ep-centred"])
def test_a_residual_net_under_ep_says_that_it_does_not_settle(method):
    """Group norm is no affine map: what comes down it is as large as what it divides by is small."""
    net = dp.nets.resnet8(in_shape=(3, 8, 8), width=8, stages=2, activation="shifted-sigmoid")
    rule = dp.RULES[method](net, loss="cross_entropy", T1=20, T2=2)
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match=r"^T1=20: the free phase has not settled.*no affine map, as x -> stem"):
        rule.backward(x, y)


def test_edges_the_same_way_are_terms_of_an_energy_each():
    net = dp.nets.vit_tiny(in_shape=(3, 8, 8), width=8, depth=1, activation="shifted-sigmoid")
    hopfield = dp.RULES["ep"](net).hopfield
    assert [(t.source, t.target) for t in hopfield.terms] == list(net.wiring.edges)


def test_a_chain_that_does_not_fit_names_the_edge():
    net = dp.Net([dp.Layer(dp.Conv2d(1, 2, 3)), dp.Layer(dp.Dense(10, 4), "linear")])
    with refused("^net: edge layer1 -> layer2: .*72"):
        dp.DualProp(net).backward(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["dp", "ms-dp", "l-dp", "p-dp"])
def test_an_inference_that_need_not_settle_is_warned_of(name):
    net = dp.nets.hopfield_mlp([6, 5, 4])
    with pytest.warns(UserWarning, match=r"^schedule=.*Sweep\(200, tolerance=1e-6\), or sweep:200:1e-6"):
        dp.RULES[name](net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dp.RULES[name](net, schedule="sweep:200:1e-6")
        dp.RULES[name](dp.nets.mlp([6, 5, 4]))
