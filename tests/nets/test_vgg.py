"""VGGs: the shapes of their layers, their parameters, their initial weights and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

import dualprop as dp
from tests.oracles.refused import refused

DENSE = [(4096,), (4096,), (10,)]
NAMED = {  # shapes above each layer for 3 x 32 x 32, and all parameters, both by hand
    "vgg_like": (
        [(128, 32, 32), (128, 16, 16), (256, 8, 8), (256, 4, 4), (512, 2, 2), (10,)],
        3584 + 147_584 + 295_168 + 590_080 + 1_180_160 + 5130,
    ),
    "vgg11": (
        [(64, 32, 32), (128, 16, 16), (256, 8, 8), (256, 8, 8), *[(512, 4, 4)] * 2, *[(512, 2, 2)] * 2, *DENSE],
        9_220_480 + 2_101_248 + 16_781_312 + 40_970,
    ),
    "vgg16": (
        [
            *[(64, 32, 32)] * 2,
            *[(128, 16, 16)] * 2,
            *[(256, 8, 8)] * 3,
            *[(512, 4, 4)] * 3,
            *[(512, 2, 2)] * 3,
            *DENSE,
        ],
        14_714_688 + 2_101_248 + 16_781_312 + 40_970,
    ),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**options) -> dp.Net:
    return dp.nets.vgg([[4, 5], [6]], [7], 3, (2, 9, 8), **options)


@pytest.mark.parametrize("name", NAMED)
def test_published_nets(name):
    shapes, parameters = NAMED[name]
    with torch.device("meta"):
        net = getattr(dp.nets, name)()
        own = dp.NETS[name]((3, 32, 32), 10, hidden=None, feedback="kolen-pollack")
    assert net.shapes((3, 32, 32)) == [(3, 32, 32), *shapes]
    assert sum(p.numel() for p in net.parameters()) == parameters
    weights = sum(layer.synapse.weight.numel() for layer in net.chain[1:])
    assert sum(p.numel() for p in own.parameters()) == parameters + weights
    assert [layer.potential for layer in net.chain] == [dp.POTENTIALS["relu"]] * (len(net) - 1) + [
        dp.POTENTIALS["linear"]
    ]
    for layer in net.chain:
        if isinstance(layer.synapse, dp.Conv2d):
            assert layer.synapse.kernel_size == 3
            assert layer.synapse.geometry == (1, 1, 1, 1)


@pytest.mark.parametrize("name", NAMED)
def test_classes_and_images_of_other_sizes(name):
    with torch.device("meta"):
        net = getattr(dp.nets, name)(num_classes=100, in_shape=(1, 64, 95), activation="tanh")
    shapes = net.shapes((1, 64, 95))
    assert shapes[-1] == (100,)
    assert (512, 4, 5) in shapes  # before the last pool, which leaves 2 x 2
    first = next(layer.synapse for layer in net.chain if isinstance(layer.synapse, dp.Dense))
    assert first.in_features == 512 * 2 * 2
    assert net.chain[0].potential == dp.POTENTIALS["tanh"]


def test_the_forward_pass_is_the_ordinary_network():
    """A pool after each group of convolutions, and nothing behind the last layer."""
    net = small(generator=seeded(0)).double()
    x = torch.randn(3, 2, 9, 8, dtype=torch.float64)
    w = list(net.parameters())

    def conv(z, k):
        return torch.nn.functional.conv2d(z, w[2 * k], w[2 * k + 1], padding=1).relu()

    def pool(z):
        return torch.stack(
            [z[:, :, i : 2 * (z.shape[2] // 2) : 2, j : 2 * (z.shape[3] // 2) : 2] for i in (0, 1) for j in (0, 1)]
        ).amax(0)

    z = pool(conv(conv(x, 0), 1))
    z = pool(conv(z, 2)).flatten(1)
    expected = (z @ w[6].T + w[7]).relu() @ w[8].T + w[9]
    torch.testing.assert_close(net(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
def test_weights_are_lecun_normal_and_biases_zero(feedback):
    net = dp.nets.vgg([[32], [64]], [150], 3, (3, 8, 8), feedback=feedback, generator=seeded(0))
    for layer in net.chain[:-1]:
        fan_in = math.prod(layer.synapse.weight.shape[1:])
        for w in (layer.synapse.weight, layer.synapse.feedback):
            if w is not None:
                tolerance = 4 / math.sqrt(2 * w.numel())  # four standard errors of a standard deviation
                assert float(w.detach().std()) == pytest.approx(1 / math.sqrt(fan_in), rel=tolerance)
                assert float(w.detach().abs().max()) <= 2 / math.sqrt(fan_in) / 0.87962566103423978 * (1 + 1e-6)
    assert all(not layer.synapse.bias.any() for layer in net.chain)


def test_both_kinds_of_feedback_start_from_the_same_weights():
    plain, own = (small(feedback=kind, generator=seeded(3)) for kind in ("symmetric", "kolen-pollack"))
    for a, b in zip(plain.chain, own.chain, strict=True):
        assert torch.equal(a.synapse.weight, b.synapse.weight)
        assert a.synapse.feedback is None
    assert own.chain[0].synapse.feedback is None
    for layer in own.chain[1:]:
        w, b = layer.synapse.weight.detach(), layer.synapse.feedback.detach()
        assert b.shape == w.shape
        assert abs(float(torch.cosine_similarity(w.flatten(), b.flatten(), dim=0))) < 0.5
    assert (plain.feedback, own.feedback) == ("symmetric", "kolen-pollack")
    assert dp.feedback_cosines(plain) == ()
    assert len(dp.feedback_cosines(own)) == len(own) - 1


def test_an_explicit_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    a, b, c = (small(feedback="kolen-pollack", generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for p, q, r in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.ndim == 1 or not torch.equal(p, r)


BAD = [
    (lambda: dp.nets.vgg16(in_shape=(3, 31, 32)), r"^in_shape=\(3, 31, 32\): .*32 x 32 for 5 pools"),
    (lambda: dp.nets.vgg11(in_shape=(3, 32, 16)), r"^in_shape"),
    (lambda: dp.nets.vgg_like(in_shape=(0, 32, 32)), r"^in_shape"),
    (lambda: dp.nets.vgg_like(in_shape=(32, 32)), r"^in_shape"),
    (lambda: dp.nets.vgg_like(num_classes=0), r"^num_classes=0"),
    (lambda: dp.nets.vgg_like(num_classes=2.5), r"^num_classes=2.5"),
    (
        lambda: dp.nets.vgg([[4]], [0], 3, (2, 8, 8)),
        r"^dense=\[0\]: must be a list of whole numbers of at least 1",
    ),
    (
        lambda: dp.nets.vgg([[0]], [4], 3, (2, 8, 8)),
        r"^groups=\[\[0\]\]: must be a list of lists of whole numbers of at least 1",
    ),
    (lambda: dp.NETS["vgg16"]((3, 32, 32), 10, hidden=[64]), r"^hidden=\[64\]: vgg16"),
    (lambda: dp.NETS["vgg_like"]((784,), 10, hidden=None), r"^in_shape=\(784,\)"),
]


@pytest.mark.parametrize(("make", "match"), BAD, ids=[match for _, match in BAD])
def test_what_is_refused_in_one_line(make, match):
    with refused(match):
        make()
