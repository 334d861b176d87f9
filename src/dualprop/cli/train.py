"""`dualprop train`: one rule on one data set, into one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dualprop.cli.options import RecipeOption, run_folder, with_settings
from dualprop.errors import DualpropError
from dualprop.runs.settings import Settings
from dualprop.training import recipes
from dualprop.training.processes import torchrun


@with_settings()
def train(
    *,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            "--out",  # torchrun takes --run for one of its own
            help="The run folder to make.",
            show_default="runs/DATA-RULE-seedN-TIME",
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run folder from its last checkpoint.", show_default=False)
    ] = None,
    recipe: RecipeOption = None,
    settings: dict[str, Any],
) -> None:
    """Train a net with one rule; test the weights with the best validation accuracy once, at the end."""
    for name, value in (("run", run), ("recipe", recipe)):
        if resume is not None and value is not None:
            raise DualpropError(f"{name}: goes with a new run; the folder that --resume names has its own")

    from dualprop.training import start

    if resume is not None:
        result = start.resume(resume, settings)
    else:
        chosen = recipes.load(recipe, **settings) if recipe else Settings.from_dict(settings)
        folder = run or run_folder(chosen.data, chosen.rule, f"seed{chosen.seed}")
        result = start.train(chosen, folder)
    if torchrun.rank() > 0:
        return  # one process speaks
    typer.echo(
        f"test accuracy {result.test_accuracy:.2%} (loss {result.test_loss:.4f}), weights of epoch "
        f"{result.best_epoch}, {result.seconds_per_epoch:.1f} s per epoch\nrun folder: {result.run}"
    )
