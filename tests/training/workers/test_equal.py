"""With the order forced held workers are `DualProp` to the bit; one batch in flight is the finite difference's."""

import copy

import pytest
import torch

import dualprop as dp
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.message import Kind
from dualprop.training.workers.simulated import Simulated, Simulation
from tests.training.workers.builders import batches_of, conv_net, net_of, same, workers_of


def forced(workers, batch, updates):
    """The updates of a schedule, all messages delivered between two of them; then all learn."""
    paces = [worker._pace for worker in workers]
    of = {k: pace for pace, w in zip(paces, workers, strict=True) for k in range(w.part.first, w.part.last + 1)}
    with torch.no_grad():
        for pace in paces:
            pace.begin(batch)
        for update in updates:
            for k in update.layers:
                of[k].update(k, nudged=update.nudged)
            for kind in (Kind.MEAN, Kind.FEEDBACK):
                for pace in paces:
                    for message in pace.mean() if kind is Kind.MEAN else pace.feedback():
                        of[message.layer + (kind is Kind.MEAN)].hear(message)
        for pace in paces:
            pace.learn()


SCHEDULES = {
    "sweep": dp.Sweep(),
    "sweeps": dp.Sweep(3),
    "parallel": dp.Parallel(),
    "parallel:11": dp.Parallel(11),
    "random": dp.Random([2, 1, 4, 3, 1, 2, 3, 4, 2, 3, 1]),
    "even-odd": dp.EvenOdd(2),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_held_workers_in_a_schedules_order_are_dual_propagation(schedule, alpha):
    batches, net = batches_of(last=3), net_of()
    twin, beta = copy.deepcopy(net), (0.2, 0.3, 0.3, 0.4)
    workers = workers_of(net, batches, Held(), alpha=alpha, beta=beta, loss="cross_entropy")
    rule = dp.DualProp(twin, loss="cross_entropy", alpha=alpha, beta=beta, schedule=schedule)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    for number, (x, y) in enumerate(batches):
        forced(workers, number, list(schedule.updates(4, torch.Generator())))
        rule.backward(x, y)
        optimizer.step()
        optimizer.zero_grad()
        assert same(net, twin), number
    assert not same(net, net_of())


@pytest.mark.parametrize("groups", [[(1, 4)], [(1, 2), (3, 4)], [(1, 3), (4, 4)]], ids=str)
def test_groups_of_layers_sweep_as_the_net_does(groups):
    batches, net = batches_of(), net_of("relu")
    twin = copy.deepcopy(net)
    workers = workers_of(net, batches, Held(), groups=groups)
    rule, optimizer = dp.DualProp(twin, beta=0.3), torch.optim.SGD(twin.parameters(), lr=0.05)
    for number, (x, y) in enumerate(batches):
        forced(workers, number, list(dp.Sweep().updates(4, torch.Generator())))
        rule.backward(x, y)
        optimizer.step()
        optimizer.zero_grad()
        assert same(net, twin), number


@pytest.mark.parametrize("schedule", [dp.Sweep(2), dp.Parallel(8)], ids=str)
def test_pools_are_linearised_at_the_mean_that_has_come(schedule):
    batches, net = batches_of(shape=(2, 6, 6)), conv_net()
    twin = copy.deepcopy(net)
    workers = workers_of(net, batches, Held())
    rule = dp.DualProp(twin, beta=0.3, schedule=schedule)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    for number, (x, y) in enumerate(batches):
        forced(workers, number, list(schedule.updates(4, torch.Generator())))
        rule.backward(x, y)
        optimizer.step()
        optimizer.zero_grad()
        assert same(net, twin), number


def ran(workers, total, carrier=None, epochs=1):
    simulation = Simulation(workers, carrier or Simulated(), [1.0] * len(workers))
    for _ in simulation.run(total * epochs, total * epochs):
        pass
    return simulation


@pytest.mark.parametrize("groups", [None, [(1, 2), (3, 4)], [(1, 4)]], ids=str)
@pytest.mark.parametrize("loss", ["mse-linearised", "cross_entropy"])
def test_one_batch_in_flight_is_the_finite_difference_in_reverse_mode(groups, loss):
    """`convert`'s gradient on the same net of plain modules, step by step; Adam, whose state each layer has."""
    batches, net = batches_of(last=3), net_of()
    twin = copy.deepcopy(net)
    model = dp.convert(twin.plain(), beta=0.3)
    workers = workers_of(
        net, batches, InFlight(1), groups=groups, loss=loss, beta=0.3, opt=lambda p: torch.optim.Adam(p, lr=0.05)
    )
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
    ran(workers, len(batches), epochs=2)
    rule = dp.LOSSES[loss]
    for x, y in batches * 2:
        output = model(x)
        target = rule.encode(y, output.shape, output.dtype)
        rule.value(output, target).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert all(w.counts.updates == 12 and not w.counts.skipped and not w.counts.stale for w in workers)


def test_the_control_is_back_propagation():
    batches, net = batches_of(last=3), net_of()
    twin = copy.deepcopy(net)
    workers = workers_of(net, batches, InFlight(1), loss="cross_entropy", rule="bp")
    ran(workers, len(batches))
    rule, optimizer = dp.Backprop(twin, loss="cross_entropy"), torch.optim.SGD(twin.parameters(), lr=0.05)
    for x, y in batches:
        rule.backward(x, y)
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_held_workers_by_themselves_learn_every_batch_once():
    batches, net = batches_of(), net_of()
    workers = workers_of(net, batches, Held(2))
    ran(workers, len(batches), Simulated(loss=0.2, delay=0.001, reorder=0.2, duplicate=0.2))
    assert all(w.counts.updates + w.counts.skipped == w.counts.seen for w in workers)
    assert workers[0].counts.updates >= 5
    assert not same(net, net_of())


def test_one_held_worker_is_a_sweep_for_each_batch():
    batches, net = batches_of(), net_of()
    twin = copy.deepcopy(net)
    ran(workers_of(net, batches, Held(), groups=[(1, 4)]), len(batches))
    rule, optimizer = dp.DualProp(twin, beta=0.3), torch.optim.SGD(twin.parameters(), lr=0.05)
    for x, y in batches:
        rule.backward(x, y)
        optimizer.step()
        optimizer.zero_grad()
    assert same(net, twin)
