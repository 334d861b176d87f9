"""`dualprop reproduce`: a paper's table from its definition, cell by cell."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dualprop.arguments import Count, check
from dualprop.cli import _imports
from dualprop.cli._options import CommonOptions, names
from dualprop.errors import DivergenceError, DualpropError, printable
from dualprop.studies import tables
from dualprop.studies._table import Table, show
from dualprop.studies.tables.plan import Request, time_of
from dualprop.studies.tables.plan import cells as cells_of
from dualprop.studies.tables.reproduction import reproduce as make

OUT = Path("runs") / "tables"


def reproduce(
    table: Annotated[str | None, Parameter(show_default="the tables are listed")] = None,
    /,
    *,
    seeds: Annotated[int | None, Parameter(show_default="as many as the table has")] = None,
    rules: Annotated[str | None, Parameter(show_default="all of the table")] = None,
    cells: Annotated[str | None, Parameter(show_default="all of the table")] = None,
    budget: Annotated[str | None, Parameter(show_default="none: the full schedules")] = None,
    jobs: Annotated[
        int | None, Parameter(show_default="as many as there are threads; 1 where time is measured")
    ] = None,
    list: Annotated[bool, Parameter(negative="")] = False,
    out: Path = OUT,
    settings: CommonOptions | None = None,
) -> None:
    """Make what is missing of a table, or list it.

    Args:
        table: Name of a table, or the path of a TOML file.
        seeds: How many seeds each cell has.
        rules: Names of rules of the table, separated by commas.
        cells: Names of cells, as --list shows them, separated by commas; * stands for any characters.
        budget: Time that all of it may take, as 90s, 30m, 2h or 1d: schedules are shortened to fit.
        jobs: Cells that are made side by side, with the threads divided among them.
        list: Show the tables, or the cells of one and how far they are, and make nothing.
        out: Where the folders of tables are.
    """
    if table is None:
        _list_tables()
        return
    chosen = tables.read(table)
    given = dict(settings or {})
    request = Request(
        rules=None if rules is None else names("rules", rules),
        cells=None if cells is None else names("cells", cells),
        seeds=seeds,
        epochs=given.pop("epochs", None),
        common=given,
    )
    available = None if budget is None else time_of(budget)
    folder = out / chosen.name
    if list:
        _list_cells(chosen, folder, request)
        return
    made = make(
        chosen,
        folder,
        request,
        budget=available,
        jobs=check("jobs", jobs, Count | None),
        prepare=partial(_imports.again, tuple(_imports.FILES)),
    )
    show(made.words())
    print(printable(f"records: {folder}"))
    if made.failed:
        diverged = [cell.path.name for cell in made.cells if cell.state == "diverged"]
        kind = DivergenceError if set(made.failed) <= set(diverged) else DualpropError
        raise kind(f"{folder}: {', '.join(made.failed)} did not come to an end; see above")


def _list_tables() -> None:
    """The tables that ship with the package."""
    rows = []
    for name in tables.shipped():
        table = tables.read(name)
        rows.append((name, table.title, str(sum(row.seeds for row in table.rows))))
    show(Table("", ("name", "table", "cells"), rows))


def _list_cells(table: tables.Table, folder: Path, request: Request) -> None:
    """The cells of a table, and how far they are."""
    rows = [(cell.row.name, str(cell.settings.seed), cell.state) for cell in cells_of(table, folder, request)]
    show(Table(table.title, ("cell", "seed", "state"), rows))
