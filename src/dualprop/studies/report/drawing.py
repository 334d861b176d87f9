"""How runs side by side are drawn: their errors, and their gradients' angles to true ones, by epoch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualprop.errors import printable
from dualprop.studies._epochs import errors_of
from dualprop.studies._figure import (
    MANY,
    angle,
    by_layer,
    curves,
    errors_axis,
    legend,
    panels,
    reference,
    save,
    styled,
)
from dualprop.studies.report.finished import Record

Rules = Mapping[str, Sequence[Record]]
"""The runs of each rule."""

MOST_PANELS = 40
"""Layers that are drawn: of deeper nets every second, third, ..."""


@styled
def draw_errors(path: Path, title: str, rules: Rules) -> None:
    """The error of every rule by epoch, or its loss where targets are numbers.

    Args:
        path: of the picture.
        title: above it.
        rules: the runs of each.
    """
    unit, error = errors_of([epoch for records in rules.values() for r in records for epoch in r.epochs])
    errors = {rule: [[error(epoch) for epoch in r.epochs] for r in records] for rule, records in rules.items()}
    apart = len(errors) > MANY
    figure, grid = _panel_each(errors) if apart else panels(1, (6.2, 4.4), 1)
    for n, (rule, runs) in enumerate(errors.items()):
        axes = grid[n if apart else 0]
        if apart and rule != "bp" and "bp" in errors:
            reference(axes, "bp", errors["bp"])
        curves(axes, rule, runs)
    for axes in grid:
        errors_axis(axes, [error for runs in errors.values() for run in runs for error in run])
    if apart:
        dotted = "; dotted: bp" if "bp" in errors else ""
        figure.supylabel(f"{unit}{dotted}", fontsize="medium")
    else:
        grid[0].set_ylabel(unit)
        legend(figure, grid[0])
    _save(figure, path, title)


@styled
def draw_angles(path: Path, title: str, rules: Rules, key: str, truth: str) -> None:
    """The angle to a true gradient by epoch: a panel for each layer; of many rules, for each rule.

    Args:
        path: of the picture.
        title: above it.
        rules: the runs of each.
        key: of the cosines in an epoch's record.
        truth: what they are to.
    """
    layers = max(len(r.epochs[0][key]) for records in rules.values() for r in records)
    kept = range(0, layers, math.ceil(layers / MOST_PANELS))

    def angles(records: Sequence[Record], k: int) -> list[list[float]]:
        having = [r for r in records if k < len(r.epochs[0][key])]  # other nets have fewer layers
        return [[angle(epoch[key][k]) for epoch in r.epochs] for r in having]

    if len(rules) > MANY:
        figure, grid = _panel_each(rules)
        for axes, records in zip(grid, rules.values(), strict=True):
            found = [(f"layer {k + 1}", runs) for k in kept if (runs := angles(records, k))]
            by_layer(axes, [(label, _mean_by_epoch(runs)) for label, runs in found])
    else:
        figure, grid = panels(len(kept), (2.6, 2.5), 4)
        for k, axes in zip(kept, grid, strict=True):
            for rule, records in rules.items():
                if runs := angles(records, k):
                    curves(axes, rule, runs)
            axes.set_title(f"layer {k + 1}")
    figure.supylabel(f"angle to {truth}, degrees", fontsize="medium")
    legend(figure, max(grid, key=lambda axes: len(axes.lines)))
    _save(figure, path, title)


def _panel_each(rules: Mapping[str, object]) -> tuple[Figure, list[Axes]]:
    """A panel for each rule, under its name."""
    figure, grid = panels(len(rules), (2.6, 2.1), 4)
    for axes, rule in zip(grid, rules, strict=True):
        axes.set_title(printable(rule), parse_math=False)
    return figure, grid


def _save(figure: Figure, path: Path, title: str) -> None:
    figure.suptitle(printable(title), parse_math=False)
    save(figure, path)


def _mean_by_epoch(runs: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*runs, strict=True)]
