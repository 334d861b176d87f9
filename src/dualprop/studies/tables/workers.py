"""Processes that make cells side by side, each in its part of the threads."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from dualprop.errors import DivergenceError, DualpropError, Interrupted, printable
from dualprop.studies.tables.plan import Cell
from dualprop.training.callbacks.display import Display, stderr
from dualprop.training.interrupt import Interrupt

ASK = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""What asks a process to stop after a checkpoint."""

logger = logging.getLogger("dualprop")


@dataclass(frozen=True)
class Said:
    """How a cell ended: `error` is empty if well.

    Attributes:
        number: the cell's, in the order given.
        error: in one line.
        diverged: whether it is that.
    """

    number: int
    error: str = ""
    diverged: bool = False


def work(todo: Sequence[Cell], jobs: int, prepare: Callable[[], object]) -> Iterator[Said]:
    """Make cells, the next one as soon as a process is free.

    Args:
        todo: the cells.
        jobs: processes; with one, this one makes them.
        prepare: is called in every new process before anything else.

    Yields:
        How each of them ended.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, when every cell has saved where it is.
        DualpropError: if a process was killed.
    """
    if jobs == 1:
        with Interrupt() as interrupt:
            for number, cell in enumerate(todo):
                yield _made(number, cell, stderr())
                if interrupt.asked:
                    raise Interrupted("stopped")
        return
    context = multiprocessing.get_context("spawn")  # what has computed in threads cannot be forked
    numbers, said = context.Queue(), context.Queue()
    for number in (*range(len(todo)), *[None] * jobs):  # each process ends at a None
        numbers.put(number)
    threads = max(1, torch.get_num_threads() // jobs)
    with Interrupt() as interrupt:
        processes = [
            context.Process(target=_serve, args=(todo, numbers, said, threads, prepare)) for _ in range(jobs)
        ]
        for process in processes:
            process.start()
        try:
            yield from _listen(processes, said, interrupt)
        finally:
            _stop(processes)
    if interrupt.asked:
        raise Interrupted("stopped")
    if killed := [process.exitcode for process in processes if process.exitcode]:
        raise DualpropError(f"jobs: {len(killed)} of {jobs} processes ended with exit code {killed[0]}")


def _listen(processes: Sequence[Any], said: Any, interrupt: Interrupt) -> Iterator[Said]:
    """What the processes say, until all have ended or this one is asked to stop."""
    while any(process.is_alive() for process in processes) and not interrupt.asked:
        with suppress(queue.Empty):
            yield said.get(timeout=0.2)
    with suppress(queue.Empty):
        while not interrupt.asked:
            yield said.get(timeout=0.2)


def _stop(processes: Sequence[Any]) -> None:
    """Ask those that are left to stop, and wait until they have."""
    for process in processes:
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, ASK)
    for process in processes:
        process.join()


def _serve(todo: Sequence[Cell], numbers: Any, said: Any, threads: int, prepare: Callable[[], object]) -> None:
    """Make one cell after another until none is left."""
    with Interrupt() as interrupt:
        prepare()
        torch.set_num_threads(threads)
        lines = Console(stderr=True, force_terminal=False, soft_wrap=True)  # for bars would write over each other
        parent = multiprocessing.parent_process()
        with suppress(Interrupted):
            while not interrupt.asked and (number := numbers.get()) is not None:
                said.put(_made(number, todo[number], lines))
                if parent is None or not parent.is_alive():  # killed, and nobody waits for more
                    break


def _made(number: int, cell: Cell, console: Console) -> Said:
    """Make a cell; what is wrong with it alone is said, and no reason to leave out the others."""
    shown = [Display(cell.path.name, console)] if logger.level <= logging.INFO else []
    try:
        cell.make({"progress": False, "callbacks": shown})
    except Interrupted:
        raise
    except DualpropError as error:
        return Said(number, printable(str(error)), isinstance(error, DivergenceError))
    return Said(number)
