"""A learner against its twin with full histories, against `dp.convert`, and against the rules on batches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import dualprop as dp
from tests.oracles.builders import double_net
from tests.training.stream.builders import SIZES, agree, close, frames, pair


@pytest.mark.parametrize("step", ["normalised", "centred", "sgd", "torch"])
@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("f", ["tanh", "relu"])
def test_weights_and_outputs_are_the_twins(f, delayed, step):
    learner, twin = pair(f=f, delayed=delayed, step=step, lr=0.05 if step in ("sgd", "torch") else 0.3)
    xs, ys = frames(40)
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        y = None if t % 5 == 2 else y
        tick = learner.tick(x, y)
        twin.tick(x.numpy(), y)
        if t < 2:
            assert tick.frame is tick.output is tick.loss is None
            continue
        assert tick.frame == t - 2
        close(tick.output, twin.a[3][t])
        agree(learner, twin)
        known = twin.labels.get(tick.frame)
        expected = None if known is None else float(F.cross_entropy(tick.output, torch.tensor(known[1])))
        assert (tick.loss is None) == (expected is None)
        assert expected is None or float(tick.loss) == pytest.approx(expected, rel=1e-12)
        assert tick.correct == (None if expected is None else int(tick.output.argmax()) == known[1])


@pytest.mark.parametrize(
    ("sizes", "late"), [(SIZES, 0), (SIZES, 3), ((5, 4), 0), ((5, 4), 2), ((5, 6, 7, 8, 6, 4), 1)]
)
def test_delayed_gives_the_reverse_mode_gradient_of_each_frame(sizes, late):
    """One tick a frame, frozen weights: what `convert` gives with finite differences, to rounding."""
    learner, twin = pair(sizes, "tanh", step="torch", lr=0.0, beta=0.3, late=late)
    xs, ys = frames(20)
    depth, net = len(learner.net), learner.net
    grads: dict[int, dict[int, list[torch.Tensor]]] = {}
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        learner.tick(x, y)
        twin.tick(x.numpy(), y)
        for k, layer in enumerate(net.chain, 1):
            frame = t - (2 * depth - 1 - k) - late
            if frame < 0:
                assert layer.synapse.weight.grad is None
            else:
                own = [layer.synapse.weight.grad.clone(), layer.synapse.bias.grad.clone()]
                close(own[0], twin.step[k][t][0])
                grads.setdefault(frame, {})[k] = own
    whole = {frame: each for frame, each in grads.items() if len(each) == depth}
    assert len(whole) == 20 - (2 * depth - 2) - late
    for frame, each in whole.items():
        model = double_net(sizes, "tanh").plain()
        model = dp.convert(model, beta=0.3) if depth > 1 else model
        loss = F.cross_entropy(model(xs[frame][None]), torch.tensor([ys[frame]]))
        loss.backward()
        parameters = list(model.parameters())
        for k, own in each.items():
            for mine, theirs in zip(own, parameters[2 * k - 2 : 2 * k], strict=True):
                close(mine, theirs.grad.numpy(), 1e-10)


def test_present_on_a_held_frame_settles_where_the_schedule_does():
    learner, _ = pair(f="tanh", delayed=False, lr=0.0, beta=0.5)
    x, y = frames(1)
    rule = dp.DualProp(learner.net, loss="cross_entropy", beta=0.5, schedule=dp.Parallel(40))
    for _ in range(40):
        learner.tick(x[0], y[0])
    state, memory = rule.infer(x, torch.tensor(y)), learner.memory
    for k in range(1, 4):
        close(memory.differences[k - 1][0], state.difference[k].numpy(), 1e-14)
        if k < 3:
            close(memory.means[k][0], state.mean[k].numpy(), 1e-14)
    fixed = dp.DualProp(learner.net, loss="cross_entropy", beta=0.5, schedule=dp.Sweep(200)).infer(
        x, torch.tensor(y)
    )
    close(memory.differences[0][0], fixed.difference[1].numpy(), 1e-10)


@pytest.mark.parametrize(
    "schedule",
    [dp.Parallel(1), dp.Parallel(2), dp.Parallel(4), dp.Sweep(), dp.Sweep(2), dp.EvenOdd(2), dp.Backward(2)],
)
def test_present_in_any_schedule_is_a_lazy_rule_that_is_nudged_when_its_frame_is_there(schedule):
    """On a held frame with its label; a lazy `Parallel` is nudged from its L-th update on, a learner alike."""
    learner, _ = pair(f="relu", delayed=False, step="torch", lr=0.05, schedule=schedule)
    net = double_net(SIZES, "relu")
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.1, schedule=schedule, lazy=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    x, y = frames(1)
    for _ in range(12):
        tick = learner.tick(x[0], y[0])
        optimizer.zero_grad()
        step = rule.backward(x, torch.tensor(y))
        if tick.frame is not None:
            close(tick.loss, step.loss.numpy())
        optimizer.step()
        for own, theirs in zip(learner.net.parameters(), net.parameters(), strict=True):
            close(own, theirs.detach().numpy())
    assert tick.frame == 11 - learner.latency
    assert learner.latency == {"Parallel(ticks=1)": 2, "Parallel(ticks=2)": 1}.get(repr(schedule), 0)


@pytest.mark.parametrize("delayed", [True, False])
def test_the_centred_step_of_several_samples_is_their_mean(delayed):
    """In W and W m + b, m that of the samples before; both are read off a step from the same weights and mean."""
    pairing = dp.stream.Delayed() if delayed else dp.stream.Present()

    def stepped(rows, labels, kept=None):
        net = double_net((5, 4), seed=3)
        step = dp.stream.Centred(0.3)
        learner = dp.stream.Learner(net, step=step, samples=len(rows), pairing=pairing)
        if kept is not None:
            step._means, step._seen = {"0-1": kept.clone()}, {"0-1": 7}
        learner.tick(rows if len(rows) > 1 else rows[0], labels if len(rows) > 1 else labels[0])
        return [p.detach().clone() for p in net.parameters()], step

    xs, ys = frames(3)
    start = [p.detach() for p in double_net((5, 4), seed=3).parameters()]
    kept = torch.linspace(-1, 1, 5, dtype=torch.float64)
    together, step = stepped(xs, ys, kept)
    singles = [stepped(x[None], [y], kept)[0] for x, y in zip(xs, ys, strict=True)]
    for k, p in enumerate(together):
        close(p - start[k], sum(single[k] - start[k] for single in singles).numpy() / 3)
    close(step._means["0-1"], (kept + (xs.mean(0) - kept) * 3 / 10).numpy())


def test_a_frame_without_a_label_changes_no_weight_when_its_turn_comes():
    learner, _ = pair()
    xs, ys = frames(12)
    for x in xs[:6]:
        learner.tick(x)
    learner.tick(xs[6], ys[6])
    moved = []
    for x in xs[7:]:
        before = [p.detach().clone() for p in learner.net.parameters()]
        learner.tick(x)
        moved.append([not torch.equal(p, b) for p, b in zip(learner.net.parameters(), before, strict=True)])
    by_layer = [[3] if any(m[4:]) else [2] if any(m[2:4]) else [1] if any(m[:2]) else [] for m in moved]
    assert by_layer == [[], [3], [2], [1], []]
    assert all(sum(m) in (0, 2) for m in moved)


@pytest.mark.parametrize("late", [0, 2])
def test_in_a_sweep_a_tick_nothing_is_late(late):
    """One step a sample by its own reverse-mode gradient; where labels are waited for, that of their frame."""
    learner, _ = pair(f="relu", late=late, step="torch", lr=0.05 if late == 0 else 0.0, schedule=dp.Sweep())
    model = dp.convert(double_net(SIZES, "relu").plain(), beta=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    xs, ys = frames(20)
    for t, x in enumerate(xs):
        with torch.no_grad():
            expected = model(x[None])[0]
        tick = learner.tick(x, ys[t] if t % 4 else None)
        assert tick.frame == t
        close(tick.output, expected.numpy())
        optimizer.zero_grad()
        frame = t - late
        if frame >= 0 and frame % 4:
            F.cross_entropy(model(xs[frame][None]), torch.tensor([ys[frame]])).backward()
        for p, q in zip(learner.net.parameters(), model.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None:
                close(p.grad, q.grad.numpy())
        if late == 0:
            optimizer.step()
    with dp.counting() as counts:
        learner.tick(xs[0], ys[0])
    assert [each.products for each in (counts.forward, counts.feedback, counts.gradient)] == [3, 2, 3]


@pytest.mark.parametrize("late", [0, 1, 4])
def test_late_labels_land_on_their_own_frame(late):
    learner, twin = pair(late=late)
    xs, ys = frames(30)
    for t, x in enumerate(xs):
        tick = learner.tick(x)
        twin.tick(x.numpy())
        frame = t - late
        if frame >= 0:
            told = learner.label(frame, ys[frame])
            twin.label(frame, ys[frame])
            if late > 1:  # the frame has been at the output
                close(told.output, twin.a[3][frame + 2])
                assert told.frame == frame
                assert float(told.loss) == pytest.approx(
                    float(F.cross_entropy(told.output, torch.tensor(ys[frame]))), rel=1e-12
                )
            else:
                assert told is None
        assert tick.frame is None or tick.target is None or tick.frame <= t - late - 1
    agree(learner, twin)
    assert learner.missed == 0
    assert any(abs(twin.W[k][-1] - twin.W[k][0]).max() > 1e-3 for k in (1, 2, 3))


def test_a_label_for_a_frame_long_gone_is_counted_and_skipped():
    learner, twin = pair(late=1)
    xs, ys = frames(8)
    for x in xs:
        learner.tick(x)
        twin.tick(x.numpy())
    assert learner.label(4, ys[4]) is None  # its turn was tick 4 + 2 + 1
    assert learner.missed == 1
    assert learner.label(5, ys[5]).frame == 5
    learner.tick(xs[0])
    agree_not = [
        torch.equal(p, q) for p, q in zip(learner.net.parameters(), double_net(SIZES).parameters(), strict=True)
    ]
    assert agree_not == [True] * 4 + [False] * 2


def test_several_samples_a_tick_learn_the_mean_of_their_gradients():
    learner, _ = pair(step="torch", lr=0.0, samples=3)
    singles = [pair(step="torch", lr=0.0)[0] for _ in range(3)]
    xs, ys = frames(30)
    for t in range(10):
        x, y = xs[3 * t : 3 * t + 3], [None if (i + t) % 4 == 0 else ys[3 * t + i] for i in range(3)]
        tick = learner.tick(x, y)
        ticks = [single.tick(each, label) for single, each, label in zip(singles, x, y, strict=True)]
        if t >= 2:
            close(tick.output, torch.stack([each.output for each in ticks]).numpy())
            losses = [each.loss for each in ticks if each.loss is not None]
            close(tick.loss, torch.stack(losses).mean().numpy())
            assert tick.correct == sum(each.correct for each in ticks if each.correct is not None)
        for p, *others in zip(learner.net.parameters(), *(s.net.parameters() for s in singles), strict=True):
            grads = [torch.zeros_like(p) if o.grad is None else o.grad for o in others]
            close(torch.zeros_like(p) if p.grad is None else p.grad, (sum(grads) / 3).numpy())


def test_the_normalised_step_is_of_each_sample():
    learner, twin = pair((3, 2), lr=0.5, samples=2)
    other = pair((3, 2), lr=0.5)[1]
    x, y = frames(2, 3, 2)
    learner.tick(x, y)
    moves = []
    for each, label in zip(x, y, strict=True):
        _, other = pair((3, 2), lr=0.5)
        other.tick(each.numpy(), label)
        moves.append(other.W[1][-1] - other.W[1][0])
    close(learner.net.chain[0].synapse.weight, twin.W[1][0] + sum(moves) / 2)


def test_a_dropped_frame_leaves_the_input_as_it_was():
    learner, twin = pair()
    xs, ys = frames(20)
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        dropped = t % 3 == 1
        learner.tick(None if dropped else x, None if dropped else y)
        twin.tick(None if dropped else x.numpy(), None if dropped else y)
    agree(learner, twin)


@pytest.mark.parametrize("beta", [0.2, (0.1, 0.3, 0.2)])
@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0])
@pytest.mark.parametrize("delayed", [True, False])
def test_any_alpha_and_beta(alpha, beta, delayed):
    learner, twin = pair(alpha=alpha, beta=beta, delayed=delayed)
    for x, y in zip(*frames(15), strict=True):
        learner.tick(x, y)
        twin.tick(x.numpy(), y)
    agree(learner, twin)


def test_predict_changes_nothing_and_is_the_forward_pass():
    learner, twin = pair()
    xs, ys = frames(6)
    for x, y in zip(xs, ys, strict=True):
        learner.tick(x, y)
        twin.tick(x.numpy(), y)
    before = learner.state_dict()
    close(learner.predict(xs[0]), twin.predict(xs[0].numpy()))
    assert torch.equal(learner.predict(xs[0]), learner.net(xs[:1])[0].detach())
    same(before, learner.state_dict())


def same(a, b):
    """Two states are equal to the bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            same(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
