"""`dualprop report`: records beside what was published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dualprop.cli._options import names
from dualprop.errors import printable
from dualprop.studies.report.document import document
from dualprop.studies.report.write import check as compare
from dualprop.studies.report.write import contents, write


def report(
    runs: Annotated[list[Path], Parameter(negative=())],
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("report.html"),
    tables: str | None = None,
    check: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a report.

    Args:
        runs: Folders with records, at any depth.
        out: The page; beside it come the same as Markdown (.md) and CSV (.csv). A former report is replaced.
        tables: Names of tables, or paths of TOML files, separated by commas; else all that ship.
        check: Write nothing; compare the report that is there with the records, and fail on a difference.
    """
    made = contents(document(runs, None if tables is None else names("tables", tables)), out)
    if check:
        print("\n".join(f"as the records say: {printable(str(path))}" for path in compare(made)))
    else:
        write(made)
        print("\n".join(f"report: {printable(str(path))}" for path in made))
