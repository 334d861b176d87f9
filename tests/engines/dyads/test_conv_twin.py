"""The engine on images equals the slow twin: every schedule, α, mean, geometry, pool and kind of feedback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.beside_twin import assert_gradients, assert_states, close, drawn, same_settings
from tests.oracles.builders import follow_rounds, gradient_of, image_batch, image_net, small_conv_net
from tests.oracles.conv_twin import ConvTwin, links
from tests.oracles.twin import Twin

pytestmark = pytest.mark.filterwarnings("ignore:schedule")  # not every order here lets every layer learn

BETA = (0.7, 1.1, 0.5, 0.8)  # no two ratios alike, and ᾱβ_L < 1
ALPHAS = (0.0, 0.25, 0.5, 1.0)
LISTED = (2, 1, 4, 3, 3, 2, 2, 1, 1, 4, 3, 1, 2)


SCHEDULES: dict[str, tuple[dp.Schedule, Callable[[Twin, np.ndarray], None]]] = {
    "sweep-1": (dp.Sweep(), lambda twin, y: twin.sweeps(1, y)),
    "sweep-2": (dp.Sweep(2), lambda twin, y: twin.sweeps(2, y)),
    "parallel": (dp.Parallel(), lambda twin, y: twin.ticks(7, y)),
    "random-20": (dp.Random(20, seed=3), lambda twin, y: twin.in_order(drawn(20, 4, 3), y)),
    "listed": (dp.Random(LISTED), lambda twin, y: twin.in_order(LISTED, y)),
}
GEOMETRIES: dict[str, tuple[tuple[int, int, int], Callable[[], list[dp.Synapse]]]] = {
    "stride": (
        (2, 7, 6),
        lambda: [dp.Conv2d(2, 3, 3, stride=2, padding=1), dp.Conv2d(3, 4, 2, stride=2), dp.Dense(4 * 2, 3)],
    ),
    "dilation": (
        (2, 6, 5),
        lambda: [
            dp.Conv2d(2, 3, 2, dilation=2),
            dp.Conv2d(3, 4, 3, dilation=2, padding=2, pool=dp.MaxPool2d(2, stride=1)),
            dp.Dense(4 * 3 * 2, 3),
        ],
    ),
    "groups": (
        (2, 5, 5),
        lambda: [
            dp.Conv2d(2, 4, 3, groups=2, padding=1),
            dp.Conv2d(4, 6, 2, groups=2, stride=2, padding=1, pool=dp.AvgPool2d(2, stride=1)),
            dp.Dense(54, 3),
        ],
    ),
    "no padding": (
        (2, 6, 6),
        lambda: [
            dp.Conv2d(2, 3, 3),
            dp.Conv2d(3, 4, 2, pool=dp.MaxPool2d(2)),
            dp.Dense(4, 3),
        ],
    ),
    "overlapping pools": (
        (2, 6, 6),
        lambda: [
            dp.Conv2d(2, 3, 3, padding=1),
            dp.Conv2d(3, 4, 3, padding=1, pool=dp.MaxPool2d(3, stride=1)),
            dp.Dense(4 * 2 * 2, 3, pool=dp.AvgPool2d(3, stride=1)),
        ],
    ),
    "pools behind": (
        (2, 7, 6),
        lambda: [
            dp.Pooled(dp.Conv2d(2, 3, 3, padding=1), dp.MaxPool2d(2)),
            dp.Pooled(dp.Conv2d(3, 4, 2, padding=1), dp.MaxPool2d(2, stride=1)),
            dp.Dense(4 * 3 * 3, 3),
        ],
    ),
    "pools behind and in front": (
        (2, 6, 6),
        lambda: [
            dp.Pooled(dp.Conv2d(2, 3, 3, padding=1), dp.AvgPool2d(2)),
            dp.Pooled(dp.Conv2d(3, 4, 3, padding=1, pool=dp.MaxPool2d(2, stride=1)), dp.AvgPool2d(2)),
            dp.Dense(4, 3),
        ],
    ),
    "pools with gaps and left-over rows": (
        (2, 6, 6),
        lambda: [
            dp.Conv2d(2, 3, 3, padding=1, pool=dp.AvgPool2d(1)),
            dp.Conv2d(3, 4, 1, padding=1, pool=dp.MaxPool2d(2, stride=3)),
            dp.Dense(4, 3, pool=dp.MaxPool2d(3)),
        ],
    ),
}


def twin_of(rule: dp.DualProp, in_shape: tuple[int, ...], activation: str, loss: str) -> ConvTwin:
    activations = [activation] * (len(rule.net) - 1) + ["linear"]
    return ConvTwin(links(rule.net, in_shape), activations=activations, **same_settings(rule, loss))


def one_hot(y: Tensor) -> np.ndarray:
    return np.eye(3)[y.numpy()]


def compare(
    rule: dp.DualProp,
    in_shape: tuple[int, ...],
    activation: str,
    loss: str,
    run: Callable[[Twin, np.ndarray], None],
) -> ConvTwin:
    """States and gradients of one batch from zero."""
    x, y = image_batch(2, in_shape)
    twin = twin_of(rule, in_shape, activation, loss)
    twin.start(x.flatten(1).numpy())
    run(twin, one_hot(y))
    assert_states(rule.infer(x, y), twin)
    assert_gradients(gradient_of(rule, x, y), twin)
    return twin


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("transpose", [False, True], ids=["plain", "transpose"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_schedule_alpha_and_mean(alpha: float, transpose: bool, schedule: str) -> None:
    order, run = SCHEDULES[schedule]
    rule = dp.DualProp(small_conv_net("tanh"), alpha=alpha, beta=BETA, transpose=transpose, schedule=order)
    compare(rule, (2, 6, 6), "tanh", "mse", run)


@pytest.mark.parametrize("schedule", ["sweep-2", "listed"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "hard-sigmoid"])
def test_activations_with_kinks_and_ties_and_every_loss(activation: str, loss: str, schedule: str) -> None:
    """Many neurons of a window are zero together; the first one wins, here as there."""
    order, run = SCHEDULES[schedule]
    rule = dp.DualProp(small_conv_net(activation, seed=1), loss=loss, alpha=0.25, beta=BETA, schedule=order)
    twin = compare(rule, (2, 6, 6), activation, loss, run)
    windows = np.stack([twin.means(1, n) for n in range(2)]).reshape(2, 3, 3, 2, 3, 2)
    assert ((windows == 0).sum((3, 5)) == 4).any()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_kolen_pollack_feedback(alpha: float, schedule: str) -> None:
    order, run = SCHEDULES[schedule]
    rule = dp.DualProp(small_conv_net("relu", "kolen-pollack"), alpha=alpha, beta=BETA, schedule=order)
    compare(rule, (2, 6, 6), "relu", "mse", run)


@pytest.mark.parametrize("schedule", ["sweep-2", "parallel", "listed"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry(geometry: str, schedule: str) -> None:
    in_shape, synapses = GEOMETRIES[geometry]
    net = image_net(synapses(), "tanh", seed=2)
    listed = tuple(k for k in LISTED if k < 4)
    order, run = {
        "sweep-2": (dp.Sweep(2), lambda twin, y: twin.sweeps(2, y)),
        "parallel": (dp.Parallel(), lambda twin, y: twin.ticks(5, y)),
        "listed": (dp.Random(listed), lambda twin, y: twin.in_order(listed, y)),
    }[schedule]
    rule = dp.DualProp(net, alpha=0.25, beta=BETA[:3], schedule=order)
    compare(rule, in_shape, "tanh", "mse", run)


@pytest.mark.parametrize("schedule", ["sweep-1", "listed"])
@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
def test_three_rounds_with_an_optimizer_step_between(feedback: str, schedule: str) -> None:
    net = small_conv_net("tanh", feedback)
    rule = dp.DualProp(net, alpha=0.25, beta=BETA, schedule=SCHEDULES[schedule][0], rounds=3)
    x, y = image_batch(2)
    twin = twin_of(rule, (2, 6, 6), "tanh", "mse")
    twin.start(x.flatten(1).numpy())

    def infer(number: int) -> None:
        if schedule == "sweep-1" and number:
            twin.once_more(one_hot(y))
        else:
            SCHEDULES[schedule][1](twin, one_hot(y))

    assert follow_rounds(rule, twin, x, y, infer, lambda gradients: assert_gradients(gradients, twin)) == 3
    for k, layer in enumerate(net.chain, 1):
        close(layer.synapse.weight.detach(), twin.W[k])


@pytest.mark.parametrize("alpha", [0.25, 0.5])
@pytest.mark.parametrize("schedule", ["sweep-1", "parallel"])
def test_lazy_over_batches_of_changing_size(schedule: str, alpha: float) -> None:
    """States stay in the slots of the batch: a slot that a smaller batch leaves out keeps its state."""
    net = small_conv_net("relu")
    rule = dp.DualProp(net, alpha=alpha, beta=BETA, schedule=SCHEDULES[schedule][0], lazy=True)
    twin = twin_of(rule, (2, 6, 6), "relu", "mse")
    kept: Sequence[tuple[np.ndarray, np.ndarray]] | None = None
    for seed, n in enumerate((2, 1, 2)):
        x, y = image_batch(n, seed=seed)
        twin.start(x.flatten(1).numpy())
        for k in range(1, 5) if kept else ():
            twin.plus[k][:], twin.minus[k][:] = kept[k][0][:n], kept[k][1][:n]
        if schedule == "sweep-1":
            twin.once_more(one_hot(y))
        else:
            twin.ticks(7, one_hot(y), done=7 * seed)  # the first batch has had all slots
        new = [(p.copy(), m.copy()) for p, m in zip(twin.plus, twin.minus, strict=True)]
        if kept:
            new = [
                tuple(np.concatenate([a, b[n:]]) for a, b in zip(now, before, strict=True))
                for now, before in zip(new, kept, strict=True)
            ]
        assert_states(rule.infer(x, y), twin)
        assert_gradients(gradient_of(rule, x, y), twin)
        kept = new


def test_a_winner_that_changes_is_followed() -> None:
    """The tests above see winners that move between two updates: else they could not tell old from new."""
    net = small_conv_net("tanh")
    x, y = image_batch(2)
    before, after = (
        dp.DualProp(net, alpha=0.25, beta=BETA, schedule=dp.Random(LISTED[:n])).infer(x, y).mean[1]
        for n in (7, len(LISTED))
    )
    pool = dp.MaxPool2d(2)
    assert not torch.equal(*(pool.linearise(z)[1].memory[0] for z in (before, after)))
