"""Whatever order messages come in, lost or doubled: no deadlock, no other batch's mean, finite states."""

import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dualprop as dp
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.message import Kind
from tests.training.workers.builders import batches_of, net_of, workers_of

BATCHES = 12
SEEDS = st.integers(0, 2**32)


def driven(workers, seed, most=8000):
    """Deliver waiting messages in an order that is drawn; when there are none it is everybody's time."""
    first, waiting, now = workers[0], [], 0.0
    for worker in workers:
        worker.until = BATCHES
    first.begin_now(0.0)
    drawing = random.Random(seed)
    for _ in range(most):
        if first.done and not (waiting and first.way.one_by_one):
            break
        drawn = drawing.randrange(2**16)
        if waiting and drawn % 5:
            number, message = waiting.pop(drawn % len(waiting))
            fate = (drawn >> 4) % 10
            if fate == 0:
                continue
            if fate == 1:
                waiting.append((number, message))
            posts, by = workers[number].react([message], now), number
        else:
            now += 0.02
            by = drawn % len(workers)
            posts = workers[by].react([], now)
        waiting += [(by + (1 if post.kind is Kind.MEAN else -1), post) for post in posts]
    else:
        raise AssertionError("deadlock: not all batches have been begun")
    for worker in workers:
        worker.finish()


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 4, 16]), st.sampled_from([None, [(1, 2), (3, 4)], [(1, 1), (2, 4)]]))
def test_in_flight(seed, batches, groups):
    net, pairs = net_of(), batches_of(5, last=3)
    workers = workers_of(net, pairs, InFlight(batches), groups=groups, lr=1e-3)
    driven(workers, seed)
    for worker in workers:
        assert worker.counts.updates + worker.counts.skipped == worker.counts.seen <= BATCHES
        assert worker.counts.refused == 0
        assert worker.counts.stale <= 2 * batches * worker.counts.updates
    assert workers[0].counts.seen == BATCHES
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([1, 3]), st.sampled_from([None, [(1, 2), (3, 4)]]))
def test_held(seed, updates, groups):
    net, pairs = net_of(), batches_of(5, last=3)
    workers = workers_of(net, pairs, Held(updates, patience=1.0), groups=groups, lr=1e-3)
    driven(workers, seed)
    for worker in workers:
        assert worker.counts.updates + worker.counts.skipped == worker.counts.seen <= BATCHES
    assert workers[0].counts.seen == BATCHES
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([1, 3, 8]))
def test_a_difference_meets_the_mean_of_its_own_batch_alone(seed, batches):
    """With frozen weights every gradient that a layer learns is that of one batch in a net by itself."""
    net, pairs = net_of(), batches_of(BATCHES)
    workers = workers_of(net, pairs, InFlight(batches), beta=0.3)
    model = dp.convert(copy.deepcopy(net).plain(), beta=0.3, reduction="sum")
    expected = []
    for x, y in pairs:
        model.zero_grad()
        output = model(x)
        target = dp.LOSSES["mse-linearised"].encode(y, output.shape, output.dtype)
        plus, minus = (target * 0.15 + output) / 1.15, (output - target * 0.15) / 0.85  # the exact step
        output.backward((minus - plus).detach() / 0.3)
        expected.append([p.grad / len(x) for p in model.parameters()])
    seen = []

    def learn(worker, links, batch):
        before = [p.grad for p in worker.part.layers[0].parameters()]
        assert before == [None, None]
        for link in links:
            link.learn()
        k = 2 * (worker.part.first - 1)
        for p, wanted in zip(worker.part.layers[0].parameters(), expected[batch][k : k + 2], strict=True):
            torch.testing.assert_close(p.grad, wanted, rtol=1e-9, atol=1e-11)
            p.grad = None
        seen.append(batch)
        worker.counts.updates += 1

    for worker in workers:
        worker.learn = lambda links, batch, worker=worker: learn(worker, links, batch)
    driven(workers, seed)
    assert seen


def test_a_message_that_does_not_fit_is_refused_and_counted():
    net, pairs = net_of(), batches_of(3)
    workers = workers_of(net, pairs, InFlight(2))
    for worker in workers:
        worker.until = 3
    workers[0].begin_now(0.0)
    (mean,) = workers[0].react([], 0.0)
    wrong = [
        mean._replace(layer=2),
        mean._replace(tensor=mean.tensor[:0]),
        mean._replace(tensor=mean.tensor[:, :2]),
        mean._replace(tensor=mean.tensor.repeat(2, 1)),
        mean._replace(tensor=mean.tensor[0, 0]),
        mean._replace(tensor=mean.tensor.float()),
        mean._replace(kind=Kind.FEEDBACK),
    ]
    for number, message in enumerate(wrong, 1):
        assert workers[1].react([message], 0.0) == []
        assert workers[1].counts.refused == number
    assert [post.kind for post in workers[1].react([mean], 0.0)] == [Kind.MEAN]
    assert workers[1].react([mean], 0.0) == []
    assert workers[1].counts.doubled == 1
    feedback = mean._replace(kind=Kind.FEEDBACK, batch=1)
    assert workers[0].react([feedback._replace(layer=1)], 0.0) != [feedback]
    assert workers[0].counts.late == 1


def test_a_loss_that_runs_away_is_told():
    net, pairs = net_of(), batches_of(3)
    workers = workers_of(net, pairs, InFlight(1), groups=[(1, 4)])
    workers[0].until = 3
    with torch.no_grad():
        net.stack[3].synapse.weight.fill_(float("nan"))
    with pytest.raises(dp.DivergenceError, match="loss became nan at batch 0; give a smaller lr"):
        workers[0].react([], 0.0)
