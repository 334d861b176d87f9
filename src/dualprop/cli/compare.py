"""`dualprop compare`: rules side by side on one setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dualprop.cli.options import Alpha, Beta, Schedule, merged, run_folder, with_settings
from dualprop.errors import DualpropError
from dualprop.settings import Settings, whole_numbers


@with_settings("rule", "seed")
def compare(
    *,
    rules: Annotated[
        str, typer.Option(help="Names of rules, separated by commas.")
    ] = "bp,dp,ms-dp,l-dp,p-dp,r-dp,kp-dp,dp-t",
    seeds: Annotated[str, typer.Option(help="A run of every rule for each of these seeds.")] = "0,1",
    out: Annotated[
        Path | None, typer.Option(help="The folder to make.", show_default="runs/compare-DATA-TIME")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with a comparison that was stopped.", show_default=False)
    ] = None,
    alpha: Alpha = None,
    beta: Beta = None,
    schedule: Schedule = None,
    settings: dict[str, Any],
) -> None:
    """Train several rules from several seeds; end with a table, learning curves and gradient alignments.

    A rule's own settings go to the rules that have them.
    """
    if resume is not None and out is not None:
        raise DualpropError("out: goes with a new comparison; --resume names its folder already")
    given = merged(settings, alpha, beta, schedule)
    names = [name.strip() for name in rules.split(",") if name.strip()]
    folder = resume or out or run_folder("compare", Settings.from_dict(given).data)

    from dualprop.comparison import compare as run_all

    report = run_all(names, whole_numbers(seeds), given, folder, go_on=resume is not None)
    report.print()
    typer.echo(f"table: {folder / 'table.md'} and {folder / 'table.csv'}")
    typer.echo("\n".join(f"picture: {path}" for path in sorted(folder.glob("*.png"))))
