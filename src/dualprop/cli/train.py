"""`dualprop train`: one rule on one data set, into one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from dualprop.cli._imports import FILES
from dualprop.cli._options import DeviceOptions, RecipeOption, RuleOptions, SettingOptions, merged, run_folder
from dualprop.errors import DualpropError, printable
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.training import recipes, start
from dualprop.training.processes import torchrun
from dualprop.training.result import Result

AUTO = "auto"

_Workers = Group("workers", sort_key=90)


def train(
    *,
    run: Annotated[
        Path | None, Parameter(name=("--run", "--out"), show_default="runs/DATA-RULE-seedN-TIME")
    ] = None,  # torchrun takes --run for one of its own
    resume: Annotated[str | None, Parameter(show_default="a new run")] = None,
    recipe: RecipeOption = None,
    workers: Annotated[int | None, Parameter(group=_Workers, show_default="one process")] = None,
    in_flight: Annotated[int | None, Parameter(group=_Workers, show_default="4")] = None,
    held: Annotated[bool, Parameter(group=_Workers, negative="")] = False,
    address: Annotated[str | None, Parameter(group=_Workers, show_default="without Ray")] = None,
    settings: SettingOptions | None = None,
    own: RuleOptions | None = None,
    devices: DeviceOptions | None = None,
) -> None:
    """Train one net, or go on with it.

    Args:
        run: The run folder to make.
        resume: Continue this run folder, with more --epochs a finished one, too; "auto" continues the folder of
            --run or makes it, for a job that is started again.
        workers: Group the layers onto so many processes, each at its own pace.
        in_flight: Batches on their way through the workers at once.
        held: A batch stands until it has been learnt from; states relax meanwhile.
        address: Place the workers on this Ray cluster; "local" starts one here.
    """
    auto = resume == AUTO
    if auto and run is None:
        raise DualpropError("resume=auto: needs --run, the folder to make or to go on with")
    given = merged(settings, own, devices)
    crew = _crew(workers, in_flight, held, address)
    if resume is None and workers is None and crew:
        name = "address" if address is not None else "held" if held else "in_flight"
        raise DualpropError(f"{name}: goes with workers")
    if auto and run is not None and run.exists() and _by_workers(run):
        resume, auto = str(run), False
        run = recipe = None
    if resume is None or auto:
        chosen = recipes.load(recipe, **given) if recipe else Settings.from_dict(given)
        folder = run or run_folder(chosen.data, chosen.rule, f"seed{chosen.seed}")
        result = _begin(chosen, folder, crew, auto)
    else:
        for name, value in (("run", run), ("recipe", recipe), ("in_flight", in_flight), ("held", held or None)):
            if value is not None:
                raise DualpropError(f"{name}: goes with a new run; the folder that --resume names has its own")
        result = _go_on(Path(resume), given, crew)
    if torchrun.rank() > 0:
        return  # one process speaks
    accuracy, loss = result.test_accuracy, f"loss {result.test_loss:.4f}"
    print(
        f"test {loss if accuracy is None else f'accuracy {accuracy:.2%} ({loss})'}, weights of epoch "
        f"{result.best_epoch}, {result.seconds_per_epoch:.1f} s per epoch"
    )
    print(printable(f"run folder: {result.run}"))


def _crew(workers: int | None, in_flight: int | None, held: bool, address: str | None) -> dict[str, Any]:
    """What was said of workers; empty if nothing was."""
    if held and in_flight is not None:
        raise DualpropError(f"in_flight={in_flight}: not with held")
    way = "held" if held else None if in_flight is None else f"in-flight:{in_flight}"
    given = {"workers": workers, "way": way, "address": address}
    return {name: value for name, value in given.items() if value is not None}


def _begin(settings: Settings, folder: Path, crew: dict[str, Any], auto: bool) -> Result:
    if "workers" not in crew:
        return start.train(settings, folder, resume=auto)
    from dualprop.training.workers.start import train as by_workers

    return by_workers(settings, folder, **crew, imports=FILES)


def _go_on(folder: Path, changes: dict[str, Any], crew: dict[str, Any]) -> Result:
    if not _by_workers(folder):
        if crew:
            raise DualpropError(f"{next(iter(crew))}: goes with a run that workers have trained")
        return start.resume(folder, changes)
    from dualprop.training.workers.start import resume as by_workers

    return by_workers(folder, changes, **crew, imports=FILES)


def _by_workers(folder: Path) -> bool:
    """Whether workers have trained a run."""
    return bool((Run.open(folder).resolved or {}).get("workers"))
