"""Making a table: what is missing of it, cell by cell, each an ordinary record that can be gone on with."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dualprop.errors import DualpropError, Interrupted
from dualprop.studies._table import Table as Words
from dualprop.studies.tables.definition import Row, Table
from dualprop.studies.tables.plan import (
    Cell,
    Request,
    budgeted,
    cells,
    estimated,
    fitting,
    keep_budget,
    spoken,
    total,
)
from dualprop.studies.tables.workers import work

logger = logging.getLogger("dualprop")


@dataclass(frozen=True)
class Reproduction:
    """What has been made of a table.

    Attributes:
        table: the table.
        cells: those that were asked for, with their records.
        failed: for each that could not be made, by its folder's name, why.
    """

    table: Table
    cells: Sequence[Cell]
    failed: Mapping[str, str]

    def words(self) -> Words:
        """What was published beside what was measured, a line for each row; no column is empty."""
        rows: dict[Row, list[Cell]] = {}
        for cell in self.cells:
            rows.setdefault(cell.row, []).append(cell)
        lines = [self._line(row, own) for row, own in rows.items()]
        kept = [k for k in range(len(lines[0])) if any(line[k][1] for line in lines)]
        titles = [lines[0][k][0] for k in kept]
        return Words(self.table.title, titles, [[line[k][1] for k in kept] for line in lines])

    def _line(self, row: Row, own: Sequence[Cell]) -> list[tuple[str, str]]:
        """Titles of columns, and what a row has in them."""
        finished = [cell.record for cell in own if cell.record is not None and cell.record.complete]
        line = [("cell", row.label), ("n", str(len(finished)))]
        for name, metric in self.table.metrics.items():
            numbers = [metric.scale * r.numbers[name] for r in finished if name in r.numbers]
            published = row.published.get(name)
            theirs = "" if published is None else _plus_minus(published.mean, published.std, metric.digits)
            line += [(metric.title, _spread(numbers, metric.digits)), ("published", theirs)]
        left = [cell.state for cell in own if cell.state != "finished"]
        states = ", ".join(f"{left.count(state)} {state}" for state in dict.fromkeys(left))
        return [*line, ("schedule", _shortened(row, own)), ("left", states)]


def _shortened(row: Row, own: Sequence[Cell]) -> str:
    """What keeps a row's cells from being the table's; they differ in seeds alone."""
    differences = next(
        (d for c in own if c.record and (d := row.maker.differences(row.settings(), c.record, row.classes))), {}
    )
    return ", ".join(f"{name} {ours:g}, not {theirs:g}" for name, (ours, theirs) in differences.items()) or "full"


def _spread(numbers: Sequence[float], digits: int) -> str:
    spread = statistics.stdev(numbers) if len(numbers) > 1 else None
    return _plus_minus(statistics.fmean(numbers), spread, digits) if numbers else ""


def _plus_minus(mean: float, std: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def reproduce(
    table: Table,
    folder: str | Path,
    request: Request = Request(),  # noqa: B008 - it cannot be changed
    *,
    budget: float | None = None,
    jobs: int | None = None,
    prepare: Callable[[], object] = bool,
) -> Reproduction:
    """Make those cells of a table that are missing; those that were begun go on.

    What it takes is estimated and said before. With a budget, all schedules are shortened by the same part: such
    cells are not the table's, and every report says so.

    Args:
        table: as `read` gives it.
        folder: where its records are; made if need be.
        request: which cells.
        budget: seconds that all of them may take; asked again, the same cells go on.
        jobs: how many cells are made side by side, each in its own process and part of the threads; None for as
            many as there are threads, one where time is measured or there is an accelerator.
        prepare: is called in every new process, for what has been registered in this one.

    Returns:
        The cells that were asked for, with their records.

    Raises:
        DualpropError: for whatever is wrong, before anything is made.
        DivergenceError: if every cell that was made diverged.
        Interrupted: on Ctrl-C or SIGTERM; the same call goes on.
    """
    folder = Path(folder)
    if budget is not None and request.epochs is not None:
        raise DualpropError("epochs: not with budget, which chooses them")
    asked = {**asdict(request), "budget": budget}
    epochs = budgeted(folder, asked) if budget is not None else None
    todo = [cell for cell in cells(table, folder, request, epochs) if not cell.done]
    jobs = _side_by_side(todo, jobs)
    if todo:
        seconds = estimated(todo, logger.info)
        if budget is not None and epochs is None:
            epochs = fitting(todo, seconds, budget * jobs)
            todo = [cell for cell in cells(table, folder, request, epochs) if not cell.done]
        _say(table, cells(table, folder, request, epochs), todo, total(todo, seconds) / jobs, jobs)
        folder.mkdir(parents=True, exist_ok=True)
        if budget is not None and budgeted(folder, asked) is None:
            keep_budget(folder, asked, epochs or {})
    failed: dict[str, str] = {}
    try:
        for said in work(todo, jobs, prepare):
            if said.error:
                name = todo[said.number].path.name
                failed[name] = said.error
                logger.warning("%s %s: %s", name, "diverged" if said.diverged else "failed", said.error)
    except Interrupted:
        raise Interrupted(f"stopped; the same command goes on in {folder}") from None
    return Reproduction(table, cells(table, folder, request, epochs), failed)


def _side_by_side(todo: Sequence[Cell], jobs: int | None) -> int:
    """How many processes make these cells.

    Raises:
        DualpropError: for more than one where time is measured.
    """
    timed = any(cell.row.maker.timed for cell in todo)
    if timed and jobs not in (None, 1):
        raise DualpropError(f"jobs={jobs}: this table measures time, so one cell is made after the other")
    if jobs is None:
        jobs = 1 if timed or torch.accelerator.is_available() else torch.get_num_threads()
    return max(1, min(jobs, len(todo)))


def _say(table: Table, all: Sequence[Cell], todo: Sequence[Cell], seconds: float, jobs: int) -> None:
    """What is about to be done, before it is."""
    done = len(all) - len(todo)
    side = "" if jobs == 1 else f", {jobs} side by side"
    logger.info("%s: %d of %d cells to make%s", table.name, len(todo), len(all), f"; {done} done" * bool(done))
    logger.info("about %s here%s, as a few steps of each kind of cell show", spoken(seconds), side)
    shorter = {
        (cell.settings.epochs, cell.row.settings().epochs)
        for cell in todo
        if cell.row.maker.epochs and cell.settings.epochs != cell.row.settings().epochs
    }
    if shorter:
        words = ", ".join(f"{ours} of {theirs}" for ours, theirs in sorted(shorter))
        logger.info("schedules shortened to %s epochs: not the table's setting, and not compared with it", words)
