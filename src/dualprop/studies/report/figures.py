"""The figures of a page: each several small panels, with the numbers they show beside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from dualprop.errors import printable
from dualprop.studies._epochs import errors_of
from dualprop.studies._figure import angle, curves, errors_axis, look, plain_ticks, reference
from dualprop.studies._table import Table
from dualprop.studies.report.grids import Grid
from dualprop.studies.report.plan import PANEL, Panel, Plan, by_epoch, planned
from dualprop.studies.report.svg import GRID

FEW = 25
"""Epochs that a table has a row for; of more, so many evenly."""

CURVED = 3
"""Epochs of a learning curve, at least: of fewer the table says as much."""


@dataclass(frozen=True)
class Curves:
    """What was recorded of the runs of one row.

    Attributes:
        label: the row.
        rule: whose look they have.
        runs: for each run its epochs, as its metrics have them.
    """

    label: str
    rule: str
    runs: Sequence[Sequence[Mapping[str, Any]]]


def learning_curves(groups: Sequence[Curves]) -> Plan | None:
    """The error of each row by epoch beside that of bp, a panel for each; None for fewer epochs than `CURVED`."""
    runs = [run for group in groups for run in group.runs]
    if max(map(len, runs), default=0) < CURVED:
        return None
    unit, error = errors_of([epoch for run in runs for epoch in run])
    errors = [(group, _even([[error(epoch) for epoch in run] for run in group.runs])) for group in groups]
    finite = [e for _, runs in errors for run in runs for e in run if math.isfinite(e)]
    base = next((runs for group, runs in errors if group.rule == "bp"), None)

    def draw(shown: tuple[Curves, list[Sequence[float]]]) -> Panel:
        group, runs = shown
        figure, axes = by_epoch()
        if base is not None and runs is not base:
            reference(axes, "bp", base)
        curves(axes, group.rule, runs)
        errors_axis(axes, finite or [1.0])
        axes.set_title(printable(group.label), parse_math=False)
        axes.set_ylabel(unit)
        last = ", ".join(f"{run[-1]:.4g}" for run in runs)
        return figure, f"{unit} of {group.label}", f"By epoch; at the last of {len(runs[0])}: {last}."

    columns, rows = _table_by_epoch([(group.label, runs) for group, runs in errors])
    band = "; the band is from the lowest to the highest seed" if any(len(runs) > 1 for _, runs in errors) else ""
    dotted = " Dotted: bp." if base is not None and len(errors) > 1 else ""
    text = f"Mean over seeds of the {unit.replace(', %', ' in %')} after each epoch{band}.{dotted}"
    return planned("Learning curves", text, Table("", columns, rows), errors, draw)


def differences(unit: str, values: Sequence[tuple[str, str, float, float | None]]) -> Plan | None:
    """Each row's difference from the published number with its interval; None where none was compared.

    Args:
        unit: of the numbers.
        values: label, rule, difference, and half the interval where it is known.
    """

    def draw(values: Sequence[tuple[str, str, float, float | None]]) -> Panel:
        figure = Drawing(figsize=(PANEL[0], 0.8 + 0.24 * len(values)))
        axes = figure.subplots()
        axes.axvline(0, color=GRID, linewidth=0.8)
        for place, (rule, difference, half) in enumerate(each[1:] for each in values):
            color = look(rule)["color"]
            axes.errorbar(difference, place, xerr=half, color=color, marker="o", markersize=4, capsize=3)
        axes.set_yticks(range(len(values)), [printable(label) for label, *_ in values], parse_math=False)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xlabel(f"difference, {unit}", parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
        axes.grid(axis="y", visible=False)
        said = "; ".join(f"{label} {words}" for label, words in rows)
        return figure, f"Measured minus published, {unit}", f"{said}."

    rows = [(label, f"{d:+.3g}" + ("" if half is None else f" ± {half:.2g}")) for label, _, d, half in values]
    text = f"Measured minus published, {unit}, with the interval that the verdict goes by."
    return planned("Differences", text, Table("", ("row", "difference"), rows), [values] if values else [], draw)


def heat_maps(groups: Sequence[Curves], key: str, truth: str) -> Plan | None:
    """The angle of each row's gradient to a true one, layer by epoch; None where none was recorded.

    Args:
        groups: the rows.
        key: of the cosines in the metrics.
        truth: what they are to.
    """
    maps: list[tuple[str, np.ndarray[Any, Any]]] = []
    for group in groups:
        read = [[_angles(epoch.get(key)) for epoch in run] for run in group.runs]
        runs = [run for run in read if run and all(len(each) == len(run[0]) > 0 for each in run)]
        if runs:
            maps.append((group.label, np.mean([np.transpose(run) for run in _even_rows(runs)], axis=0)))
    highest = max([float(np.nanmax(angles)) for _, angles in maps if not np.isnan(angles).all()], default=90.0)

    def draw(shown: tuple[str, np.ndarray[Any, Any]]) -> Panel:
        label, angles = shown
        figure, axes = by_epoch(right=0.82)
        layers, epochs = angles.shape
        image = axes.imshow(
            angles,
            cmap="cividis",
            vmin=0,
            vmax=max(highest, 1.0),
            aspect="auto",
            interpolation="none",
            origin="lower",
            extent=(0.5, epochs + 0.5, 0.5, layers + 0.5),
        )
        axes.grid(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        axes.set_ylabel("layer")
        axes.set_title(printable(label), parse_math=False)
        figure.colorbar(image, label="degrees", fraction=0.07, pad=0.04)
        last = ", ".join(f"{angle:.1f}" for angle in angles[:, -1])
        return figure, f"Angle to {truth} of {label}", f"Degrees in layers 1 to {layers} at the end: {last}."

    rows = [
        [label, str(layer), *(f"{row[epoch]:.2f}" for epoch in (0, len(row) // 2, -1))]
        for label, angles in maps
        for layer, row in enumerate(angles, 1)
    ]
    data = Table("", ("row", "layer", "first epoch", "middle", "last epoch"), rows)
    text = f"Angle between the gradient and {truth} in degrees, mean over seeds, by layer and epoch."
    return planned(f"Alignment with {truth}", text, data, maps, draw)


def bars(unit: str, values: Sequence[tuple[str, str, float]]) -> Plan | None:
    """A number of each row; None for less than two.

    Args:
        unit: what it is.
        values: label, rule and number of each row.
    """
    values = [each for each in values if math.isfinite(each[2])]

    def draw(values: Sequence[tuple[str, str, float]]) -> Panel:
        figure = Drawing(figsize=(PANEL[0], 0.7 + 0.24 * len(values)))
        axes = figure.subplots()
        numbers = [number for _, _, number in values]
        axes.barh(range(len(values)), numbers, color=[look(rule)["color"] for _, rule, _ in values], alpha=0.75)
        axes.set_yticks(range(len(values)), [printable(label) for label, _, _ in values], parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        if min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            low, high = min(numbers) / 2, max(numbers) * 3
            axes.set(xscale="log", xlim=(low, high))
            plain_ticks(axes.xaxis, low, high)
        else:
            axes.set_xlim(min(0.0, *numbers), max(numbers) * 1.2)
        for place, number in enumerate(numbers):
            axes.annotate(f"{number:.3g}", (number, place), (4, 0), textcoords="offset points", va="center")
        said = ", ".join(f"{label} {number:.3g}" for label, _, number in values)
        return figure, unit, f"{said}."

    data = Table("", ("row", unit), [(label, f"{number:.4g}") for label, _, number in values])
    shown = [values] if len(values) > 1 else []
    return planned(f"{unit[:1].upper()}{unit[1:]}", "", data, shown, draw, spare=True)


def grid_maps(found: Sequence[Grid]) -> Plan | None:
    """Each grid as a map, a panel each; None where no number differs from place to place."""
    shown = [grid for grid in found if len({mean for row in grid.means for mean in row if mean is not None}) > 1]

    def draw(grid: Grid) -> Panel:
        numbers = np.array([[math.nan if mean is None else mean for mean in row] for row in grid.means])
        figure = Drawing(figsize=(PANEL[0], 0.9 + 0.2 * len(grid.down)))
        axes = figure.subplots()
        axes.imshow(numbers, cmap="cividis", aspect="auto", interpolation="none")
        axes.grid(False)
        axes.set_xticks(range(len(grid.across)), list(map(printable, grid.across)), parse_math=False, fontsize=7)
        axes.set_yticks(range(len(grid.down)), list(map(printable, grid.down)), parse_math=False, fontsize=7)
        middle = (np.nanmin(numbers) + np.nanmax(numbers)) / 2
        for y, words in enumerate(grid.words):
            for x, word in enumerate(words):
                colour = "black" if numbers[y, x] > middle else "white"
                axes.annotate(word, (x, y), ha="center", va="center", fontsize=6.5, color=colour)
        axes.set_title(printable(grid.metric), parse_math=False)
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        return figure, grid.title, f"From {low:.4g} to {high:.4g}; every number is in the table above."

    rows = [(grid.title, f"{sum(len(row) for row in grid.means)}") for grid in shown]
    text = "The grids above as maps: dark is low, bright is high."
    return planned("Grids", text, Table("", ("grid", "numbers"), rows), shown, draw, spare=True)


def _even(runs: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Runs of one length, that of the shortest."""
    length = min((len(run) for run in runs if run), default=0)
    return [run[:length] for run in runs if run]


def _even_rows(runs: Sequence[Sequence[Sequence[float]]]) -> list[Sequence[Sequence[float]]]:
    """Those of the first one's number of layers, all of one length."""
    same = [run for run in runs if len(run[0]) == len(runs[0][0])]
    length = min(len(run) for run in same)
    return [run[:length] for run in same]


def _table_by_epoch(groups: Sequence[tuple[str, Sequence[Sequence[float]]]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table: the mean over runs at each epoch, or at some of them."""
    longest = max(len(runs[0]) for _, runs in groups)
    chosen = sorted(
        {round(1 + k * (longest - 1) / max(1, FEW - 1)) for k in range(FEW)} & set(range(1, longest + 1))
    )
    rows = [
        [str(epoch), *(_mean([run[epoch - 1] for run in runs if len(run) >= epoch]) for _, runs in groups)]
        for epoch in chosen
    ]
    return ["epoch", *(label for label, _ in groups)], rows


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4g}" if values else ""


def _angles(cosines: Any) -> list[float]:
    """In degrees, by layer."""
    return [angle(cosine) for cosine in cosines or ()]
