"""The number of threads: from the sizes of the products alone."""

import pytest
import torch

import dualprop as dp
from dualprop.training.threads import SHARE, choose, computing_in, largest_product

CASES = {
    "dense": (lambda: dp.nets.mlp([6, 9, 7]), (6,), 9 * 7),
    "feedback of its own": (lambda: dp.nets.mlp([6, 9, 7], feedback="kolen-pollack"), (6,), 9 * 7),
    "convolution": (
        # 3 x 3 kernels at 8 x 8 places, then, pooled in front, a dense layer of 4 x 4 places
        lambda: dp.nets.vgg([[5]], [], num_classes=10, in_shape=(2, 8, 8)),
        (2, 8, 8),
        max(5 * 2 * 9 * 64, 5 * 16 * 10),
    ),
    "no weights": (
        lambda: dp.Net([dp.Layer(dp.Affine(torch.nn.Upsample(scale_factor=2)), "linear")]),
        (1, 4, 4),
        0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_largest_product(name):
    make, in_shape, expected = CASES[name]
    assert largest_product(make(), in_shape) == expected


def test_every_thread_has_its_share_of_the_largest_product(monkeypatch):
    """64 x 128 multiply-adds a sample; PyTorch has 3 threads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    net = dp.nets.mlp([64, 128, 10])
    one = SHARE // (64 * 128)
    batches = (1, one, 2 * one - 1, 2 * one, 3 * one, 9 * one)
    assert [choose("auto", net, (64,), batch) for batch in batches] == [1, 1, 1, 2, 3, 3]
    assert [choose(n, net, (64,), 1) for n in (1, 5)] == [1, 5]


def test_the_number_is_put_back():
    before = torch.get_num_threads()
    with computing_in(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
