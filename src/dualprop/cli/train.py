"""`dualprop train`: one rule on one data set, into one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dualprop.cli._options import RecipeOption, RuleOptions, SettingOptions, merged, run_folder
from dualprop.errors import DualpropError, printable
from dualprop.runs.settings import Settings
from dualprop.training import recipes, start
from dualprop.training.processes import torchrun

AUTO = "auto"


def train(
    *,
    run: Annotated[
        Path | None, Parameter(name=("--run", "--out"), show_default="runs/DATA-RULE-seedN-TIME")
    ] = None,  # torchrun takes --run for one of its own
    resume: Annotated[str | None, Parameter(show_default="a new run")] = None,
    recipe: RecipeOption = None,
    settings: SettingOptions | None = None,
    own: RuleOptions | None = None,
) -> None:
    """Train one net, or go on with it.

    Args:
        run: The run folder to make.
        resume: Continue this run folder from its last checkpoint; with more --epochs a finished one, too. "auto"
            continues the folder of --run if it is there and makes it else, for a job that is started again.
    """
    auto = resume == AUTO
    if auto and run is None:
        raise DualpropError("resume=auto: needs --run, the folder to make or to go on with")
    given = merged(settings, own)
    if resume is None or auto:
        chosen = recipes.load(recipe, **given) if recipe else Settings.from_dict(given)
        folder = run or run_folder(chosen.data, chosen.rule, f"seed{chosen.seed}")
        result = start.train(chosen, folder, resume=auto)
    else:
        for name, value in (("run", run), ("recipe", recipe)):
            if value is not None:
                raise DualpropError(f"{name}: goes with a new run; the folder that --resume names has its own")
        result = start.resume(resume, given)
    if torchrun.rank() > 0:
        return  # one process speaks
    accuracy, loss = result.test_accuracy, f"loss {result.test_loss:.4f}"
    print(
        f"test {loss if accuracy is None else f'accuracy {accuracy:.2%} ({loss})'}, weights of epoch "
        f"{result.best_epoch}, {result.seconds_per_epoch:.1f} s per epoch"
    )
    print(printable(f"run folder: {result.run}"))
