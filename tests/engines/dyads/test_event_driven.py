"""The event-driven engine: how many products it makes, and that it finds what a loop without caches finds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dualprop as dp
from dualprop.engines.dyads.blocks import Task
from dualprop.engines.dyads.inference import STATES, Inference
from dualprop.engines.dyads.plan import Planner
from dualprop.engines.dyads.schedules import Update
from tests.oracles.builders import assert_same, double_batch, double_net, gradient_of, gradient_twice

pytestmark = pytest.mark.filterwarnings("ignore:schedule")  # not every order here lets every layer learn

ZERO = -1


class Ledger:
    """Counts the products that are needed, knowing nothing of states but where they came from.

    A layer's state is a number that stands for all that it was computed from; two updates from the same inputs
    give the same number. `drawn` holds the states, `sent` the differences: ZERO where nothing has nudged yet.
    A product is needed when its input is not the one it was last made from.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.names: dict[tuple[object, ...], int] = {}
        self.drawn = [self.name("start", k) for k in range(depth + 1)]
        self.sent = [ZERO] * (depth + 1)
        self.driven: list[int | None] = [None] * (depth + 1)
        self.fed: list[int | None] = [None] * (depth + 1)
        self.products = 0

    def name(self, *inputs: object) -> int:
        return self.names.setdefault(inputs, len(self.names))

    def update(self, layers: Sequence[int], nudged: bool = True) -> None:
        new = []
        for k in layers:
            below = self.drawn[k - 1]
            if self.driven[k] != below:
                self.driven[k] = below
                self.products += 1
            if k == self.depth:
                above: object = "target" if nudged else ZERO
            else:
                above = self.sent[k + 1]
                if above != ZERO and self.fed[k] != above:
                    self.fed[k] = above
                    self.products += 1
            state = self.name(k, below, above)
            new.append((k, state, ZERO if above == ZERO else state))
        for k, state, sent in new:
            self.drawn[k], self.sent[k] = state, sent


def counted(depth: int, schedule: dp.Schedule) -> tuple[dp.Step, Ledger]:
    """What the engine says it made, and what was needed."""
    net = double_net([4] * (depth + 1), "tanh")
    rule = dp.DualProp(net, beta=0.5)
    vars(rule)["schedule"] = schedule  # also one that a new rule refuses, for nothing learns in it
    rule.generator.manual_seed(schedule.seed)
    step = rule.backward(*double_batch(3, 4, 4))
    ledger = Ledger(depth)
    generator = torch.Generator().manual_seed(schedule.seed)
    for layers, nudged in schedule.updates(depth, generator):
        ledger.update(layers, nudged)
    return step, ledger


@pytest.mark.parametrize("depth", range(1, 8))
def test_one_sweep_makes_l_drives_and_l_minus_1_feedbacks(depth):
    step, _ = counted(depth, dp.Sweep())
    assert step.products == depth + (depth - 1)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("schedule", [dp.Sweep(1), dp.Sweep(2), dp.Sweep(5)], ids=str)
def test_sweeps_make_no_product_twice(schedule, depth):
    step, ledger = counted(depth, schedule)
    assert step.products == ledger.products


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("ticks", [1, 2, None, 9, 20])
def test_parallel_ticks_make_no_product_twice(ticks, depth):
    step, ledger = counted(depth, dp.Parallel(ticks))
    assert step.products == ledger.products


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(5))
def test_random_orders_make_no_product_twice(seed, depth):
    step, ledger = counted(depth, dp.Random(100, seed=seed))
    assert step.products == ledger.products


def test_a_hundred_random_updates_of_four_layers_cost_less_than_half_of_a_naive_loop():
    made, naive = [], []
    for seed in range(20):
        schedule = dp.Random(100, seed=seed)
        step, _ = counted(4, schedule)
        order = [k for u in schedule.updates(4, torch.Generator().manual_seed(seed)) for k in u.layers]
        made.append(step.products)
        naive.append(sum(1 if k == 4 else 2 for k in order))  # both drives at every update
        assert made[-1] < 0.55 * naive[-1]
    assert sum(naive) / 20 == pytest.approx(175, abs=5)
    assert sum(made) / 20 == pytest.approx(77, abs=8)  # about 77 matrix products


@pytest.mark.parametrize("schedule", [dp.Sweep(3), dp.Parallel(9), dp.Random(40, seed=1)], ids=str)
def test_the_count_is_of_real_products(schedule, monkeypatch):
    made = []
    for method in ("affine", "transposed"):
        original = getattr(dp.Dense, method)
        monkeypatch.setattr(
            dp.Dense, method, lambda self, *args, original=original: made.append(1) or original(self, *args)
        )
    net = double_net((4, 4, 4, 4), "tanh")
    step = dp.DualProp(net, beta=0.5, schedule=schedule).backward(*double_batch(3, 4, 4))
    assert step.products == len(made)


def engine(net: dp.Net, order: Sequence[int], kind: type[Inference] = Inference) -> Inference:
    x, y = double_batch(3, 4, 4)
    rule = dp.DualProp(net, beta=0.5)
    target = rule.loss.encode(y, torch.Size((3, 4)), x.dtype)
    with torch.no_grad():
        inference = kind(net, rule.nudge).begin([x], {len(net): Task(rule.loss, target)})
        inference.run(dp.Random(order).updates(len(net), torch.Generator()), learn=False, keep=STATES)
    return inference


def products(net: dp.Net, order: Sequence[int]) -> int:
    return engine(net, order).products


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("before", [(1, 2, 3, 4, 3, 2, 1), (4, 3, 2, 1), (1, 3)], ids=str)
def test_updating_the_same_layer_again_costs_nothing_and_changes_nothing(before, k):
    net = double_net((4,) * 5, "tanh")
    once, often = engine(net, [*before, k]), engine(net, [*before, k, k, k, k])
    assert often.products == once.products
    ours, theirs = once.state(), often.state()
    for a, b in zip(ours.plus + ours.minus, theirs.plus + theirs.minus, strict=True):
        assert torch.equal(a, b)


def test_updates_whose_inputs_stand_still_cost_nothing():
    net = double_net((4,) * 6, "tanh")
    up = [1, 2, 3, 4, 5]
    assert products(net, up) == 5
    assert products(net, [*up, 5, 2, 1, 3]) == 5  # below layer 4 nothing has moved
    assert products(net, [*up, 5, 2, 1, 3, 4]) == 6  # the feedback from layer 5
    assert products(net, [*up, 4, 1, 2]) == 6  # layer 2 hears of it only through layer 3
    assert products(net, [*up, 4, 3, 5]) == 8  # the feedback from 4, and the new drive of 5


@given(depth=st.integers(1, 6), seed=st.integers(0, 999), length=st.integers(1, 40))
def test_any_order_makes_no_product_twice(depth, seed, length):
    order = torch.randint(1, depth + 1, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    step, ledger = counted(depth, dp.Random(order))
    # a net whose output was never updated is asked for its output, which takes a drive
    asked = ledger.driven[depth] is None
    assert step.products == ledger.products + asked


class Forgetful(Inference):
    """A loop that knows of nothing what it has computed: all is computed anew at every update, and kept."""

    def run(self, updates, *, learn, keep):
        updates = list(updates)
        self.updates += len(updates)
        self._enter()
        for update in updates:
            self._follow(self._binding.bind(self._knowing_nothing().plan([update]), self._every))
        self._follow(self._binding.bind(self._knowing_nothing().plan((), learn=learn), self._every))

    def _knowing_nothing(self) -> Planner:
        planner = self._planner([self.neurons[k].difference is not None for k in range(self.wiring.depth + 1)])
        planner._silent = {k for k in self.wiring.outputs if self.neurons[k].output is None}
        return planner


@pytest.mark.parametrize("feedback", ["symmetric", "kolen-pollack"])
@pytest.mark.parametrize("lazy", [False, True], ids=["fresh", "lazy"])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    "schedule", [dp.Sweep(3), dp.Parallel(5), dp.Parallel(12), dp.Random(100), dp.Random(100, seed=7)], ids=str
)
def test_caches_change_no_result(schedule, alpha, lazy, feedback, monkeypatch):
    net = double_net((5, 6, 4, 5, 3), "sigmoid", feedback=feedback)
    settings = {"alpha": alpha, "beta": 0.5, "schedule": schedule, "lazy": lazy, "transpose": True}
    results = []
    for inference in (Inference, Forgetful):
        monkeypatch.setattr("dualprop.rules.dual_prop.Inference", inference)
        rule = dp.DualProp(net, **settings)
        results.append([gradient_of(rule, *double_batch(n, 5, 3, seed=n)) for n in (4, 2, 3)])
    for ours, theirs in zip(*results, strict=True):
        assert_same(ours, theirs, rtol=1e-13)


class Late(dp.Schedule):
    """A user's schedule: the loss comes and goes while the output layer's drive stands still."""

    def updates(self, depth, generator):
        for k in range(1, depth + 1):
            yield Update((k,), nudged=False)
        yield Update((depth,), nudged=True)
        yield Update((depth - 1,))
        yield Update((depth,), nudged=False)
        yield Update((depth,), nudged=True)
        yield Update((depth - 2, depth))


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_the_loss_may_come_while_the_drive_stands_still(alpha, monkeypatch):
    net, (x, y) = double_net((4,) * 5, "tanh"), double_batch(3, 4, 4)
    rule = dp.DualProp(net, alpha=alpha, beta=0.5, schedule=Late())
    state, ours = rule.infer(x, y), gradient_twice(rule, x, y)
    assert float(state.difference[4].abs().max()) > 0
    step, ledger = counted(4, Late())
    assert step.products == ledger.products
    monkeypatch.setattr("dualprop.rules.dual_prop.Inference", Forgetful)
    assert_same(ours, gradient_of(rule, x, y), rtol=1e-13)


def test_the_forgetful_loop_really_makes_every_product():
    inference = engine(double_net((4,) * 5, "tanh"), [1, 2, 3, 4, 3, 2, 1, 1, 1], Forgetful)
    # two products for each but the output's update; on the way up there is no feedback yet
    assert inference.products == 2 * 9 - 1 - 3
