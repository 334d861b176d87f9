"""`dualprop compare`: rules side by side on one setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dualprop.cli.options import RecipeOption, run_folder, with_settings
from dualprop.errors import DivergenceError, DualpropError
from dualprop.runs.settings import whole_numbers
from dualprop.training import recipes

RULES = "bp,dp,ms-dp,l-dp,p-dp,r-dp,kp-dp,dp-t,ep,ep-centred,hep,chl,lpom,dtp"
SEEDS = "0,1"


@with_settings("rule", "seed")
def compare(
    *,
    rules: Annotated[
        str | None, typer.Option(help="Names of rules, separated by commas.", show_default=RULES)
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="A run of every rule for each of these seeds.", show_default=SEEDS)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to make.", show_default="runs/compare-DATA-TIME")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with a comparison that was stopped; takes no other option.", show_default=False),
    ] = None,
    recipe: RecipeOption = None,
    settings: dict[str, Any],
) -> None:
    """Train several rules from several seeds; end with a table, learning curves and gradient alignments.

    A rule's own settings go to the rules that have them.
    """
    if resume is not None:
        for name, value in {"rules": rules, "seeds": seeds, "out": out, "recipe": recipe, **settings}.items():
            if value is not None:
                raise DualpropError(f"{name}: the comparison has its settings; --resume takes no other option")
        from dualprop.studies.comparison import resume_comparison

        folder, report = resume, resume_comparison(resume)
    else:
        names = [name.strip() for name in (RULES if rules is None else rules).split(",") if name.strip()]
        numbers = whole_numbers("seeds", SEEDS if seeds is None else seeds)
        start = recipes.read(recipe) if recipe else recipes.Recipe()
        folder = out or run_folder("compare", start.settings_for(settings).data)
        from dualprop.studies.comparison import compare as run_all

        report = run_all(names, numbers, settings, folder, start)
    report.print()
    typer.echo(f"table: {folder / 'table.md'} and {folder / 'table.csv'}")
    typer.echo("\n".join(f"picture: {path}" for path in sorted(folder.glob("*.png"))))
    if report.diverged:
        raise DivergenceError(f"{folder}: {', '.join(report.diverged)} diverged; the table is of the other runs")
