"""What an inference on a graph does is worked out beforehand, as data; here written out by hand."""

from __future__ import annotations

import torch

import dualprop as dp
from dualprop.engines.dyads.plan import Block, Learning, Planner, Step
from dualprop.engines.dyads.schedules import Update
from dualprop.nets.wiring import Wiring

RESIDUAL = Wiring(("x",), ("a", "b", "c", "y"), ((0, 1), (1, 2), (2, 3), (1, 3), (3, 4)), (4,))


def planner(wiring: Wiring, pooled: tuple[int, ...] = (), **settings: bool) -> Planner:
    return Planner(wiring, [e not in pooled for e in range(len(wiring.edges))], **settings)


def up(layer: int, drives: tuple[int, ...], *, nudged: bool = False) -> Block:
    """The first update of a layer: all its edges are driven, and nothing comes down."""
    return Block(layer, nudged, drives, drives, True, (), (), True)


def down(layer: int, feedbacks: tuple[int, ...]) -> Block:
    """Its last one: the drive is as it was, and all that is above sends down."""
    return Block(layer, False, (), (), False, feedbacks, feedbacks, True)


def test_one_sweep_on_a_residual_net() -> None:
    """x -0-> a -1-> b -2-> c -4-> y, and a -3-> c: up, the output nudged, down; layers learn from the top.

    c's edges learn only after a's last update: one of them reads a.
    """
    updates = dp.Sweep().plan(RESIDUAL, torch.Generator())
    assert [u.layers for u in updates] == [(1,), (2,), (3,), (4,), (3,), (2,), (1,)]
    assert planner(RESIDUAL).plan(updates, learn=True) == (
        Step(()),
        Step((up(1, (0,)),)),
        Step((up(2, (1,)),)),
        Step((up(3, (2, 3)),)),
        Step((up(4, (4,), nudged=True),)),
        Step((down(3, (4,)),), (Learning(4),)),
        Step((down(2, (2,)),)),
        Step((down(1, (1, 3)),), (Learning(3), Learning(2), Learning(1))),
    )


def test_without_learning_there_is_a_step_for_each_update() -> None:
    steps = planner(RESIDUAL).plan(dp.Sweep().plan(RESIDUAL, torch.Generator()))
    assert len(steps) == 7
    assert not any(step.learnings for step in steps)


def test_an_update_from_which_nothing_has_changed_is_left_out() -> None:
    a, again = Update((1,)), Update((1,))
    assert [len(step.blocks) for step in planner(RESIDUAL).plan([a, again])] == [1, 0]
    assert [len(step.blocks) for step in planner(RESIDUAL, damped=True).plan([a, again])] == [1, 1]


def test_only_what_has_moved_is_driven_anew() -> None:
    """y reads h and x; h moves in between, x does not."""
    wiring = Wiring(("x",), ("h", "y"), ((0, 1), (1, 2), (0, 2)), (2,))
    order = [Update((k,)) for k in (1, 2, 1, 2)]
    (first,), (second,) = (planner(wiring).plan(order)[n].blocks for n in (1, 3))
    assert (first.drives, first.summed) == ((1, 2), True)
    assert (second.drives, second.summed) == ((1,), True)


def test_a_loss_that_begins_to_act_is_news_to_its_output_alone() -> None:
    order = [Update((1,)), Update((2,)), Update((3,)), Update((4,), False), Update((3, 4), True), Update((3,))]
    steps = planner(RESIDUAL).plan(order)
    assert steps[3].blocks == (up(4, (4,)),)
    assert [block.layer for block in steps[4].blocks] == [4]
    assert [block.feedbacks for block in steps[5].blocks] == [(4,)]


def test_a_difference_that_has_gone_is_news_to_the_layer_below() -> None:
    order = [Update((1,)), Update((2,)), Update((1,)), Update((2,), False), Update((1,))]
    fed = [step.blocks[0].fed for step in planner(Wiring.chain(2)).plan(order)]
    assert fed == [(), (), (1,), (), ()]


def test_feedback_through_a_pool_is_new_where_the_state_below_moves() -> None:
    """a moves and y has not: through an affine edge the feedback to a is as it was, through a pool it is not."""
    wiring = Wiring.chain(2)
    order = [Update((k,)) for k in (1, 2, 1, 1)]
    linear = planner(wiring).plan(order)
    assert [step.blocks[0].feedbacks for step in linear if step.blocks] == [(), (), (1,)]
    pooled = planner(wiring, pooled=(1,)).plan(order)
    assert [step.blocks[0].feedbacks for step in pooled if step.blocks] == [(), (), (1,), (1,)]
    assert [step.blocks[0].seen for step in pooled if step.blocks] == [(0,), (1,), (), (1,)]


def test_a_self_loop_is_driven_anew_at_every_update() -> None:
    wiring = Wiring(("x",), ("h",), ((0, 1), (1, 1)), (1,))
    steps = planner(wiring).plan([Update((1,))] * 3)
    assert [step.blocks[0].drives for step in steps] == [(0, 1), (1,), (1,)]
    assert [step.blocks[0].feedbacks for step in steps] == [(), (1,), (1,)]


def test_layers_updated_at_once_read_the_values_before() -> None:
    wiring = Wiring.chain(2)
    steps = planner(wiring).plan([Update((1, 2))] * 2, learn=True)
    assert steps[1].blocks == (up(1, (0,)), up(2, (1,), nudged=True))
    assert steps[2].blocks == (
        Block(1, False, (1,), (), False, (1,), (1,), True),
        Block(2, True, (), (1,), True, (), (), False),  # what layer 1 has seen with its feedback
    )
    assert steps[2].learnings == (Learning(2), Learning(1))


def test_layers_that_are_never_updated_learn_before_all_others() -> None:
    steps = planner(RESIDUAL).plan([Update((1,))], learn=True)
    assert steps[0].learnings == (Learning(4, says=True),)  # it reads c, which stays at zero
    assert [learning.layer for learning in steps[1].learnings] == [3, 2, 1]


def test_it_prints_as_lines() -> None:
    """x -0-> a -1-> b -2-> c -4-> y, and a -3-> c; the second nudge of y comes from nothing new."""
    updates = [*dp.Sweep().plan(RESIDUAL, torch.Generator()), Update((4,)), Update((1, 4))]
    assert str(planner(RESIDUAL).plan(updates, learn=True)).splitlines() == [
        "0  -",
        "1  a (up x -> a)",
        "2  b (up a -> b)",
        "3  c (up b -> c, up a -> c)",
        "4  y nudged (up c -> y)",
        "5  c (down c -> y)",
        "6  b (down b -> c)",
        "7  a (down a -> b, down a -> c)",
        "8  y nudged (up c -> y)",
        "9  learn y, c, b, a",
    ]
