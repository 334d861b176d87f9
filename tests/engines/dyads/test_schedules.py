"""Schedules are data: MATHS §5 written out."""

from __future__ import annotations

import pytest
import torch

import dualprop as dp


def blocks(schedule: dp.Schedule, depth: int, seed: int = 0) -> list[tuple[tuple[int, ...], bool]]:
    generator = torch.Generator().manual_seed(seed)
    return [(tuple(u.layers), u.nudged) for u in schedule.updates(depth, generator)]


def test_one_sweep_goes_up_and_down_once():
    assert [b for b, _ in blocks(dp.Sweep(), 4)] == [(1,), (2,), (3,), (4,), (3,), (2,), (1,)]
    assert blocks(dp.Sweep(), 1) == [((1,), True)]


def test_sweeps_repeat():
    once = blocks(dp.Sweep(), 3)
    assert blocks(dp.Sweep(3), 3) == 3 * once
    assert all(nudged for _, nudged in once)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_parallel_updates_all_layers_and_nudges_from_tick_l_on(depth):
    made = blocks(dp.Parallel(depth + 3), depth)
    assert [layers for layers, _ in made] == [tuple(range(1, depth + 1))] * (depth + 3)
    assert [nudged for _, nudged in made] == [False] * (depth - 1) + [True] * 4
    assert len(blocks(dp.Parallel(), depth)) == 2 * depth - 1  # once up and once down


def test_random_draws_every_layer_uniformly():
    drawn = [layers[0] for layers, nudged in blocks(dp.Random(8000), 4) if nudged]
    assert len(drawn) == 8000
    share = torch.bincount(torch.tensor(drawn), minlength=6)[1:5] / 8000
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.02)
    assert set(drawn) == {1, 2, 3, 4}


def test_random_draws_depend_on_the_generator_alone():
    before = torch.get_rng_state()
    assert blocks(dp.Random(50), 4, seed=1) == blocks(dp.Random(50), 4, seed=1)
    assert blocks(dp.Random(50), 4, seed=1) != blocks(dp.Random(50), 4, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(0)
    runs = [list(dp.Random(50).updates(4, generator)) for _ in range(2)]
    assert runs[0] != runs[1]


def test_a_listed_order_is_taken_as_it_is():
    order = [2, 1, 3, 3, 1]
    schedule = dp.Random(order)
    assert [layers for layers, _ in blocks(schedule, 3)] == [(k,) for k in order]
    order.append(1)  # the caller's list is not the schedule's
    assert len(blocks(schedule, 3)) == 5
    assert dp.Random((2, 1)) == dp.Random([2, 1])


def test_schedules_are_values():
    assert dp.Sweep() == dp.Sweep(1)
    assert dp.Sweep(1) != dp.Sweep(2)
    assert len({dp.Sweep(), dp.Parallel(), dp.Random(5), dp.Random([1]), dp.Sweep(1)}) == 4
    assert "Parallel(ticks=3)" in repr(dp.Parallel(3))
