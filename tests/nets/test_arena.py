"""Memory that is used again: nobody's is ever somebody else's too, and nobody can tell but by a clock."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from torch import Tensor

from dualprop.nets.kernels import arena, products
from dualprop.nets.kernels.arena import KEPT, SIZES, Arena, Open, converted, empty_like, room


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of every size are large."""
    monkeypatch.setattr(arena, "LEAST", 1)


@pytest.fixture
def opened() -> Iterator[Arena]:
    made = Arena()
    with torch.no_grad(), made.step():
        yield made


def address(z: Tensor) -> int:
    return z.untyped_storage().data_ptr()


def given(like: Tensor) -> Tensor:
    out = room(like)
    assert out is not None
    return out


def bytes_idle(a: Arena) -> int:
    return sum(size * len(blocks) for size, blocks in a._idle.items())


X = torch.arange(12.0).view(3, 4)


def test_memory_comes_back_when_its_last_tensor_is_gone(opened: Arena):
    z = given(X)
    at, part = address(z), z[1:, :2].t()
    del z
    assert address(given(X)) != at  # a part of it is there
    del part
    assert address(given(X)) == at


def test_a_gradient_keeps_its_memory(opened: Arena):
    p = torch.nn.Parameter(X.clone())
    p.grad = given(X).fill_(3.0)
    at = address(p.grad)
    others = [given(X).zero_() for _ in range(3)]
    assert bool((p.grad == 3).all())
    assert at not in {address(o) for o in others}
    p.grad = None
    assert address(given(X)) == at


@pytest.mark.parametrize(
    "z",
    [
        torch.randn(2, 3, 4, 5),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 3).t(),
        torch.randn(3, 1).expand(3, 4),
        torch.randn(6, 4)[::2],
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(3, 4).bfloat16(),
        torch.randn(3, 4, dtype=torch.complex64),
        torch.arange(4),
    ],
    ids=lambda z: f"{z.dtype}-{z.shape}-{z.stride()}",
)
def test_it_is_like_what_pytorch_makes(z: Tensor, opened: Arena):
    ours, theirs = given(z), torch.empty_like(z)
    assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
    assert ours.is_leaf
    assert ours._base is None
    assert address(ours) % 16 == 0
    assert torch.equal(ours.copy_(z), z)
    assert torch.equal(empty_like(z).copy_(z), z)


def test_of_another_shape_it_keeps_channels_last(opened: Arena):
    z = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for like in (z, z.contiguous()):
        out = room(like, (2, 3, 2, 2), torch.int64)
        assert out is not None
        assert out.dtype is torch.int64
        assert out.is_contiguous(memory_format=torch.channels_last) is (like is z)


def test_none_where_pytorch_finds_memory_itself(monkeypatch: pytest.MonkeyPatch):
    assert room(X) is None  # no arena
    with Arena().step():
        assert room(X) is None  # a graph
        with torch.no_grad():
            assert room(X.to("meta")) is None
            assert room(X) is not None
            monkeypatch.setattr(arena, "LEAST", X.nbytes + 1)
            assert room(X) is None
    with torch.no_grad():
        assert room(X) is None


def test_other_threads_do_not_see_it(opened: Arena):
    found = []
    thread = threading.Thread(target=lambda: found.append(room(X)))
    thread.start()
    thread.join()
    assert found == [None]


def test_memory_freed_in_another_thread_comes_back(opened: Arena):
    held = [given(X)]
    at = address(held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert address(given(X)) == at


def test_the_device_at_hand_does_not_matter(opened: Arena):
    with torch.device("meta"):
        assert given(X).device.type == "cpu"


def test_in_inference_mode_and_out_of_it(opened: Arena):
    with torch.inference_mode():
        at = address(given(X))
    z = given(X)
    assert address(z) == at
    assert not z.is_inference()
    z.add_(1).requires_grad_()


def test_autocast_brings_products_to_its_type(opened: Arena):
    delta, p = torch.randn(5, 3), torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.outer(delta, p).dtype is torch.bfloat16
        assert products.outer(delta.bfloat16(), p.bfloat16()).dtype is torch.bfloat16
        assert products.outer(delta.double(), p.double()).dtype is torch.float64


def test_what_some_steps_did_not_use_is_given_up():
    a, wide = Arena(), torch.zeros(100)
    with torch.no_grad():
        with a.step():
            given(X), given(wide)
        for _ in range(KEPT):
            assert bytes_idle(a) == X.nbytes + wide.nbytes
            with a.step():
                given(X)
        with a.step():
            assert bytes_idle(a) == X.nbytes


def test_a_block_serves_results_that_are_a_little_smaller(opened: Arena):
    at = address(given(X))
    fits, small = room(X, (2, 4)), room(X, (1, 4))
    assert fits is not None
    assert small is not None
    assert address(fits) == at
    assert fits.untyped_storage().nbytes() == 32  # not the block's 48, which a file would hold
    del fits
    assert address(small) != at
    assert address(given(X)) == at


def test_ever_new_sizes_leave_nothing_behind():
    a, kept = Arena(), list[Tensor]()
    with torch.no_grad():
        for size in range(1, 3 * SIZES):
            with a.step():
                kept = [*kept[-3:], given(torch.zeros(4 * size))]
    assert len(a._idle) <= SIZES + 1
    kept.clear()


def test_steps_with_others_between_them_find_their_memory():
    """As updates with predictions between them do."""
    a, wide, found = Arena(), torch.zeros(100), set[int]()
    with torch.no_grad():
        for _ in range(10):
            with a.step():
                found.add(address(given(wide)))
            with a.step():
                given(X)
    assert len(found) == 1


def test_it_dies_while_its_memory_lives_on():
    a = Arena()
    with torch.no_grad(), a.step():
        z = given(X).copy_(X)
    del a
    gc.collect()
    assert torch.equal(z, X)
    del z


def test_converted(opened: Arena):
    assert converted(X, X.dtype) is X
    assert torch.equal(converted(X, torch.float64), X.double())
    kept = converted(X, X.dtype, copy=True)
    assert kept is not X
    assert torch.equal(kept, X)


def test_tensors_on_it_are_copied_pickled_and_shared_like_others(opened: Arena):
    z = given(X).copy_(X)
    assert bytes_idle(copy.deepcopy(opened)) == bytes_idle(pickle.loads(pickle.dumps(opened))) == 0
    for other in (copy.deepcopy(z), pickle.loads(pickle.dumps(z)), z.clone()):
        assert torch.equal(other, X)
        assert address(other) != address(z)
    assert torch.equal(z.share_memory_(), X)


class Lending(RuleBasedStateMachine):
    """Blocks are taken, seen in part and let go in any order: what is written in one stays there."""

    def __init__(self) -> None:
        super().__init__()
        self.arena, self.held, self.written = Arena(), list[tuple[Tensor, int]](), 0

    @rule(rows=st.integers(1, 3))
    def take(self, rows: int) -> None:
        with torch.no_grad(), Open(self.arena):
            out = room(X, (rows, 4))
        assert out is not None
        self.written += 1
        self.held.append((out.fill_(self.written), self.written))

    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        if self.held:
            del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @rule(data=st.data())
    def keep_a_part(self, data: st.DataObject) -> None:
        if self.held:
            n = data.draw(st.integers(0, len(self.held) - 1))
            self.held[n] = self.held[n][0][-1:], self.held[n][1]

    @rule()
    def next_step(self) -> None:
        self.arena.step()

    @invariant()
    def all_is_as_written(self) -> None:
        assert all(bool((z == value).all()) for z, value in self.held)


TestLending = Lending.TestCase
