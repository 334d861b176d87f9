"""A net that grows: a new class is a new neuron, a new feature a new column; nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch

import dualprop as dp
from tests.oracles.builders import double_net
from tests.training.stream.builders import close, frames
from tests.training.stream.test_learner import same

STEPS = ("normalised", "sgd", "torch")


def learner_of(sizes, step="normalised", late=0, **settings):
    net = double_net(sizes, "relu")
    made = torch.optim.Adam(net.parameters(), lr=0.01) if step == "torch" else step
    return dp.stream.Learner(net, step=made, pairing=dp.stream.Delayed(late), **settings)


def widened(sizes, inputs, outputs, step, late=0):
    """A learner of a net that had these features and neurons from the start, with weights of zero."""
    net = double_net(sizes, "relu")
    wide = double_net((sizes[0] + inputs, *sizes[1:-1], sizes[-1] + outputs), "relu")
    with torch.no_grad():
        for p, q in zip(net.parameters(), wide.parameters(), strict=True):
            q.zero_()
            q[tuple(map(slice, p.shape))] = p
    made = torch.optim.Adam(wide.parameters(), lr=0.01) if step == "torch" else step
    return dp.stream.Learner(wide, step=made, pairing=dp.stream.Delayed(late))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("sizes", [(3, 5, 4, 2), (3, 2)])
def test_a_new_feature_is_one_that_was_always_there_and_zero(sizes, step):
    grows, wide = learner_of(sizes, step, grow=True), widened(sizes, 2, 0, step)
    xs, ys = frames(40, 5, 2)
    xs[:15, 3:] = 0
    xs[25:30, 4:] = 0
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        shown = x[:3] if t < 15 else x[:4] if 25 <= t < 30 else x
        close(grows.predict(shown), wide.predict(x).numpy())
        tick, other = grows.tick(shown, y), wide.tick(x, y)
        if tick.frame is not None:
            close(tick.output, other.output.numpy())
    for p, q in zip(grows.net.parameters(), wide.net.parameters(), strict=True):
        close(p, q.detach().numpy())


def test_old_outputs_stay_as_they_are_when_classes_and_features_come():
    """To the bit, with numbers whose sums are exact in whatever order a product adds them."""
    learner = learner_of((3, 5, 4, 2), lr=0.0, grow=True)
    with torch.no_grad():
        for p in learner.net.parameters():
            p.copy_((p * 16).round() / 16)
    xs, ys = frames(20, 7, 2)
    xs = (xs * 16).round() / 16
    for x, y in zip(xs[:10], ys, strict=False):
        learner.tick(x[:3], y)
    before, weights = learner.predict(xs[0, :3]), [p.detach().clone() for p in learner.net.parameters()]
    for count in range(2, 6):
        learner.tick(xs[count, : count + 2], count)
        after = learner.predict(xs[0, : count + 2])
        assert torch.equal(after[:2], before)
        assert after.shape == (count + 1,)
        assert not after[2:].any()
        for p, old in zip(learner.net.parameters(), weights, strict=True):
            assert torch.equal(p[tuple(map(slice, old.shape))], old)


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize("step", STEPS)
def test_states_delay_lines_and_labels_that_wait_are_kept(step, late):
    """With the class known from tick 20 on, what follows is what a wide net does that had those states."""
    learner = learner_of((5, 6, 7, 3), step, late, grow=True)
    xs, ys = frames(45, 5, 3)
    for x, y in zip(xs[:20], ys, strict=False):
        learner.tick(x, y)
    state = learner.state_dict()
    wide = learner_of((5, 6, 7, 4), step, late)
    padded = copy.deepcopy(state)
    pad = torch.nn.functional.pad
    for name in ("2.weight", "2.bias"):
        key = next(k for k in padded["net"] if k.endswith(name.replace("2.", "2.synapse.")))
        old = padded["net"][key]
        padded["net"][key] = torch.cat([old, torch.zeros_like(old[:1])])
    for name in ("means", "drives", "differences"):
        padded["memory"][name][-1] = pad(padded["memory"][name][-1], (0, 1))
    padded["labels"]["targets"] = [pad(t, (0, 1)) for t in padded["labels"]["targets"]]
    if step == "torch":
        for number in (4, 5):
            for name in ("exp_avg", "exp_avg_sq"):
                old = padded["step"]["optimizer"]["state"][number][name]
                padded["step"]["optimizer"]["state"][number][name] = torch.cat([old, torch.zeros_like(old[:1])])
    wide.load_state_dict(padded)
    for t in range(20, 45):
        y = 3 if t % 4 == 0 else ys[t]
        learner.tick(xs[t], y)
        wide.tick(xs[t], y)
    for p, q in zip(learner.net.parameters(), wide.net.parameters(), strict=True):
        close(p, q.detach().numpy())


def test_a_grown_stream_is_taken_up_again():
    xs, ys = frames(30, 6, 5)
    ys = [min(y, 2 + t // 5) for t, y in enumerate(ys)]
    ys[:3] = [0, 1, 2]
    ys = [y if y < 3 or y in ys[:t] else max(ys[:t]) + 1 for t, y in enumerate(ys)]
    learner = learner_of((3, 5, 2), "torch", grow=True)
    for t in range(20):
        learner.tick(xs[t][: 3 + t // 7], ys[t])
    other = learner_of((3, 5, 2), "torch", grow=True)
    other.load_state_dict(learner.state_dict())
    for t in range(20, 30):
        for each in (learner, other):
            each.tick(xs[t], ys[t])
    same(learner.state_dict(), other.state_dict())
    fixed = learner_of((3, 5, 2), "torch")
    with pytest.raises(dp.DualpropError, match=r"^state: "):
        fixed.load_state_dict(learner.state_dict())


def test_a_late_label_may_name_a_new_class():
    learner = learner_of((3, 5, 2), late=3, grow=True)
    xs, _ = frames(10, 3, 2)
    for x in xs[:4]:
        learner.tick(x, 0)
    learner.label(2, 2)
    for x in xs[4:]:
        learner.tick(x)
    assert learner.predict(xs[0]).shape == (3,)
    assert bool(learner.net.chain[-1].synapse.weight[2].any())


def test_several_samples_may_name_several_new_classes():
    learner = learner_of((3, 2), samples=3, grow=True)
    xs, _ = frames(3, 4, 2)
    tick = learner.tick(xs, [2, None, 3])
    assert tick.output.shape == (3, 4)
    assert learner.predict(xs[:, :2]).shape == (3, 4)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(3), 4, "y=4: there are 2 classes, and a new one is the next, 2"),
        (torch.zeros(4), -1, "y: class index -1"),
        (torch.zeros(4), "new", "y='new'"),
        (torch.zeros(4), torch.zeros(3), "y: shape"),
        (torch.zeros(1, 3), 0, "x: shape"),
        (torch.full((5,), torch.nan), 2, "x: NaN"),
    ],
)
def test_what_does_not_fit_makes_nothing_grow(x, y, words):
    learner = learner_of((3, 4, 2), grow=True)
    learner.tick(torch.zeros(3, dtype=torch.float64), 1)
    before = learner.state_dict()
    y = y.double() if isinstance(y, torch.Tensor) else y
    with pytest.raises(dp.DualpropError, match=f"^{words}"):
        learner.tick(x.double(), y)
    same(before, learner.state_dict())


def test_an_unknown_class_is_an_error_where_nothing_grows():
    learner = learner_of((3, 4, 2))
    with pytest.raises(dp.DualpropError, match=r"^y: class index 2, but it must be in 0\.\.1"):
        learner.tick(torch.zeros(3, dtype=torch.float64), 2)


def test_a_net_that_cannot_grow_is_refused():
    with pytest.raises(dp.DualpropError, match=r"^net: .*cannot be widened"):
        dp.stream.Learner(dp.nets.vgg_like(), grow=True)
