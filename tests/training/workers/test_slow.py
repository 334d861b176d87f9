"""A worker that is slow slows its own learning: its neighbours' updates come as often as before."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dualprop as dp
from dualprop.training.workers import share
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.message import Kind
from dualprop.training.workers.share import Share
from dualprop.training.workers.simulated import Simulated, Simulation
from tests.training.workers.builders import batches_of, net_of, workers_of
from tests.training.workers.test_interleavings import BATCHES, driven

SMALL = [3, 4, 4, 2]


def speeds(slow, way, batches=180):
    """Updates of each worker in a virtual second, once it is known who is slow."""
    net, pairs = net_of(sizes=SMALL), batches_of(2, size=20, shape=(3,), classes=2)
    workers = workers_of(net, pairs, way, lr=1e-3)
    simulation = Simulation(workers, Simulated(slow=slow), [1e6] * 3)
    for until in (batches // 3, batches):
        before, now = [w.counts.updates for w in workers], simulation.now
        for _ in simulation.run(until, batches):
            pass
    return [(w.counts.updates - b) / (simulation.now - now) for w, b in zip(workers, before, strict=True)], workers


@pytest.mark.parametrize(
    "number", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_its_neighbours_learn_as_often_as_before(number):
    slow = tuple(10.0 if k == number else 1.0 for k in range(3))
    usual, _ = speeds((), InFlight(4))
    now, workers = speeds(slow, InFlight(4))
    for k in range(3):
        if k == number:
            assert now[k] < 0.25 * usual[k]
        else:
            assert now[k] > 0.8 * usual[k]
    assert all(w.counts.updates + w.counts.skipped == w.counts.seen for w in workers)


def test_who_is_four_times_as_slow_or_has_more_work_does_all_of_it():
    for usual, lead, part in ((3.9, 1.0, 1.0), (4.1, 1.0, 1 / 4.1), (15.0, 4.0, 1.0), (20.0, 4.0, 0.2)):
        one = Share(lead)
        one.hear(Kind.FEEDBACK, 1_000_000)
        for _ in range(share.MEMORY + 2):
            taken = one.rows(10**6) / 10**6
            one.begin(taken)
            one.spend(usual * taken)
        assert one.part == pytest.approx(part, rel=1e-5)


def test_alone_nobody_is_slow():
    one = Share(1.0)
    for _ in range(100):
        one.begin(1.0)
        one.spend(1.0)
        assert one.part == 1
        assert one.learns()


class Half(Share):
    """Half of the samples, and every update."""

    part = property(lambda self: 0.5, lambda self, value: None)

    def learns(self):
        return True


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("groups", [None, [(1, 2), (3, 3), (4, 4)]], ids=str)
def test_what_is_learnt_is_the_gradient_of_the_samples_that_were_taken_on(number, groups):
    """Below the one that is slow as well as above it: that of those samples in a net by itself."""
    net, pairs = net_of(), batches_of(1)
    workers = workers_of(net, pairs, InFlight(1), groups=groups, lr=0.0)
    chosen = workers[min(number, len(workers) - 1)]
    chosen._pace._share = Half(1.0)
    model = dp.convert(copy.deepcopy(net).plain(), beta=0.3, reduction="sum")
    ((x, y),) = pairs
    output = model(x[:2])
    target = dp.LOSSES["mse-linearised"].encode(y[:2], output.shape, output.dtype)
    plus, minus = (target * 0.15 + output) / 1.15, (output - target * 0.15) / 0.85  # the exact step
    output.backward((minus - plus).detach() / 0.3)
    seen = []
    for worker in workers:
        worker.learn = lambda links, batch, worker=worker: seen.append(worker) or [link.learn() for link in links]
    for _ in Simulation(workers, Simulated(), [1.0] * len(workers)).run(1, 1):
        pass
    assert len(seen) == len(workers)
    for ours, theirs in zip(net.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad / 2, rtol=1e-9, atol=1e-11)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(0, 3))
def test_whatever_comes_in_between(seed, number):
    """Invariants hold where shares change at once, and messages come in any order, twice or not at all."""
    net, pairs = net_of(), batches_of(5, last=3)
    workers = workers_of(net, pairs, InFlight(4), lr=1e-3)
    for k, worker in enumerate(workers):
        react = worker.react

        def reacting(messages, now, react=react, worker=worker, seconds=0.2 if k == number else 0.01):
            posts = react(messages, now)
            worker.took(seconds)
            return posts

        worker.react = reacting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share, "MEMORY", 2)
        driven(workers, seed)
    for worker in workers:
        assert worker.counts.updates + worker.counts.skipped == worker.counts.seen <= BATCHES
        assert worker.counts.refused == 0
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
