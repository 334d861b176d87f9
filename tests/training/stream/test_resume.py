"""What a learner keeps: a stream that is taken up again goes on to the bit."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import pytest
import torch

import dualprop as dp
from dualprop.runs.checkpoint import dumped, loaded
from tests.oracles.builders import double_net, small_conv_net
from tests.training.stream.builders import SIZES, frames, pair
from tests.training.stream.test_learner import same

KINDS = {
    "delayed": {},
    "late": {"late": 3},
    "centred": {"step": "centred"},
    "present": {"delayed": False},
    "torch": {"step": "torch", "lr": 0.05},
    "sweep": {"delayed": False, "schedule": dp.Sweep()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_goes_on_to_the_bit(kind, tmp_path):
    learner, other = (pair(**KINDS[kind])[0] for _ in range(2))
    xs, ys = frames(40)
    for t in range(17):
        learner.tick(xs[t], ys[t] if t % 3 else None)
    (tmp_path / "kept").write_bytes(dumped(learner.state_dict()))
    other.load_state_dict(loaded(tmp_path / "kept"))
    same(learner.state_dict(), other.state_dict())
    for t in range(17, 40):
        ticks = [each.tick(xs[t], ys[t] if t % 3 else None) for each in (learner, other)]
        assert torch.equal(ticks[0].output, ticks[1].output)
        if t % 5 == 0:
            told = [each.label(t - 1, ys[t - 1]) for each in (learner, other)]
            assert (told[0] is None) == (told[1] is None)
    same(learner.state_dict(), other.state_dict())


def test_pools_are_seen_anew():
    xs, ys = torch.randn(20, 2, 6, 6, dtype=torch.float64), torch.arange(20) % 3
    learner, other = (dp.stream.Learner(small_conv_net("relu")) for _ in range(2))
    for x, y in zip(xs[:11], ys, strict=False):
        learner.tick(x, y)
    other.load_state_dict(learner.state_dict())
    for x, y in zip(xs[11:], ys[11:], strict=True):
        learner.tick(x, y)
        other.tick(x, y)
    same(learner.state_dict(), other.state_dict())


def test_a_momentum_is_kept():
    learners = []
    for _ in range(2):
        net = double_net(SIZES)
        learners.append(dp.stream.Learner(net, step=torch.optim.Adam(net.parameters(), lr=0.01)))
    xs, ys = frames(20)
    for x, y in zip(xs[:10], ys, strict=False):
        learners[0].tick(x, y)
    learners[1].load_state_dict(copy.deepcopy(learners[0].state_dict()))
    for x, y in zip(xs[10:], ys[10:], strict=True):
        for learner in learners:
            learner.tick(x, y)
    same(learners[0].state_dict(), learners[1].state_dict())


def test_what_is_kept_does_not_change_with_the_learner():
    learner, _ = pair(late=1)
    xs, ys = frames(12)
    for x, y in zip(xs[:6], ys, strict=False):
        learner.tick(x, y)
    kept = learner.state_dict()
    before = copy.deepcopy(kept)
    for x, y in zip(xs[6:], ys[6:], strict=True):
        learner.tick(x, y)
    same(kept, before)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("memory"),
        lambda state: state["memory"]["means"].pop(),
        lambda state: state["memory"]["drives"].__setitem__(0, torch.zeros(2)),
        lambda state: state["net"].popitem(),
        lambda state: state.update(ticks="many"),
        lambda state: state.update(shape=[9]),
        lambda state: state["labels"].update(frames=[0]),
        lambda state: state["labels"].update(targets=[torch.zeros(1, 9)] * 3),
        lambda state: state.update(step={}),
    ],
)
def test_a_state_that_does_not_fit_is_one_line_and_changes_nothing(spoil):
    learner, _ = pair()
    xs, ys = frames(12)
    for x, y in zip(xs, ys, strict=True):
        learner.tick(x, y)
    before = learner.state_dict()
    state = copy.deepcopy(before)
    spoil(state)
    with pytest.raises(dp.DualpropError, match=r"^state: ") as error:
        learner.load_state_dict(state)
    assert "\n" not in str(error.value)
    same(learner.state_dict(), before)


def test_memory_stays_as_it_is_however_long_the_stream():
    learner, _ = pair(late=2)
    xs, ys = frames(64)

    def ticks(count):
        for t in range(count):
            learner.tick(xs[t % 64], ys[t % 64] if t % 3 else None)
            if t > 3:
                learner.label(learner.ticks - 3, t % 4)

    ticks(100)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ticks(1000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_by_itself(kind):
    learner = pair(**KINDS[kind])[0]
    xs, ys = frames(30)
    for x, y in zip(xs[:12], ys, strict=False):
        learner.tick(x, y)
    copied = pickle.loads(pickle.dumps(learner)) if kind == "late" else copy.deepcopy(learner)
    before = learner.state_dict()
    for x, y in zip(xs[12:], ys[12:], strict=True):
        copied.tick(x, y)
    same(learner.state_dict(), before)
    for x, y in zip(xs[12:], ys[12:], strict=True):
        learner.tick(x, y)
    same(learner.state_dict(), copied.state_dict())
