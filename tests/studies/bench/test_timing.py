"""Pairs, their order and their statistics, by a clock that the work itself moves."""

import pytest
import torch

from dualprop.studies.bench import run, timing
from dualprop.studies.bench.arithmetic import Arithmetic
from dualprop.studies.bench.plan import Plan
from dualprop.studies.bench.subjects import Subject
from dualprop.studies.bench.timing import Quartiles, in_turn, ratios
from dualprop.studies.bench.workload import Workload

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still except while work is done."""

    def __init__(self, monkeypatch):
        self.now, self.done = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def work(self, name, *durations):
        """Work that takes these seconds by turns, the last again and again."""
        left = list(durations)

        def one():
            self.now += left.pop(0) if len(left) > 1 else left[0]
            self.done.append(name)

        return one


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_quartiles():
    assert Quartiles.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Quartiles(2, 3, 4)
    assert Quartiles.of([1.0, 2.0]) == Quartiles(1.25, 1.5, 1.75)
    assert Quartiles.of([7.0]) == Quartiles(7, 7, 7)


def test_ratios_are_of_pairs():
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == [2, 3, 1]


def test_the_order_alternates_after_warming_up(clock):
    times = in_turn([clock.work("a", 1), clock.work("b", 2)], repeats=3, budget=1000, device=CPU)
    warm, rest = clock.done[: 2 * timing.WARM_UP], clock.done[2 * timing.WARM_UP :]
    assert warm == ["a", "b"] * timing.WARM_UP
    assert rest == ["a", "b", "b", "a", "a", "b"]
    assert times == [[1, 1, 1], [2, 2, 2]]


def test_warm_up_is_not_timed(clock):
    slow_at_first = clock.work("a", *[50] * timing.WARM_UP, 1)
    assert in_turn([slow_at_first], repeats=2, budget=1000, device=CPU) == [[1, 1]]


def test_the_budget_ends_the_rounds_and_the_warming_up(clock):
    work = [clock.work("a", 3), clock.work("b", 3)]
    assert in_turn(work, repeats=10, budget=20, device=CPU) == [
        [3, 3, 3],
        [3, 3, 3],
    ]  # 6 s of warming up, 18 of work
    assert clock.now == 24


def test_what_is_short_is_timed_in_blocks(clock):
    short, long = clock.work("a", timing.BLOCK / 8), clock.work("b", 2 * timing.BLOCK)
    times = in_turn([short, long], repeats=2, budget=1000, device=CPU)
    assert clock.done[2 * timing.WARM_UP :] == [*"aaaaaaaa", "b", "b", *"aaaaaaaa"]
    assert times == [[pytest.approx(timing.BLOCK / 8)] * 2, [pytest.approx(2 * timing.BLOCK)] * 2]


def test_one_round_is_always_finished(clock):
    assert in_turn([clock.work("a", 3), clock.work("b", 4)], repeats=10, budget=0.1, device=CPU) == [[3], [4]]


@pytest.mark.parametrize(("first", "steps", "pairs"), [(26.0, 1, 1), (24.0, 2 + timing.WARM_UP + 3, 3)])
def test_a_step_that_takes_a_quarter_of_the_budget_is_the_only_one(monkeypatch, clock, first, steps, pairs):
    """It is counted, timed and done with; else there are two counted steps, warm-up and pairs, and a peak."""
    counting = clock.work("counted", first, 0.5)
    step, bp = clock.work("step", 0.5), clock.work("bp", 0.25)
    monkeypatch.setattr(run, "peak_bytes", lambda before, work, device: 7)
    subject = Subject(step, lambda: (counting(), Arithmetic(11, 100))[1], [], lambda: step)
    plain = Subject(bp, lambda: Arithmetic(8, 50), [], lambda: bp)
    workload = Workload("mlp", 784, (4,), torch.float32, 2, CPU)
    row = run.timed("slow", "float32", workload, subject, plain, Plan(budget=100.0, repeats=3))
    assert len(clock.done) - clock.done.count("bp") == steps
    assert len(row.seconds) == len(row.bp_seconds) == pairs
    assert row.seconds[0] == (first if pairs == 1 else 0.5)
    assert row.peak_bytes == (None if pairs == 1 else 7)
    assert (row.products, row.operations, row.bp_operations) == (11, 100, 50)
    assert row.ratio_per_operation == row.seconds[0] / 0.25 * 50 / 100
