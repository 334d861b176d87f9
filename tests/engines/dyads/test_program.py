"""What a plan's registers hold for how long: read off by hand, and by an interpreter that forgets nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dualprop as dp
from dualprop.engines.dyads.plan import Planner
from dualprop.engines.dyads.program import Do, Program, Register, assembled, every_register
from dualprop.nets.wiring import Wiring
from tests.oracles.graph_nets import GRAPHS, named_net

RESIDUAL = Wiring(("x",), ("a", "b", "y"), ((0, 1), (1, 2), (2, 3), (1, 3)), (3,))


def program(wiring: Wiring, schedule: dp.Schedule, *, learn: bool = True, states: bool = False) -> Program:
    planner = Planner(wiring, [True] * len(wiring.edges))
    steps = planner.plan(schedule.plan(wiring, torch.Generator()), learn=learn)
    kept = {Register("output", k) for k in wiring.outputs}
    return assembled(steps, wiring, kept | {Register("states", k) for k in wiring.out_of if states})


def test_one_sweep_of_two_layers_reads_as_it_is_done() -> None:
    assert str(program(Wiring.chain(2), dp.Sweep())).splitlines() == [
        "see 0 (frees linearisation 0)",
        "drive 0 (frees operand 0)",
        "gather 1 (frees driven 0)",
        "update 1 (frees difference 1, output 1, states 1)",
        "see 1 (frees mean 1)",
        "drive 1 (frees operand 1)",
        "gather 2 (frees driven 1)",
        "update 2 nudged (frees mean 2, states 2, total 2)",
        "send 1 (frees linearisation 1)",
        "collect 1 (frees sent 1)",
        "update 1 (frees output 1, pull 1, states 1, total 1)",
        "scale 2 (frees difference 2)",
        "learn 1 (frees delta 2, mean 1)",
        "scale 1 (frees difference 1)",
        "learn 0 (frees delta 1, mean 0)",
    ]


def test_drive_and_feedback_are_written_over_where_they_are_read_for_the_last_time() -> None:
    updates = [each for each in program(RESIDUAL, dp.Sweep()).instructions if each.do is Do.UPDATE]
    assert [(each.number, each.spend) for each in updates] == [
        (1, False),
        (2, False),
        (3, False),  # what an output says may be its very drive
        (2, True),
        (1, True),
    ]


def test_a_part_of_a_sum_that_is_made_again_is_kept() -> None:
    """y reads h and x; h moves in between, x does not: the drive from x outlives the first sum."""
    wiring = Wiring(("x",), ("h", "y"), ((0, 1), (1, 2), (0, 2)), (2,))
    listed = program(wiring, dp.Random([1, 2, 1, 2])).instructions
    first, second = (each for each in listed if each.do is Do.GATHER and each.number == 2)
    assert first.frees == (Register("driven", 1),)
    assert second.frees == (Register("driven", 1), Register("driven", 2))


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_only_what_was_written_is_read_and_only_what_is_dead_is_freed(graph: str, states: bool) -> None:
    wiring = named_net(graph).wiring
    for schedule in (dp.Sweep(), dp.Sweep(3), dp.Parallel(7), dp.Random(25, seed=1)):
        check(wiring, program(wiring, schedule, states=states), states)


@given(st.data())
def test_on_any_graph_and_order(data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, 5))
    edges = [(data.draw(st.integers(0, k - 1)), k) for k in range(1, depth + 1)]
    for _ in range(data.draw(st.integers(0, 4))):
        edges.append((data.draw(st.integers(0, depth)), data.draw(st.integers(1, depth))))
    names = tuple(f"h{k}" for k in range(1, depth + 1))
    wiring = Wiring(("x",), names, tuple(sorted(edges, key=lambda edge: edge[1])), (depth,))
    order = data.draw(st.lists(st.integers(1, depth), min_size=1, max_size=20))
    check(wiring, program(wiring, dp.Random(order)), states=False)


def check(wiring: Wiring, listed: Program, states: bool) -> None:
    """By a set of what is there: what is read must be, and what is there in the end must be asked for."""
    there = set(listed.needs)
    assert all(register.name in ("mean", "difference", "states") for register in there)
    for each in listed.instructions:
        assert each.reads(wiring) <= there, each
        there |= each.writes
        assert set(each.frees) <= there, each
        there -= set(each.frees)
        if each.do is Do.UPDATE and each.spend:  # a sum of one part is that part
            parts = [("driven", e) for e in wiring.into[each.number]]
            parts += [("sent", e) for e in wiring.out_of[each.number]]
            assert not there & {Register(*part) for part in parts}, each
    asked = {Register("output", k) for k in wiring.outputs}
    asked |= {Register("states", k) for k in wiring.out_of if states}
    assert there <= asked
    assert there <= every_register(wiring)
    assert {register for register in there if register.name == "output"} >= {
        Register("output", k) for k in wiring.outputs
    }
