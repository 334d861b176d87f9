"""The operations of a step: by hand, and as PyTorch counts them in the plain module."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import dualprop as dp
from dualprop.studies.bench import arithmetic
from dualprop.studies.bench.arithmetic import Arithmetic


def test_dense_by_hand():
    forward, feedback, gradients = 120 + 60, 60, 120 + 60
    needed = arithmetic.needed(dp.nets.mlp([4, 3, 2]), (4,), batch_size=5)
    assert needed == Arithmetic(5, forward + feedback + gradients)


def test_convolutions_by_hand():
    net = dp.nets.vgg([[2], [3]], [4], num_classes=2, in_shape=(1, 4, 4))
    first = 16 * 2 * (1 * 9)  # multiply-adds a sample: places x out channels x (in channels x kernel)
    second = 4 * 3 * (2 * 9)  # after one pool
    three_each = 3 * (first + second + 3 * 4 + 4 * 2) - first  # but nothing is fed back into the input
    assert arithmetic.needed(net, (1, 4, 4), batch_size=2) == Arithmetic(11, 2 * 2 * three_each)


@pytest.mark.parametrize(
    ("net", "in_shape"),
    [(dp.nets.mlp([7, 6, 5, 10]), (7,)), (dp.nets.vgg([[2, 3], [4]], [5], 10, (3, 8, 8)), (3, 8, 8))],
)
def test_as_pytorch_counts_in_the_plain_module(net, in_shape):
    x, y = torch.randn(3, *in_shape), torch.tensor([1, 0, 1])
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net.plain()(x), y).backward()
    assert arithmetic.needed(net, in_shape, batch_size=3).operations == counter.get_total_flops()


SIDE, BATCH = 6, 4


def counted(name, **settings):
    """What a rule says of its products and what is counted, on three equal dense layers."""
    method = dp.RULES[name]
    net = dp.nets.mlp([SIDE] * 4, activation=method.activation, feedback=method.feedback)
    rule = method(net, loss="cross_entropy", **settings)
    x, y = torch.randn(BATCH, SIDE), torch.randint(SIDE, (BATCH,))
    steps = []
    made = arithmetic.made(lambda: steps.extend(rule.iterate(x, y)), BATCH)
    return sum(step.products for step in steps), len(steps), made


DYADIC = [name for name, method in dp.RULES.items() if issubclass(method.rule, dp.DualProp)]


@pytest.mark.parametrize("name", DYADIC)
def test_what_a_rule_makes_is_what_it_says_it_makes(name):
    """With equal layers: its count of products, and a weight gradient for each layer and update."""
    products, updates, made = counted(name)
    assert products > 0
    assert made.products == products + 3 * updates
    assert made.operations == made.products * 2 * BATCH * SIDE**2


def test_autograd_makes_no_product_twice():
    assert counted("bp")[2] == Arithmetic(8, 8 * 2 * BATCH * SIDE**2)


@pytest.mark.parametrize("name", ["bp", "dp", "kp-dp", "dp-t"])
def test_one_sweep_makes_no_product_twice(name):
    net = dp.nets.vgg([[2], [3]], [4], in_shape=(1, 4, 4), feedback=dp.RULES[name].feedback)
    rule = dp.RULES[name](net, loss="cross_entropy")
    x, y = torch.randn(2, 1, 4, 4), torch.tensor([3, 1])
    assert arithmetic.made(lambda: rule.backward(x, y), 2) == arithmetic.needed(net, (1, 4, 4), 2)


def test_several_copies_of_a_batch_are_several_products():
    """Three rows of a batch of two, once; two more through a synapse that the net does not hold."""
    net, other = dp.nets.mlp([4, 3]), dp.Dense(4, 3)

    def step():
        net.chain[0].synapse.affine(torch.zeros(6, 4))
        other.outer(torch.zeros(4, 3), torch.zeros(4, 4))

    with torch.no_grad():
        assert arithmetic.made(step, 2) == Arithmetic(5, 5 * 2 * 2 * 12)


def test_a_gradient_is_one_product_with_its_bias_and_feedback_weights():
    net = dp.nets.mlp([4, 4, 3], feedback="kolen-pollack")
    synapse = net.chain[1].synapse
    made = arithmetic.made(lambda: synapse.add_grad(torch.ones(2, 3), torch.ones(2, 4)), 2)
    assert made == Arithmetic(1, 2 * 2 * 12)


def test_target_propagation_s_own_maps_count():
    """F(p + dx), B v and two outer products in each of K steps for each of two maps; then what dp makes."""
    products, _, made = counted("dtp", K=3)
    assert made.products == 8 + 2 * 3 * 4
    assert made.products == products + 3


@pytest.mark.parametrize(
    ("name", "settings", "copies"),
    [("ep", {}, 1), ("ep-centred", {}, 2), ("hep", {"N": 2}, 2), ("hep", {"N": 4}, 4), ("hep", {"N": 8}, 8)],
)
@pytest.mark.parametrize("order", ["synchronous", "even-odd"])
def test_what_a_step_of_a_relaxation_costs(name, settings, copies, order):
    """Cross-entropy reads out: two of three layers relax, with a drive and a feedback between them.

    A free step makes both; a nudged one reads out and sends down as well, for every sign and point on the circle,
    of which the complex ones of the upper half count twice.
    """
    settings = {**settings, "order": order, "tolerance": 0.0}
    T1, T2 = 6, 8
    plain, longer, more = (
        counted(name, T1=first, T2=second, **settings) for first, second in ((T1, T2), (T1 + 5, T2), (T1, T2 + 5))
    )
    assert [longer[0] - plain[0], longer[2].products - plain[2].products] == [5 * 2, 5 * 2]
    assert more[0] - plain[0] == 5 * 4 * copies
    assert more[2].products - plain[2].products == 5 * 4 * copies
    assert plain[2].operations == plain[2].products * 2 * BATCH * SIDE**2
