"""The virtual clock: how long a worker takes follows from its products, and all batches are accounted for."""

import pytest

from dualprop.nets import counting
from dualprop.training.workers.grouping import multiply_adds
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.simulated import Simulated, Simulation
from tests.training.workers.builders import batches_of, net_of, workers_of

GROUPS = pytest.mark.parametrize("groups", [[(1, 1), (2, 4)], [(1, 2), (3, 4)], [(1, 4)]], ids=str)


def ran(way, groups, carrier, batches):
    net = net_of()
    work = multiply_adds(net.synapses, net.shapes((5,)))
    workers = workers_of(net, batches, way, groups=groups)
    simulation = Simulation(workers, carrier, [sum(work[first - 1 : last]) for first, last in groups])
    with counting.counting() as counts:
        for _ in simulation.run(len(batches), len(batches)):
            pass
    return simulation, workers, counts


@GROUPS
def test_in_flight_the_time_is_that_of_the_products_that_were_made(groups):
    """Counted one by one, below all of it."""
    simulation, _, counts = ran(InFlight(2), groups, Simulated(speed=100.0), batches_of(5, last=3))
    assert sum(simulation.busy) * 100.0 == pytest.approx(counts.total.multiply_adds)


@GROUPS
def test_held_a_batch_is_one_way_up_one_down_and_one_update(groups):
    """Nothing goes down below the first layer, 5 x 7; the others are 7 x 6, 6 x 4, 4 x 3."""
    simulation, workers, _ = ran(Held(), groups, Simulated(speed=1e6), batches_of(5, last=3))
    work = [5 * 7, 7 * 6, 6 * 4, 4 * 3]
    for (first, last), worker, busy in zip(groups, workers, simulation.busy, strict=True):
        own = work[first - 1 : last]
        down = sum(own) - (work[0] if first == 1 else 0)
        assert worker.counts.updates == worker.counts.seen == 5
        assert busy * 1e6 == pytest.approx((2 * sum(own) + down) * 19)


@pytest.mark.parametrize("way", [InFlight(3), Held(patience=0.1)], ids=["in flight", "held"])
def test_at_the_end_every_batch_has_been_learnt_from_or_is_counted_as_skipped(way):
    simulation, workers, _ = ran(way, [(1, 2), (3, 4)], Simulated(loss=0.5, seed=3), batches_of(12))
    assert sum(simulation.lost) > 0
    assert sum(worker.counts.skipped for worker in workers) > 0
    for worker in workers:
        assert worker.counts.updates + worker.counts.skipped == worker.counts.seen
