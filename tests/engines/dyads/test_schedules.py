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


UP = [(1,), (2,), (3,), (4,), (5,)]


@pytest.mark.parametrize(
    ("schedule", "first", "again"),
    [
        (dp.Forward(3), [], UP),
        (dp.Backward(3), UP, UP[::-1]),
        (dp.EvenOdd(3), UP, [(2, 4), (1, 3, 5)]),
        (dp.OddEven(3), UP, [(1, 3, 5), (2, 4)]),
        (dp.Order([4, [1, 5]], 3), [], [(4,), (1, 5)]),
    ],
    ids=repr,
)
def test_passes_come_again_and_again_after_a_feed_forward_one(schedule, first, again):
    made = blocks(schedule, 5)
    assert [layers for layers, _ in made] == first + 3 * again
    nudges = [(layers, nudged) for layers, nudged in made if 5 in layers]
    assert [nudged for _, nudged in nudges] == [False] * bool(first) + [True] * sum(
        5 in each for each in 3 * again
    )


def test_single_layers_have_no_even_ones():
    assert [layers for layers, _ in blocks(dp.EvenOdd(), 1)] == [(1,), (1,)]


@pytest.mark.parametrize("passes", range(1, 7))
def test_forward_passes_bring_the_nudge_down_a_layer_each(passes):
    assert dp.Forward(passes).learning(5) == {k for k in range(1, 6) if 5 - k + 1 <= passes}


@pytest.mark.parametrize(
    "word", ["order:[]", "order:[0]", "order:[[1,1]]", "forward:0", "even-odd:1:2:3:4", "order"]
)
def test_words_that_say_nothing_sensible_are_refused(word):
    with pytest.raises(dp.DualpropError) as caught:
        dp.DualProp(dp.nets.mlp([3, 4, 2]), schedule=word)
    assert "\n" not in str(caught.value)


def test_schedules_are_values():
    assert dp.Sweep() == dp.Sweep(1)
    assert dp.Sweep(1) != dp.Sweep(2)
    assert dp.Sweep(2) != dp.Forward(2)
    assert len({dp.Sweep(), dp.Parallel(), dp.Random(5), dp.Random([1]), dp.Sweep(1)}) == 4
    assert "Parallel(ticks=3)" in repr(dp.Parallel(3))
