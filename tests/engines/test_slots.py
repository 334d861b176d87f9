"""States kept from batch to batch: by hand, and warm starts of the relaxing rules by twins that remember."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dualprop as dp
from dualprop.engines.slots import Slots
from tests.oracles.builders import (
    assert_identical,
    assert_same,
    double_batch,
    double_net,
    gradient_of,
    image_batch,
    image_net,
    relative_error,
)
from tests.oracles.hopfield_twin import Published, one_hot
from tests.oracles.refused import refused
from tests.rules.conformance import nothing_changes
from tests.rules.test_equilibrium_prop import front

# By hand


def rows(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def one_neuron_each(layers: int) -> Slots:
    return Slots(dp.Net([dp.Layer(dp.Dense(1, 1)) for _ in range(layers)]))


def test_a_batch_starts_where_the_one_before_left_its_slots():
    slots = one_neuron_each(2)
    assert slots.start(rows(0, 0)) == []
    slots.keep([rows(1, 2, 3), rows(4, 5, 6)])
    for n, ones, others in ((3, [1, 2, 3], [4, 5, 6]), (2, [1, 2], [4, 5]), (5, [1, 2, 3, 0, 0], [4, 5, 6, 0, 0])):
        assert [z[:, 0].tolist() for z in slots.start(torch.zeros(n, 1))] == [ones, others]
    slots.keep([rows(7, 8), rows(9, 10)])  # a smaller batch leaves the last slot as it is
    assert [z[:, 0].tolist() for z in slots.start(rows(0, 0, 0))] == [[7, 8, 3], [9, 10, 6]]
    slots.keep([rows(1, 1, 1, 1), rows(2, 2, 2, 2)])
    assert [len(z) for z in slots.kept] == [4, 4]


def test_slots_take_the_type_of_the_batch_and_do_not_change_what_they_gave():
    slots = one_neuron_each(1)
    slots.keep([rows(1, 2, 3)])
    (given,) = slots.start(rows(0, 0).double())
    assert given.dtype == torch.float64
    first = slots.kept[0]
    slots.keep([rows(5)])
    assert first[:, 0].tolist() == [1, 2, 3]
    assert given[:, 0].tolist() == [1, 2]


# Warm starts

BATCHES = (4, 2, 6, 3, 6)
SIZES = (5, 6, 4, 3)
Contrast = Callable[[Published, list[Tensor]], dict[str, Tensor]]

WARM: dict[str, tuple[Callable[..., dp.Rule], float, Contrast]] = {
    "ep": (
        lambda net, **s: dp.EquilibriumProp(net, beta=0.3, **s),
        1.0,
        lambda twin, free: twin.ep(free, 4, 0.3, 0),
    ),
    "ep-centred": (
        lambda net, **s: dp.EquilibriumProp(net, variant="centred", beta=0.3, **s),
        1.0,
        lambda twin, free: twin.ep(free, 4, 0.3, -0.3),
    ),
    "hep": (
        lambda net, **s: dp.HolomorphicEP(net, beta=0.3, N=4, **s),
        1.0,
        lambda twin, free: twin.hep(free, 4, 0.3, 4),
    ),
    "chl": (
        lambda net, **s: dp.ContrastiveHebbian(net, gamma=0.4, order="even-odd", **s),
        0.4,
        lambda twin, free: twin.chl(free, 4, 1.0),
    ),
}


def names_of(name: str, loss: str) -> list[str]:
    """f_1 .. f_M."""
    output = {"mse": ["linear"], "cross_entropy": ["softmax"] if name == "chl" else []}[loss]
    return ["sigmoid", "sigmoid", *output]


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", list(WARM))
def test_the_free_phase_starts_where_its_slot_was_left(name, loss):
    made, gamma, contrast = WARM[name]
    net = double_net(SIZES, "sigmoid")
    rule = made(net, loss=loss, warm=True, T1=3, T2=4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    names = names_of(name, loss)
    left: dict[int, list[Tensor]] = {}  # by slot
    for number, n in enumerate(BATCHES):
        x, y = double_batch(n, 5, 3, seed=number)
        target = one_hot(y, 3, x)
        at = "mse" if name == "chl" else loss
        twin = Published(net, names, x, target, loss=at, order="even-odd", gamma=gamma)
        start = twin.zeros()
        for slot in range(n):
            for z, kept in zip(start, left.get(slot, start), strict=True):
                if slot in left:
                    z[slot] = kept
        free = twin.free(3, start)
        for slot in range(n):
            left[slot] = [z[slot] for z in free]
        assert_same(gradient_of(rule, x, y), contrast(twin, free), rtol=1e-11)
        for k, z in enumerate(rule.state_dict()["free"]):
            expected = torch.stack([left[slot][k] for slot in sorted(left)])
            torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-13)
        optimizer.step()


@pytest.mark.parametrize("name", list(WARM))
def test_a_cold_rule_keeps_nothing(name):
    rule, (x, y) = WARM[name][0](double_net(SIZES, "sigmoid"), T1=3, T2=4), double_batch(4, 5, 3)
    first = gradient_of(rule, x, y)
    gradient_of(rule, *double_batch(4, 5, 3, seed=1))
    assert set(rule.state_dict()) == {"generator"}
    assert_identical(gradient_of(rule, x, y), first)


@pytest.mark.parametrize("name", list(WARM))
def test_predictions_are_cold_and_nothing_but_a_batch_is_remembered(name):
    net, (x, y) = double_net(SIZES, "sigmoid"), double_batch(4, 5, 3)
    rule, cold = (WARM[name][0](net, warm=warm, T1=3, T2=4) for warm in (True, False))
    rule.backward(*double_batch(4, 5, 3, seed=1))
    with nothing_changes(rule):
        assert torch.equal(rule.predict(x), cold.predict(x))
        state = rule.infer(x, y)
        rule.gradients(x, y)
    assert float((state.minus[1] - cold.infer(x, y).minus[1]).abs().max()) > 1e-4
    step = rule.backward(x, y)
    kept = rule.state_dict()["free"]
    if name in ("ep", "chl"):  # minus are the free states
        for ours, theirs in zip(state.minus[1:], kept, strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(step.output, kept[-1])
    assert float((step.output - cold.predict(x)).abs().max()) > 1e-4


@pytest.mark.parametrize("name", list(WARM))
def test_kept_states_go_through_a_file(name):
    net = double_net(SIZES, "sigmoid")
    rule, other = (WARM[name][0](net, warm=True, T1=3, T2=4) for _ in range(2))
    for number in range(3):
        rule.backward(*double_batch(4 - number, 5, 3, seed=number))
    file = io.BytesIO()
    torch.save(rule.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = double_batch(5, 5, 3, seed=9)
    warm = gradient_of(rule, *batch)
    assert_identical(gradient_of(other, *batch), warm)
    fresh = WARM[name][0](net, warm=True, T1=3, T2=4)
    assert relative_error(gradient_of(fresh, *batch), warm) > 1e-4


# Another net's states


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("sizes", [(5, 6, 3), (5, 7, 4, 3), (5, 6, 5, 3), (5, 6, 4, 4, 3)], ids=str)
@pytest.mark.parametrize("name", list(WARM))
def test_states_of_a_net_of_other_sizes_are_refused(name, sizes, loss):
    made = WARM[name][0]
    rule = made(double_net(SIZES, "sigmoid"), loss=loss, warm=True, T1=3, T2=4)
    rule.backward(*double_batch(4, 5, 3))
    other = made(double_net(sizes, "sigmoid"), loss=loss, warm=True, T1=3, T2=4)
    with nothing_changes(other), refused("^state: kept states of "):
        other.load_state_dict(rule.state_dict())
    assert other.state_dict()["free"] == []


def test_a_single_hidden_layer_is_told_from_one_of_another_size():
    rules = []
    for hidden in (6, 7):
        net = double_net((5, hidden, 3), "sigmoid")
        rules.append(dp.EquilibriumProp(net, loss="cross_entropy", warm=True))
        rules[-1].backward(*double_batch(4, 5, 3))
    with refused(r"^state: kept states of shapes \[\(6,\)\] do not fit layer 2"):
        rules[1].load_state_dict(rules[0].state_dict())


def test_a_rule_that_starts_cold_takes_no_states():
    net = double_net(SIZES, "sigmoid")
    warm, cold = dp.EquilibriumProp(net, warm=True), dp.EquilibriumProp(net)
    warm.backward(*double_batch(4, 5, 3))
    with nothing_changes(cold), refused(r"^state: holds \['free', 'generator'\], but .* \['generator'\]"):
        cold.load_state_dict(warm.state_dict())


def test_a_batch_of_images_of_another_size():
    """The states kept are of other shapes: a line, not a broadcast."""
    conv = [dp.Conv2d(2, 3, 3, padding=1), dp.Conv2d(3, 2, 3, padding=1)]
    rule = dp.EquilibriumProp(image_net(conv, "sigmoid"), warm=True)
    for side in (4, 6):
        x = torch.rand(3, 2, side, side, dtype=torch.float64)
        y = torch.rand(3, 2, side, side, dtype=torch.float64)
        if side == 4:
            rule.backward(x, y)
            continue
        for act in (rule.backward, rule.infer):
            with nothing_changes(rule), refused(r"^x: gives states of shapes .*6, 6.*batch before are .*4, 4"):
                act(x, y)
        rule.predict(x)


def test_warm_starts_of_conv_nets_in_any_layout():
    net = image_net(front(dp.MaxPool2d(2), dp.MaxPool2d(2, 1)), "sigmoid")
    plain, last = (dp.EquilibriumProp(net, warm=True, T1=3, T2=4) for _ in range(2))
    for number in range(3):
        x, y = image_batch(4, seed=number)
        ours = gradient_of(last, x.to(memory_format=torch.channels_last), y)
        assert_same(ours, gradient_of(plain, x, y), rtol=1e-11)
