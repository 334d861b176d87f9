"""The engine equals the slow twin: every schedule, α, mean, loss, activation and kind of feedback."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.beside_twin import assert_gradients, assert_states, close, drawn, same_settings
from tests.oracles.builders import double_batch, double_net, follow_rounds, gradient_twice
from tests.oracles.twin import ACTIVATIONS, Twin

pytestmark = pytest.mark.filterwarnings("ignore:schedule")  # not every order here lets every layer learn

SIZES = (4, 5, 3, 4, 3)
BETA = (0.7, 1.1, 0.5, 0.8)  # no two ratios alike, and ᾱβ_L < 1
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
LISTED = (2, 1, 4, 3, 3, 2, 1, 4, 3, 1, 2)


SCHEDULES: dict[str, tuple[dp.Schedule, Callable[[Twin, np.ndarray], None]]] = {
    "sweep-1": (dp.Sweep(), lambda twin, y: twin.sweeps(1, y)),
    "sweep-2": (dp.Sweep(2), lambda twin, y: twin.sweeps(2, y)),
    "parallel-4": (dp.Parallel(4), lambda twin, y: twin.ticks(4, y)),
    "parallel": (dp.Parallel(), lambda twin, y: twin.ticks(7, y)),
    "parallel-10": (dp.Parallel(10), lambda twin, y: twin.ticks(10, y)),
    "random-25": (dp.Random(25, seed=3), lambda twin, y: twin.in_order(drawn(25, len(SIZES) - 1, 3), y)),
    "listed": (dp.Random(LISTED), lambda twin, y: twin.in_order(LISTED, y)),
}


def twin_of(rule: dp.DualProp, activations: Sequence[str], loss: str) -> Twin:
    return Twin(activations=activations, **same_settings(rule, loss))


def one_hot(y: Tensor) -> np.ndarray:
    return np.eye(SIZES[-1])[y.numpy()]


def compare(rule: dp.DualProp, activations: Sequence[str], loss: str, schedule: str) -> None:
    """States and gradients of one batch from zero."""
    x, y = double_batch(3, SIZES[0], SIZES[-1])
    twin = twin_of(rule, activations, loss)
    twin.start(x.numpy())
    SCHEDULES[schedule][1](twin, one_hot(y))
    assert_states(rule.infer(x, y), twin)
    assert_gradients(gradient_twice(rule, x, y), twin)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("transpose", [False, True], ids=["plain", "transpose"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_schedule_alpha_mean_and_loss(alpha: float, transpose: bool, loss: str, schedule: str) -> None:
    net = double_net(SIZES, "tanh")
    rule = dp.DualProp(
        net, loss=loss, alpha=alpha, beta=BETA, transpose=transpose, schedule=SCHEDULES[schedule][0]
    )
    compare(rule, ["tanh"] * 3 + ["linear"], loss, schedule)


def in_passes(count: int, *order: tuple[int, ...], first: bool = True) -> Callable[[Twin, np.ndarray], None]:
    """A feed-forward pass, then the same order again and again."""

    def infer(twin: Twin, y: np.ndarray) -> None:
        if first:
            twin.feed_forward()
            twin.update([twin.L], None)
        for layers in count * order:
            twin.update(layers, y)

    return infer


PASSES: dict[str, Callable[[Twin, np.ndarray], None]] = {
    "forward:1": in_passes(1, (1,), (2,), (3,), (4,)),
    "forward:5": in_passes(5, (1,), (2,), (3,), (4,)),
    "backward:2": in_passes(2, (4,), (3,), (2,), (1,)),
    "even-odd:3": in_passes(3, (2, 4), (1, 3)),
    "odd-even:3": in_passes(3, (1, 3), (2, 4)),
    "order:[4,[2,3,1]]:3": in_passes(3, (4,), (1, 2, 3), first=False),
}


@pytest.mark.parametrize("schedule", PASSES)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("alpha", "transpose"), [(0.25, False), (1.0, True)])
def test_passes(alpha: float, transpose: bool, loss: str, schedule: str) -> None:
    net = double_net(SIZES, "tanh")
    rule = dp.DualProp(net, loss=loss, alpha=alpha, beta=BETA, transpose=transpose, schedule=schedule)
    x, y = double_batch(3, SIZES[0], SIZES[-1])
    twin = twin_of(rule, ["tanh"] * 3 + ["linear"], loss)
    twin.start(x.numpy())
    PASSES[schedule](twin, one_hot(y))
    assert_states(rule.infer(x, y), twin)
    assert_gradients(gradient_twice(rule, x, y), twin)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_dp_transpose_is_that_of_its_authors_at_one_minus_alpha(alpha: float) -> None:
    """Theirs: z^+ = f(a + (1-α) d), z^- = f(a - α d), z̄ = α z^+ + (1-α) z^-, β at the output alone."""
    net = double_net(SIZES, "tanh")
    x, y = double_batch(3, SIZES[0], SIZES[-1])
    rule = dp.DualProp(net, loss="cross_entropy", alpha=1 - alpha, beta=0.3, transpose=True, schedule="forward:6")
    layers, n = [(layer.synapse.weight.detach(), layer.synapse.bias.detach()) for layer in net.chain], 4
    z: list[Tensor] = [x]
    for k, (weight, bias) in enumerate(layers, 1):
        z.append(z[-1] @ weight.T + bias if k == n else torch.tanh(z[-1] @ weight.T + bias))
    plus, minus = list(z), list(z)
    for _ in range(6):
        for k in range(1, n + 1):
            below = alpha * plus[k - 1] + (1 - alpha) * minus[k - 1]
            a = below @ layers[k - 1][0].T + layers[k - 1][1]
            if k == n:
                force = 0.3 * (torch.softmax(a, 1) - torch.eye(SIZES[-1], dtype=a.dtype)[y])
                plus[k], minus[k] = a - (1 - alpha) * force, a + alpha * force
            else:
                d = (plus[k + 1] - minus[k + 1]) @ layers[k][0]
                plus[k], minus[k] = torch.tanh(a + (1 - alpha) * d), torch.tanh(a - alpha * d)
    state = rule.infer(x, y)
    for k in range(1, n + 1):
        torch.testing.assert_close(state.plus[k], plus[k], rtol=0, atol=1e-14)
        torch.testing.assert_close(state.minus[k], minus[k], rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", ["sweep-2", "parallel", "listed"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str, schedule: str) -> None:
    net = double_net(SIZES, activation, seed=1)
    rule = dp.DualProp(net, alpha=0.25, beta=BETA, schedule=SCHEDULES[schedule][0])
    compare(rule, [activation] * 3 + ["linear"], "mse", schedule)


@pytest.mark.parametrize("loss", ["mse", "mse-linearised"])
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_every_output_layer(output: str, loss: str) -> None:
    net = double_net(SIZES, "relu", seed=2, output=output)
    rule = dp.DualProp(net, loss=loss, alpha=0.75, beta=BETA)
    compare(rule, ["relu"] * 3 + [output], loss, "sweep-1")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("transpose", [False, True], ids=["plain", "transpose"])
def test_kolen_pollack_feedback(transpose: bool, schedule: str) -> None:
    net = double_net(SIZES, "sigmoid", feedback="kolen-pollack")
    rule = dp.DualProp(net, alpha=0.75, beta=BETA, transpose=transpose, schedule=SCHEDULES[schedule][0])
    compare(rule, ["sigmoid"] * 3 + ["linear"], "mse", schedule)


@pytest.mark.parametrize("schedule", ["sweep-1", "parallel-4", "listed"])
@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_three_rounds_with_an_optimizer_step_between(loss: str, feedback: str, schedule: str) -> None:
    net = double_net(SIZES, "tanh", feedback=feedback)
    rule = dp.DualProp(net, loss=loss, alpha=0.25, beta=BETA, schedule=SCHEDULES[schedule][0], rounds=3)
    x, y = double_batch(3, SIZES[0], SIZES[-1])
    twin = twin_of(rule, ["tanh"] * 3 + ["linear"], loss)
    twin.start(x.numpy())

    def infer(number: int) -> None:
        if schedule == "sweep-1" and number:
            twin.once_more(one_hot(y))
        else:
            SCHEDULES[schedule][1](twin, one_hot(y))

    assert follow_rounds(rule, twin, x, y, infer, lambda gradients: assert_gradients(gradients, twin)) == 3
    for k, layer in enumerate(net.chain, 1):
        close(layer.synapse.weight.detach(), twin.W[k])


class Slots:
    """A lazy twin's memory: what the last batch of more than i samples left in slot i, and the slot's age."""

    def __init__(self) -> None:
        self.plus: dict[tuple[int, int, int], float] = {}
        self.minus: dict[tuple[int, int, int], float] = {}
        self.ages: dict[int, int] = {}

    def recall(self, twin: Twin) -> int:
        """Put them into the twin; how many updates every slot of the batch has seen since it was at zero."""
        for k in range(1, twin.L + 1):
            for n, i in np.ndindex(*twin.plus[k].shape):
                twin.plus[k][n, i] = self.plus.get((k, n, i), 0.0)
                twin.minus[k][n, i] = self.minus.get((k, n, i), 0.0)
        return min(self.ages.get(n, 0) for n in range(len(twin.plus[0])))

    def remember(self, twin: Twin, updates: int = 0) -> None:
        """Take the twin's states, after so many updates of them."""
        for k in range(1, twin.L + 1):
            for n, i in np.ndindex(*twin.plus[k].shape):
                self.plus[k, n, i] = twin.plus[k][n, i]
                self.minus[k, n, i] = twin.minus[k][n, i]
        for n in range(len(twin.plus[0])):
            self.ages[n] = self.ages.get(n, 0) + updates


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sizes", [(4, 4, 2), (4, 2, 4), (2, 4, 3), (3, 1, 4, 2)], ids=str)
@pytest.mark.parametrize("schedule", ["sweep-1", "listed"])
def test_lazy_over_batches_of_changing_size(schedule: str, sizes: tuple[int, ...], alpha: float) -> None:
    def infer(twin: Twin, y: np.ndarray, done: int) -> None:
        twin.once_more(y) if schedule == "sweep-1" else twin.in_order(LISTED, y)

    follow_batches(SCHEDULES[schedule][0], sizes, alpha, infer)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sizes", [(2,) * 9, (4, 2, 4, 1, 3, 4), (2, 2, 3, 3, 3, 3, 2)], ids=str)
@pytest.mark.parametrize("ticks", [1, 2, 3, 7])
def test_a_lazy_rule_counts_its_ticks_from_batch_to_batch(
    ticks: int, sizes: tuple[int, ...], alpha: float
) -> None:
    """Nudged from the fourth tick on that the youngest slot of the batch has seen since it was at zero."""
    follow_batches(dp.Parallel(ticks), sizes, alpha, lambda twin, y, done: twin.ticks(ticks, y, done), ticks)


def follow_batches(
    schedule: dp.Schedule,
    sizes: Sequence[int],
    alpha: float,
    infer: Callable[[Twin, np.ndarray, int], None],
    updates: int = 0,
) -> None:
    """A lazy rule and its twin on batches of these sizes, weights learning."""
    net = double_net(SIZES, "sigmoid")
    rule = dp.DualProp(net, alpha=alpha, beta=BETA, schedule=schedule, lazy=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    twin, slots = twin_of(rule, ["sigmoid"] * 3 + ["linear"], "mse"), Slots()
    for seed, n in enumerate(sizes):
        x, y = double_batch(n, SIZES[0], SIZES[-1], seed=seed)
        twin.start(x.numpy())
        infer(twin, one_hot(y), slots.recall(twin))
        slots.remember(twin, updates)
        assert_states(rule.infer(x, y), twin)
        assert_gradients(gradient_twice(rule, x, y), twin)
        optimizer.step()
        twin.descend(lr=0.05)


def test_a_random_order_is_drawn_on_from_batch_to_batch() -> None:
    net = double_net(SIZES, "tanh")
    rule = dp.DualProp(net, beta=BETA, schedule=dp.Random(15, seed=5), lazy=True)
    generator = torch.Generator().manual_seed(5)
    twin, slots, orders = twin_of(rule, ["tanh"] * 3 + ["linear"], "mse"), Slots(), []
    for seed in range(3):
        x, y = double_batch(3, SIZES[0], SIZES[-1], seed=seed)
        orders.append([k for u in rule.schedule.updates(4, generator) for k in u.layers])
        twin.start(x.numpy())
        slots.recall(twin)
        twin.in_order(orders[-1], one_hot(y))
        slots.remember(twin)
        assert_gradients(gradient_twice(rule, x, y), twin)
    assert orders[0] != orders[1] != orders[2]
