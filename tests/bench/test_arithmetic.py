"""Operations counted from shapes: by hand, and as PyTorch counts them in the plain module."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import dualprop as dp
from dualprop.bench import arithmetic
from dualprop.bench.plain import mlp, vgg


def test_dense_by_hand():
    costs = arithmetic.products(dp.nets.mlp([4, 3, 2]), (4,), batch_size=5)
    assert costs == [2 * 5 * 4 * 3, 2 * 5 * 3 * 2]
    forward, feedback, gradients = 120 + 60, 60, 120 + 60
    assert arithmetic.needed(costs) == forward + feedback + gradients


def test_convolutions_by_hand():
    net = dp.nets.vgg([[2], [3]], [4], num_classes=2, in_shape=(1, 4, 4))
    first = 16 * 2 * (1 * 9)  # multiply-adds a sample: places x out channels x (in channels x kernel)
    second = 4 * 3 * (2 * 9)  # after one pool
    assert arithmetic.products(net, (1, 4, 4), batch_size=2) == [2 * 2 * n for n in (first, second, 3 * 4, 4 * 2)]


@pytest.mark.parametrize(
    ("net", "plain", "in_shape"),
    [
        (dp.nets.mlp([7, 6, 5, 10]), mlp((7,), [6, 5]), (7,)),
        (dp.nets.vgg([[2, 3], [4]], [5], 10, (3, 8, 8)), vgg((3, 8, 8), [5], [[2, 3], [4]]), (3, 8, 8)),
    ],
)
def test_as_pytorch_counts_in_the_plain_module(net, plain, in_shape):
    x, y = torch.randn(3, *in_shape), torch.tensor([1, 0, 1])
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(plain(x), y).backward()
    costs = arithmetic.products(net, in_shape, batch_size=3)
    assert arithmetic.needed(costs) == counter.get_total_flops()


@pytest.mark.parametrize("name", dp.RULES)
def test_what_a_rule_makes_is_what_it_says_it_makes(name):
    """With equal layers: its count of products, and a weight gradient for each layer and update."""
    net = dp.nets.mlp([6, 6, 6, 6], feedback=dp.RULES[name].feedback)
    rule = dp.RULES[name](net, loss="cross_entropy")
    x, y = torch.randn(4, 6), torch.randint(6, (4,))
    costs = arithmetic.products(net, (6,), batch_size=4)
    steps = []
    operations = arithmetic.made(net, costs, lambda: steps.extend(rule.iterate(x, y)))
    counted = [step.products + len(net) for step in steps]
    expected = sum(counted) * 2 * 4 * 36 if steps[0].products else arithmetic.needed(costs)
    assert operations == expected
    assert not any(name in vars(layer.synapse) for layer in net.chain for name in arithmetic.PRODUCTS)


@pytest.mark.parametrize("name", ["bp", "dp", "kp-dp", "dp-t"])
def test_one_sweep_makes_no_product_twice(name):
    net = dp.nets.vgg([[2], [3]], [4], in_shape=(1, 4, 4), feedback=dp.RULES[name].feedback)
    rule = dp.RULES[name](net, loss="cross_entropy")
    costs = arithmetic.products(net, (1, 4, 4), batch_size=2)
    x, y = torch.randn(2, 1, 4, 4), torch.tensor([3, 1])
    assert arithmetic.made(net, costs, lambda: rule.backward(x, y)) == arithmetic.needed(costs)


def test_watching_ends_where_a_step_fails():
    net = dp.nets.mlp([4, 3, 2])
    with pytest.raises(dp.DualpropError):
        arithmetic.made(net, [1, 1], lambda: dp.DualProp(net).backward(torch.zeros(2, 5), torch.zeros(2, 2)))
    assert not any(name in vars(layer.synapse) for layer in net.chain for name in arithmetic.PRODUCTS)
