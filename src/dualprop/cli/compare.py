"""`dualprop compare`: rules side by side on one setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dualprop.arguments import Seed, Several, check, read
from dualprop.cli._options import (
    CommonOptions,
    DeviceOptions,
    RecipeOption,
    RuleOptions,
    constants,
    merged,
    names,
    run_folder,
)
from dualprop.errors import DivergenceError, DualpropError, printable
from dualprop.studies import comparison
from dualprop.training import recipes

SEEDS = "0,1"


def compare(
    *,
    rules: Annotated[str | None, Parameter(show_default="all that can run on the net")] = None,
    seeds: Annotated[str | None, Parameter(show_default=SEEDS)] = None,
    out: Annotated[Path | None, Parameter(show_default="runs/compare-DATA-TIME")] = None,
    resume: Path | None = None,
    energy: Annotated[str | None, Parameter(show_default="nothing is measured")] = None,
    to_accuracy: Annotated[float | None, Parameter(show_default="no such column")] = None,
    recipe: RecipeOption = None,
    settings: CommonOptions | None = None,
    own: RuleOptions | None = None,
    devices: DeviceOptions | None = None,
) -> None:
    """Run a comparison, or go on with it.

    Args:
        rules: Names of rules, separated by commas.
        seeds: A run of every rule for each of these seeds.
        out: The folder to make.
        resume: Go on with a comparison that was stopped; takes no other option.
        energy: Measure what hardware would pay: "default", or constants in place of those, as
            "multiply_add=0.23;bit=0.16;write=1" in pJ and "bits=8" a value, or a TOML file.
        to_accuracy: Add up what is paid until this accuracy of the validation, as 0.9.
    """
    given = merged(settings, own, devices)
    if resume is not None:
        ours = {"rules": rules, "seeds": seeds, "out": out, "energy": energy, "to_accuracy": to_accuracy}
        for name, value in {**ours, "recipe": recipe, **given}.items():
            if value is not None:
                raise DualpropError(f"{name}: the comparison has its settings; --resume takes no other option")
        folder, report = resume, comparison.resume_comparison(resume)
    else:
        chosen = None if rules is None else names("rules", rules)
        numbers = check("seeds", read(SEEDS if seeds is None else seeds, Several[Seed]), Several[Seed])
        start = recipes.read(recipe) if recipe else recipes.Recipe()
        folder = out or run_folder("compare", start.settings_for(given).data)
        paid = constants(energy)
        report = comparison.compare(chosen, numbers, given, folder, start, energy=paid, to_accuracy=to_accuracy)
    report.print()
    print(printable(f"table: {folder / 'table.md'} and {folder / 'table.csv'}"))
    print("\n".join(printable(f"picture: {path}") for path in sorted(folder.glob("*.png"))))
    if report.diverged:
        raise DivergenceError(f"{folder}: {', '.join(report.diverged)} diverged; the table is of the other runs")
