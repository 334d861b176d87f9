"""Lines that are read ahead: in their order, a bounded number of them, until there are none."""

from __future__ import annotations

import io
import threading
import time

import pytest

from dualprop.training.stream.sources import pipe
from dualprop.training.stream.sources.pipe import Pipe


class Writer(io.StringIO):
    """Lines of which one counts how many have been asked for; the reading of some waits."""

    def __init__(self, text, waits=()):
        super().__init__(text)
        self.asked, self.waits = 0, dict(waits)

    def readline(self, size=-1):
        self.asked += 1
        if self.asked in self.waits:
            self.waits[self.asked].wait(5)
        return super().readline(size)


def text(count):
    return "".join(f"{number}\n" for number in range(1, count + 1))


def test_the_writer_waits_where_no_place_is_left():
    writer = Writer(text(50))
    lines = iter(Pipe(writer, 3))
    assert next(lines) == (1, "1\n")
    time.sleep(0.1)
    assert writer.asked <= 1 + 3 + 1 + 1, "one taken, three that wait, one that finds no place"
    assert [number for number, _ in filter(None, lines)] == list(range(2, 51))


def test_lines_without_a_place_are_dropped_and_counted():
    go = threading.Event()
    pipe = Pipe(Writer(text(50), {41: go}), 3, drop=True)
    lines = iter(pipe)
    first = next(filter(None, lines))
    deadline = time.monotonic() + 20
    while pipe.dropped < 40 - 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go.set()
    rest = list(filter(None, lines))
    numbers = [number for number, _ in (first, *rest)]
    assert numbers[:1] == [1]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + pipe.dropped == 50
    assert all(line == f"{number}\n" for number, line in rest)


def test_who_waits_is_told_that_there_is_nothing_yet(monkeypatch):
    monkeypatch.setattr(pipe, "WAIT", 0.01)
    go = threading.Event()
    lines = iter(Pipe(Writer("a\n", {1: go}), 3))
    assert next(lines) is None
    go.set()
    assert list(filter(None, lines)) == [(1, "a\n")]


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole(monkeypatch):
    monkeypatch.setattr(pipe, "LONGEST", 4)
    assert list(Pipe(io.StringIO("abcdefghij\nxy\nabc\nabcd"), 9)) == [
        (1, "abcd"),
        (2, "xy\n"),
        (3, "abc\n"),
        (4, "abcd"),
    ]


def test_lines_that_cannot_be_read_on_are_an_error_where_they_are_asked_for():
    class Broken(io.StringIO):
        def readline(self, size=-1):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Pipe(Broken(), 3))
