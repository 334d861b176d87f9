"""A picture of the step times: bars go left of bp's where a rule is faster, right where it is slower."""

from __future__ import annotations

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dualprop.studies._figure import BLACK, COLOURS, plain_ticks, save, styled
from dualprop.studies.bench.report import Measurements, Row

FOOT = 0.7
"""Inches below the panels, for the legend and the machine."""


@styled
def draw(report: Measurements, path: Path) -> None:
    """Write the chart: a panel for each net, a bar for each rule and precision, whiskers between the quartiles.

    Args:
        report: with at least one row.
        path: where to; its ending says in which format.
    """
    nets = list(dict.fromkeys(row.net for row in report.rows))
    precisions = list(dict.fromkeys(row.precision for row in report.rows))
    rules = list(dict.fromkeys(row.rule for row in report.rows))
    height = 1.0 + len(rules) * (0.12 + 0.2 * len(precisions))
    width = 1.6 + max(3.5 * len(nets), 6.0)
    figure = Figure(
        figsize=(width, height + FOOT),
    )
    grid = figure.add_gridspec(2, len(nets), height_ratios=(height, FOOT))
    panels = [figure.add_subplot(grid[0, 0])]
    panels += [figure.add_subplot(grid[0, i], sharey=panels[0]) for i in range(1, len(nets))]
    for axes, net in zip(panels, nets, strict=True):
        rows = [row for row in report.rows if row.net == net]
        for precision, colour in zip(precisions, COLOURS, strict=False):
            chosen = {row.rule: row for row in rows if row.precision == precision}
            _bars(axes, chosen, rules, precisions.index(precision), len(precisions), colour, precision)
        _frame(axes, rows)
        axes.set_title(f"{net}, batch {rows[0].batch_size}")
    panels[0].set_yticks(range(len(rules)), rules)
    panels[0].set_ylim(len(rules) - 0.4, -0.6)  # the first rule on top
    for axes in panels[1:]:
        axes.tick_params(axis="y", labelleft=False)
    figure.suptitle("Time of a training step ÷ that of back-propagation in plain PyTorch")
    foot = figure.add_subplot(grid[1, :])
    foot.set_axis_off()
    foot.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncols=len(precisions))
    words = f"Left of 1: faster than bp. Whiskers: quartiles. {report.machine()}"
    foot.text(
        0.5, 0, "\n".join(textwrap.wrap(words, int(15 * width))), ha="center", va="bottom", fontsize="x-small"
    )
    save(figure, path)


def _bars(
    axes: Axes, rows: dict[str, Row], rules: list[str], place: int, places: int, colour: str, label: str
) -> None:
    """One bar for each rule that has a row, in its place among the precisions', with its ratio at the end."""
    thickness = 0.8 / places
    for position, rule in enumerate(rules):
        if rule not in rows:
            continue
        ratio = rows[rule].ratio
        y = position - 0.4 + thickness * (place + 0.5)
        named = label if rule == next(iter(rows)) else None
        axes.barh(y, ratio.median - 1, thickness * 0.9, left=1, color=colour, label=named)
        axes.plot([ratio.low, ratio.high], [y, y], color=BLACK, linewidth=0.8)
        left = ratio.median < 1
        axes.annotate(
            f"{ratio.median:.2f}" if ratio.median < 10 else f"{ratio.median:.1f}",
            (min(ratio.low, 1) if left else max(ratio.high, 1), y),
            xytext=(-3 if left else 3, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize="x-small",
        )


def _frame(axes: Axes, rows: list[Row]) -> None:
    """A logarithmic axis with room for the labels, and a line at bp."""
    low = min(0.9, *(row.ratio.low for row in rows))  # a few per cent are not to fill the panel
    high = max(1.1, *(row.ratio.high for row in rows))
    room = max((high / low) ** 0.2, 1.12)
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    plain_ticks(axes.xaxis, low / room, high * room)
    axes.axvline(1, color=BLACK, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
