"""The convolutional net of equilibrium propagation: shapes, parameters, weights, and every rule on it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import dualprop as dp
from tests.oracles.builders import gradient_of, image_batch
from tests.oracles.refused import refused

IN_SHAPE = (2, 9, 8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(num_classes: int = 3, in_shape=IN_SHAPE, activation: str = "half-hard-sigmoid", **options) -> dp.Net:
    options = {"channels": (4, 5), "padding": (1, 0), **options}
    return dp.nets.hopfield_cnn(num_classes, in_shape, activation, **options)


def test_the_published_net():
    with torch.device("meta"):
        net = dp.nets.hopfield_cnn()
        named = dp.NETS["hopfield_cnn"]((3, 32, 32), 10, hidden=None, activation="relu", feedback="kolen-pollack")
    shapes = [(3, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1), (10,)]
    assert net.shapes((3, 32, 32)) == named.shapes((3, 32, 32)) == shapes
    parameters = 3584 + 295_168 + 1_180_160 + 2_359_808 + 5130  # by hand
    assert sum(p.numel() for p in net.parameters()) == parameters
    own = parameters - 3584 - (256 + 512 + 512 + 10)  # feedback weights in all but the first, none for biases
    assert sum(p.numel() for p in named.parameters()) == parameters + own
    assert [layer.potential for layer in net.chain] == [dp.POTENTIALS["half-hard-sigmoid"]] * 4 + [
        dp.POTENTIALS["linear"]
    ]
    assert named.chain[0].potential == dp.POTENTIALS["relu"]
    assert named.feedback == "kolen-pollack"
    assert named.chain[0].synapse.feedback_pairs() == []


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_the_forward_pass_is_the_ordinary_network(pool):
    net, (x, _) = small(pool=pool, generator=seeded(0)).double(), image_batch(3, IN_SHAPE)
    for layer in net.chain:
        torch.nn.init.uniform_(layer.synapse.core.bias, -0.3, 0.3)
    w = [(layer.synapse.core.weight, layer.synapse.core.bias) for layer in net.chain]
    pooled = {"max": F.max_pool2d, "avg": F.avg_pool2d}[pool]
    z = (pooled(F.conv2d(x, *w[0], padding=1), 2) / 2).clamp(0, 1)
    z = (pooled(F.conv2d(z, *w[1]), 2) / 2).clamp(0, 1)
    expected = z.flatten(1) @ w[2][0].T + w[2][1]
    torch.testing.assert_close(net(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected)


def test_weights_are_uniform_by_fan_in_and_biases_zero():
    net = small(in_shape=(3, 18, 18), channels=(64, 96), feedback="kolen-pollack", generator=seeded(0))
    for layer in net.chain:
        synapse = layer.synapse.core
        for w in (synapse.weight, synapse.feedback):
            if w is not None:
                bound = 1 / math.sqrt(w[0].numel())
                assert 0.99 * bound < float(w.detach().abs().max()) <= bound * (1 + 1e-6)
                assert float(w.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not synapse.bias.any()


def test_both_kinds_of_feedback_start_from_the_same_weights():
    before = torch.get_rng_state()
    plain, own = (small(feedback=kind, generator=seeded(3)) for kind in ("symmetric", "kolen-pollack"))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(plain.chain, own.chain, strict=True):
        assert torch.equal(a.synapse.core.weight, b.synapse.core.weight)
    assert len(dp.feedback_cosines(own)) == len(own) - 1
    assert all(abs(c) < 0.5 for c in dp.feedback_cosines(own))


@pytest.mark.parametrize("name", dp.RULES)
def test_every_rule_runs_on_it(name):
    """With the activation and the pool that the rule's nets have."""
    method = dp.RULES[name]
    net = small(activation=method.activation, feedback=method.feedback, pool=method.pool, generator=seeded(0))
    rule, (x, y) = method(net.double()), image_batch(4, IN_SHAPE)
    gradient = gradient_of(rule, x, y)
    assert set(gradient) == {n for n, _ in net.named_parameters()}
    for g in gradient.values():
        assert torch.isfinite(g).all()
        assert g.abs().max() > 0
    assert rule.predict(x).shape == (4, 3)


@pytest.mark.parametrize("name", ["vgg_like", "hopfield_cnn"])
def test_the_pool_is_chosen_by_name(name):
    kinds = {"max": dp.MaxPool2d, "avg": dp.AvgPool2d, "softmax": dp.SoftmaxPool2d}
    assert dp.NETS[name].pools
    with torch.device("meta"):
        for pool, kind in {None: dp.MaxPool2d, **kinds}.items():
            net = dp.NETS[name]((3, 32, 32), 10, hidden=None, pool=pool)
            pools = [p for layer in net.chain for p in (layer.synapse.core.pool, layer.synapse.behind) if p]
            assert len(pools) == {"vgg_like": 5, "hopfield_cnn": 4}[name]
            assert all(type(p) is kind for p in pools)


def test_pools_of_ones_own():
    pool = dp.SoftmaxPool2d(3, stride=2, temperature=10)
    net = small(in_shape=(2, 11, 13), pool=pool)
    assert net.shapes((2, 11, 13)) == [(2, 11, 13), (4, 5, 6), (5, 1, 1), (3,)]
    assert net.chain[0].synapse.behind is pool
    vgg = dp.nets.vgg([[4], [5]], [], 3, (2, 11, 13), pool=pool)
    assert vgg.shapes((2, 11, 13)) == [(2, 11, 13), (4, 11, 13), (5, 5, 6), (3,)]
    assert vgg.chain[-1].synapse.in_features == 5 * 2 * 2


@pytest.mark.parametrize(("padding", "side"), [((1, 1), 4), ((1, 0), 8), ((0, 0), 10), ((2, 0), 6), ((3, 2), 1)])
def test_the_smallest_image_is_as_it_says(padding, side):
    assert small(in_shape=(2, side, side), padding=padding).shapes((2, side, side))[-1] == (3,)
    if side > 1:
        with pytest.raises(dp.DualpropError, match=rf"^in_shape=.* at least {side} x {side} for 2 pools"):
            small(in_shape=(2, side, side - 1), padding=padding)


BAD = [
    (lambda: dp.nets.hopfield_cnn(in_shape=(3, 31, 32)), r"^in_shape=\(3, 31, 32\): .*32 x 32 for 4 pools"),
    (lambda: small(in_shape=(0, 9, 8)), r"^in_shape"),
    (lambda: small(num_classes=0), r"^num_classes=0"),
    (lambda: small(channels=()), r"^channels=\[\]"),
    (lambda: small(channels=(4,)), r"^padding=\[1, 0\]: .*channels=\[4\]"),
    (lambda: small(channels=(4, 0)), r"^channels=\(4, 0\): must be a list of whole numbers"),
    (lambda: small(padding=(1,)), r"^padding=\[1\]: .*channels=\[4, 5\]"),
    (lambda: small(padding=(1, -1)), r"^padding=\(1, -1\): must be a list of whole numbers of at least 0"),
    (lambda: small(padding=(1, 0.5)), r"^padding=\(1, 0.5\)"),
    (lambda: small(pool="mean"), r"^unknown pool 'mean'"),
    (lambda: small(pool=torch.nn.MaxPool2d(2)), r"^pool: of type MaxPool2d"),
    (lambda: small(activation="swish"), r"^unknown .*'swish'"),
    (lambda: small(feedback="none"), r"^unknown feedback 'none'"),
    (lambda: dp.NETS["hopfield_cnn"]((3, 32, 32), 10, hidden=[64]), r"^hidden=\[64\]: hopfield_cnn"),
    (lambda: dp.NETS["mlp"]((784,), 10, hidden=None, pool="max"), r"^pool='max': mlp has no pooling"),
]


@pytest.mark.parametrize(("make", "match"), BAD, ids=[match for _, match in BAD])
def test_what_is_refused_in_one_line(make, match):
    with refused(match):
        make()
